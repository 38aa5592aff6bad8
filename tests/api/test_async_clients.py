"""The asynchronous halves of the official clients: every endpoint once, as they are used together in one program."""

import asyncio

from anthropic import AsyncAnthropic
from pydantic import BaseModel


class City(BaseModel):
    name: str


TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}


def _user(text):
    return [{"role": "user", "content": text}]


async def test_all_endpoints_at_once(server):
    async with server.async_openai() as client:
        chat, called, parsed, response, completion, vectors, models = await asyncio.gather(
            client.chat.completions.create(model="fake", messages=_user("say one")),
            client.chat.completions.create(model="fake", messages=_user("call look {}"), tools=[TOOL]),
            client.chat.completions.parse(model="fake", messages=_user('say {"name": "Rome"}'), response_format=City),
            client.responses.create(model="fake", input="say two"),
            client.completions.create(model="fake", prompt="x", max_tokens=5),
            client.embeddings.create(model="fake-embed", input=["a", "b"]),
            client.models.list(),
        )
    assert chat.choices[0].message.content == "one"
    assert called.choices[0].message.tool_calls[0].function.name == "look"
    assert parsed.choices[0].message.parsed == City(name="Rome")
    assert response.output_text == "two"
    assert completion.choices[0].text == "Hello"
    assert len(vectors.data) == 2
    assert "fake" in [model.id for model in models.data]


async def test_streams_side_by_side(server):
    async with server.async_openai() as client:

        async def chat() -> str:
            stream = await client.chat.completions.create(model="fake", messages=_user("count 20"), stream=True)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

        async def response() -> str:
            async with client.responses.stream(model="fake", input="count 20") as stream:
                return "".join([event.delta async for event in stream if event.type == "response.output_text.delta"])

        texts = await asyncio.gather(chat(), response(), chat(), response())
    assert set(texts) == {" ".join(map(str, range(20)))}


async def test_anthropics_asynchronous_client(server):
    async with AsyncAnthropic(base_url=server.base_url, api_key="none", max_retries=0, timeout=30) as client:
        asked = {"model": "fake", "max_tokens": 100}
        message = await client.messages.create(messages=_user("say one"), **asked)
        async with client.messages.stream(messages=_user("count 9"), **asked) as stream:
            text = "".join([piece async for piece in stream.text_stream])
        counted = await client.messages.count_tokens(model="fake", messages=_user("say one"))
    assert message.content[0].text == "one"
    assert text == "0 1 2 3 4 5 6 7 8"
    usage = message.usage
    assert counted.input_tokens == usage.input_tokens + usage.cache_read_input_tokens
