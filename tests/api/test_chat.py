"""/v1/chat/completions with the official client."""

import json

import openai
import pytest
from pydantic import BaseModel

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def _user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_a_whole_answer(server):
    answer = server.openai().chat.completions.create(model="fake", messages=_user("say Grüße, 世界 🌍!"))
    assert answer.id.startswith("chatcmpl-")
    assert answer.object == "chat.completion"
    (choice,) = answer.choices
    assert choice.message.content == "Grüße, 世界 🌍!"
    assert choice.message.role == "assistant"
    assert choice.finish_reason == "stop"
    assert choice.message.tool_calls is None
    assert answer.service_tier == "default"
    assert answer.usage.completion_tokens == len("Grüße, 世界 🌍!".encode()) + 1
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_max_tokens_ends_with_length(server):
    answer = server.openai().chat.completions.create(model="fake", messages=_user("say abcdef"), max_tokens=3)
    assert answer.choices[0].message.content == "abc"
    assert answer.choices[0].finish_reason == "length"


def test_stop_strings(server):
    answer = server.openai().chat.completions.create(model="fake", messages=_user("count 9"), stop=["5", "8"])
    assert answer.choices[0].message.content == "0 1 2 3 4 "
    assert answer.choices[0].finish_reason == "stop"


def test_a_stream_has_role_text_finish_and_usage_in_order(server):
    stream = server.openai().chat.completions.create(
        model="fake", messages=_user("count 20"), stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert len({c.id for c in chunks}) == len({c.created for c in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(c.choices[0].delta.content or "" for c in chunks[:-1])
    assert text == " ".join(map(str, range(20)))
    assert [c.choices[0].finish_reason for c in chunks[:-1]] == [None] * (len(chunks) - 2) + ["stop"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == len(text) + 1
    assert all(c.usage is None for c in chunks[:-1])


async def test_the_async_client_streams_too(server):
    async with server.async_openai() as client:
        stream = await client.chat.completions.create(model="fake", messages=_user("say hi"), stream=True)
        assert "".join([c.choices[0].delta.content or "" async for c in stream]) == "hi"


def test_several_choices(server):
    client = server.openai()
    whole = client.chat.completions.create(model="fake", messages=_user("say abc"), n=3)
    assert [(c.index, c.message.content) for c in whole.choices] == [(0, "abc"), (1, "abc"), (2, "abc")]
    assert whole.usage.completion_tokens == 3 * 4
    texts = ["", "", ""]
    reasons = [None] * 3
    for chunk in client.chat.completions.create(model="fake", messages=_user("say abc"), n=3, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            reasons[choice.index] = choice.finish_reason or reasons[choice.index]
    assert texts == ["abc"] * 3
    assert reasons == ["stop"] * 3


def test_logprobs_name_every_token(server):
    client = server.openai()
    whole = client.chat.completions.create(model="fake", messages=_user("say hé"), logprobs=True, top_logprobs=0)
    content = whole.choices[0].logprobs.content
    assert [bytes(t.bytes) for t in content[:3]] == [b"h", b"\xc3", b"\xa9"]
    stream = client.chat.completions.create(model="fake", messages=_user("say hé"), logprobs=True, stream=True)
    streamed = [t for c in stream if c.choices[0].logprobs for t in c.choices[0].logprobs.content]
    assert [t.token for t in streamed] == [t.token for t in content]


def test_reasoning_is_told_under_both_names(server):
    client = server.openai()
    whole = client.chat.completions.create(model="fake", messages=_user("think let me see | done"))
    message = whole.choices[0].message
    assert (message.content, message.reasoning_content, message.reasoning) == ("done", "let me see", "let me see")
    assert whole.usage.completion_tokens_details.reasoning_tokens == len("let me see")
    stream = client.chat.completions.create(
        model="fake",
        messages=_user("think let me see | done"),
        stream=True,
        extra_body={"chat_template_kwargs": {"enable_thinking": True}},
    )
    deltas = [c.choices[0].delta for c in stream]
    assert "".join(getattr(d, "reasoning_content", None) or "" for d in deltas) == "let me see"
    assert "".join(getattr(d, "reasoning", None) or "" for d in deltas) == "let me see"
    assert "".join(d.content or "" for d in deltas) == "done"


@pytest.mark.parametrize("thinks_in_prompt", [True, False])
def test_a_model_thinks_freely_and_its_answer_obeys_the_format(server, thinks_in_prompt):
    def ask(said):
        answer = server.openai().chat.completions.create(
            model="fake",
            messages=_user(f"think let {{me}} see | {said}"),
            response_format={"type": "json_object"},
            extra_body={"chat_template_kwargs": {"enable_thinking": thinks_in_prompt}},
        )
        return answer.choices[0].message, server.engine.obeyed[-1]

    message, is_obedient = ask('{"a": 1}')
    assert (message.reasoning_content, message.content) == ("let {me} see", '{"a": 1}')
    assert is_obedient
    assert not ask("no object")[1]


def test_with_tools_and_a_format_a_thought_may_come_first(server):
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    for said in ('{"a": 1}', "no object"):
        server.openai().chat.completions.create(
            model="fake",
            messages=_user(f"think hm | {said}"),
            response_format={"type": "json_object"},
            tools=[tool],
        )
    assert server.engine.obeyed[-2:] == [True, False]


def test_tool_calls(server):
    answer = server.openai().chat.completions.create(
        model="fake", messages=_user('call get_weather {"city": "Köln"}'), tools=[WEATHER]
    )
    (choice,) = answer.choices
    (call,) = choice.message.tool_calls
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    assert call.id.startswith("call_")
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"city": "Köln"}


def test_parallel_tool_calls_stream_with_index_and_id(server):
    asked = 'call get_weather {"city": "Rome"}\nget_weather {"city": "Oslo"}'
    stream = server.openai().chat.completions.create(model="fake", messages=_user(asked), tools=[WEATHER], stream=True)
    calls: dict[int, dict[str, str]] = {}
    reason = None
    for chunk in stream:
        reason = chunk.choices[0].finish_reason or reason
        for part in chunk.choices[0].delta.tool_calls or ():
            call = calls.setdefault(part.index, {"id": part.id, "name": part.function.name, "arguments": ""})
            call["arguments"] += part.function.arguments or ""
    assert reason == "tool_calls"
    assert [json.loads(c["arguments"])["city"] for _, c in sorted(calls.items())] == ["Rome", "Oslo"]
    assert all(c["id"] and c["name"] == "get_weather" for c in calls.values())


def test_the_stream_helper_assembles_tool_calls(server):
    with server.openai().chat.completions.stream(
        model="fake", messages=_user('call get_weather {"city": "Rome"}'), tools=[WEATHER]
    ) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.tool_calls[0].function.arguments == '{"city": "Rome"}'


def test_a_tool_result_goes_back_to_the_model(server):
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Rome"}'}}
    messages = [
        *_user("weather?"),
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
        *_user("say sunny"),
    ]
    answer = server.openai().chat.completions.create(model="fake", messages=messages, tools=[WEATHER])
    assert answer.choices[0].message.content == "sunny"


def test_a_demanded_tool_compiles_its_grammar(server):
    choice = {"type": "function", "function": {"name": "get_weather"}}
    for tool_choice in ("required", choice):
        answer = server.openai().chat.completions.create(
            model="fake", messages=_user('call get_weather {"city": "A"}'), tools=[WEATHER], tool_choice=tool_choice
        )
        assert answer.choices[0].finish_reason == "tool_calls"


class City(BaseModel):
    name: str
    people: int


def test_structured_output_parses(server):
    parsed = server.openai().chat.completions.parse(
        model="fake", messages=_user('say {"name": "Köln", "people": 7}'), response_format=City
    )
    assert parsed.choices[0].message.parsed == City(name="Köln", people=7)


def test_a_format_and_optional_tools_go_together(server):
    for asked, reason in (('say {"a": 1}', "stop"), ('call get_weather {"city": "A"}', "tool_calls")):
        answer = server.openai().chat.completions.create(
            model="fake", messages=_user(asked), tools=[WEATHER], response_format={"type": "json_object"}
        )
        assert answer.choices[0].finish_reason == reason


@pytest.mark.parametrize(
    ("asked", "told", "header"),
    [("priority", "priority", "realtime"), ("fast", "priority", "realtime"), ("flex", "flex", "batch"),
     ("auto", "default", "interactive"), ("scale", "default", "interactive")],
)  # fmt: skip
def test_the_tier_is_told_in_body_and_header(server, asked, told, header):
    raw = server.openai().chat.completions.with_raw_response.create(
        model="fake", messages=_user("hi"), service_tier=asked, max_tokens=20
    )
    assert raw.parse().service_tier == told
    assert raw.headers["x-speciate-tier"] == header


def test_other_gateways_words_for_the_tier(server):
    create = server.openai().chat.completions.with_raw_response.create
    by_priority = create(model="fake", messages=_user("hi"), extra_body={"priority": 7}, max_tokens=20)
    by_header = create(
        model="fake", messages=_user("hi"), max_tokens=20, extra_headers={"x-gateway-inference-objective": "batch"}
    )
    assert by_priority.headers["x-speciate-tier"] == by_header.headers["x-speciate-tier"] == "batch"


def test_request_ids_and_timing_come_back(server):
    raw = server.openai().chat.completions.with_raw_response.create(
        model="fake", messages=_user("hi"), extra_headers={"X-Client-Request-Id": "my-id-1"}
    )
    assert raw.headers["x-request-id"] == "my-id-1"
    assert int(raw.headers["openai-processing-ms"]) >= 0
    insane = server.openai().chat.completions.with_raw_response.create(
        model="fake", messages=_user("hi"), extra_headers={"X-Client-Request-Id": "a b\tc"}
    )
    assert insane.headers["x-request-id"].startswith("req_")


def test_the_last_message_can_be_continued(server):
    messages = [*_user("say abc"), {"role": "assistant", "content": "I say: "}]
    answer = server.openai().chat.completions.create(
        model="fake", messages=messages, extra_body={"continue_final_message": True}
    )
    assert answer.choices[0].message.content == "abc"


def test_without_a_template_there_is_no_chat(server):
    with pytest.raises(openai.BadRequestError, match="no chat template"):
        server.openai().chat.completions.create(model="plain", messages=_user("hi"))
