"""/v1/responses with the official client."""

import json
import time

import openai
import pytest
from pydantic import BaseModel

WEATHER = {
    "type": "function",
    "name": "get_weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": False,
}
NULLABLE = """
    error incomplete_details instructions max_output_tokens max_tool_calls metadata previous_response_id reasoning
    service_tier temperature text tool_choice tools top_logprobs top_p truncation usage user background completed_at
    store safety_identifier prompt_cache_key presence_penalty frequency_penalty parallel_tool_calls
"""


def test_a_whole_response_has_every_field(server):
    raw = server.openai().responses.with_raw_response.create(model="fake", input="say hi", instructions="Be brief.")
    response = raw.parse()
    assert response.output_text == "hi"
    assert response.status == "completed"
    body = json.loads(raw.text)
    assert not [name for name in NULLABLE.split() if name not in body]
    assert body["usage"]["input_tokens_details"] == {"cached_tokens": 0, "cache_write_tokens": 0} | {
        "cached_tokens": body["usage"]["input_tokens_details"]["cached_tokens"]
    }
    assert body["output"][0]["content"][0] == {
        "type": "output_text", "text": "hi", "annotations": [], "logprobs": []
    }  # fmt: skip


def test_events_come_in_order_and_end_with_the_whole_response(server):
    events = list(server.openai().responses.create(model="fake", input="say hi", stream=True))
    kinds = [e.type for e in events]
    texts = kinds.count("response.output_text.delta")
    assert kinds == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * texts,
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [e.sequence_number for e in events] == list(range(len(events)))
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == "hi"
    assert events[-1].response.output_text == "hi"
    assert len({e.item_id for e in events if hasattr(e, "item_id")}) == 1


def test_reasoning_comes_before_the_message(server):
    client = server.openai()
    response = client.responses.create(model="fake", input="think hmm | done")
    assert [item.type for item in response.output] == ["reasoning", "message"]
    assert response.output[0].content[0].text == "hmm"
    assert response.usage.output_tokens_details.reasoning_tokens == 3
    events = list(client.responses.create(model="fake", input="think hmm | done", stream=True))
    assert "".join(e.delta for e in events if e.type == "response.reasoning_text.delta") == "hmm"
    assert events[-1].response.output_text == "done"


def test_function_calls_and_their_results(server):
    client = server.openai()
    first = client.responses.create(model="fake", input='call get_weather {"city": "Rome"}', tools=[WEATHER])
    (call,) = first.output
    assert (call.type, call.name, json.loads(call.arguments)) == ("function_call", "get_weather", {"city": "Rome"})
    second = client.responses.create(
        model="fake",
        previous_response_id=first.id,
        input=[
            {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"},
            {"role": "user", "content": "say sunny"},
        ],
        tools=[WEATHER],
    )
    assert second.output_text == "sunny"
    kinds = [item.type for item in client.responses.input_items.list(second.id, order="asc")]
    assert kinds == ["message", "function_call", "function_call_output", "message"]


def test_function_call_events(server):
    asked = 'call get_weather {"city": "Rome"}\nget_weather {"city": "Oslo"}'
    events = list(server.openai().responses.create(model="fake", input=asked, tools=[WEATHER], stream=True))
    done = [e for e in events if e.type == "response.function_call_arguments.done"]
    assert [json.loads(e.arguments)["city"] for e in done] == ["Rome", "Oslo"]
    for end in done:
        deltas = [e for e in events if e.type == "response.function_call_arguments.delta" and e.item_id == end.item_id]
        assert "".join(e.delta for e in deltas) == end.arguments
    assert [item.status for item in events[-1].response.output] == ["completed", "completed"]


class City(BaseModel):
    name: str


def test_structured_output_parses(server):
    parsed = server.openai().responses.parse(model="fake", input='say {"name": "Köln"}', text_format=City)
    assert parsed.output_parsed == City(name="Köln")


def test_too_few_tokens_make_it_incomplete(server):
    response = server.openai().responses.create(model="fake", input="say abcdef", max_output_tokens=3)
    assert response.status == "incomplete"
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.output_text == "abc"
    assert response.output[0].status == "incomplete"


def test_stored_responses_are_found_and_deleted(server):
    client = server.openai()
    made = client.responses.create(model="fake", input="say hi", metadata={"a": "b"})
    assert client.responses.retrieve(made.id) == made
    client.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)
    unstored = client.responses.create(model="fake", input="say hi", store=False)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(unstored.id)


def test_input_items_are_paged(server):
    client = server.openai()
    items = [{"role": "user", "content": f"say {i}"} for i in range(5)]
    made = client.responses.create(model="fake", input=items)
    page = client.responses.input_items.list(made.id, limit=2, order="asc")
    assert page.has_more
    assert [i.content[0].text for i in page.data] == ["say 0", "say 1"]
    texts = [i.content[0].text for i in client.responses.input_items.list(made.id, limit=2, order="asc")]
    assert texts == [f"say {i}" for i in range(5)]


def test_the_background_runs_on_and_is_polled(server):
    client = server.openai()
    made = client.responses.create(model="fake", input="say later", background=True)
    assert made.status == "queued"
    assert _poll(client, made.id).output_text == "later"


def test_a_background_stream_is_resumed_where_it_was_left(server):
    client = server.openai()
    first = list(client.responses.create(model="fake", input="count 30", background=True, stream=True))
    assert [e.sequence_number for e in first] == list(range(len(first)))
    again = list(client.responses.retrieve(first[0].response.id, stream=True, starting_after=4))
    assert [e.sequence_number for e in again] == list(range(5, len(first)))
    assert again[-1].type == "response.completed"


async def test_cancelling_stops_the_work(start_server, slow_steps, eventually):
    server = start_server(cost=slow_steps)
    client = server.openai()
    made = client.responses.create(model="fake", input="count 900", background=True)
    assert client.responses.cancel(made.id).status == "cancelled"
    await eventually(server.is_idle)
    server.on_loop(server.gateway.check)
    assert client.responses.retrieve(made.id).status == "cancelled"
    with pytest.raises(openai.BadRequestError, match="Only a background response"):
        client.responses.cancel(client.responses.create(model="fake", input="say hi").id)


def test_a_completion_window_makes_it_batch_work(server):
    client = server.openai()
    made = client.responses.create(
        model="fake", input="say hi", background=True, background_options={"completion_window": "2h"}
    )
    assert _poll(client, made.id).service_tier == "flex"
    with pytest.raises(openai.BadRequestError, match="needs background"):
        client.responses.create(model="fake", input="x", background_options={"completion_window": "2h"})


def test_what_is_not_held_here_is_refused(server):
    client = server.openai()
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model="fake", input="x", previous_response_id="resp_none")
    with pytest.raises(openai.BadRequestError) as hosted:
        client.responses.create(model="fake", input="x", tools=[{"type": "web_search"}])
    assert hosted.value.param == "tools[0]"
    part = {"type": "input_image", "image_url": "data:,", "detail": "auto"}
    with pytest.raises(openai.BadRequestError) as image:
        client.responses.create(model="fake", input=[{"role": "user", "content": [part]}])
    assert image.value.param == "input[0].content[0]"


def _poll(client, response_id):
    for _ in range(500):
        response = client.responses.retrieve(response_id)
        if response.status not in ("queued", "in_progress"):
            return response
        time.sleep(0.01)
    raise AssertionError("never finished")
