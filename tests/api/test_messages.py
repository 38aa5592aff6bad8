"""Anthropic's /v1/messages with its official client."""

import anthropic
import pytest

WEATHER = {
    "name": "get_weather",
    "description": "Weather in a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}


def _user(text):
    return [{"role": "user", "content": text}]


def test_a_whole_message(server):
    message = server.anthropic().messages.create(
        model="fake", max_tokens=100, system="Be brief.", messages=_user([{"type": "text", "text": "say hi"}])
    )
    assert [b.text for b in message.content] == ["hi"]
    assert (message.role, message.type, message.stop_reason) == ("assistant", "message", "end_turn")
    assert message.usage.output_tokens == 3
    assert message.usage.service_tier == "standard"
    assert message._request_id


def test_a_stream_with_helpers(server):
    with server.anthropic().messages.stream(model="fake", max_tokens=100, messages=_user("count 9")) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == final.content[0].text == "0 1 2 3 4 5 6 7 8"
    assert final.stop_reason == "end_turn"
    assert final.usage.output_tokens == 18


def test_events_come_in_order(server):
    stream = server.anthropic().messages.create(
        model="fake", max_tokens=100, messages=_user("think hm | ok"), stream=True, thinking={"type": "adaptive"}
    )
    kinds = [e.type for e in stream]
    assert kinds[0] == "message_start"
    assert kinds[-2:] == ["message_delta", "message_stop"]
    assert [k for k in kinds if k in ("content_block_start", "content_block_stop")] == [
        "content_block_start",
        "content_block_stop",
    ] * 2


def test_thinking_blocks(server):
    message = server.anthropic().messages.create(
        model="fake", max_tokens=100, messages=_user("think hm | ok"), thinking={"type": "adaptive"}
    )
    assert [b.type for b in message.content] == ["thinking", "text"]
    assert message.content[0].thinking == "hm"


def test_stop_reasons(server):
    create = server.anthropic().messages.create
    cut = create(model="fake", max_tokens=2, messages=_user("say abc"))
    assert (cut.stop_reason, cut.content[0].text) == ("max_tokens", "ab")
    stopped = create(model="fake", max_tokens=100, messages=_user("count 9"), stop_sequences=["5"])
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "5")
    full = create(model="fake", max_tokens=1_000_000, messages=_user("count 2000"))
    assert full.stop_reason == "model_context_window_exceeded"


def test_tools_there_and_back(server):
    client = server.anthropic()
    asked = client.messages.create(
        model="fake", max_tokens=200, messages=_user('call get_weather {"city": "Rome"}'), tools=[WEATHER]
    )
    (use,) = asked.content
    assert (use.type, use.name, use.input, asked.stop_reason) == (
        "tool_use", "get_weather", {"city": "Rome"}, "tool_use"
    )  # fmt: skip
    result = {"type": "tool_result", "tool_use_id": use.id, "content": [{"type": "text", "text": "sunny"}]}
    answer = client.messages.create(
        model="fake",
        max_tokens=200,
        tools=[WEATHER],
        messages=[
            *_user("weather?"),
            {"role": "assistant", "content": asked.content},
            {"role": "user", "content": [result, {"type": "text", "text": "say sunny"}]},
        ],
    )
    assert answer.content[0].text == "sunny"


def test_tool_input_streams_as_json(server):
    with server.anthropic().messages.stream(
        model="fake",
        max_tokens=200,
        messages=_user('call get_weather {"city": "Rome"}'),
        tools=[WEATHER],
        tool_choice={"type": "any"},
    ) as stream:
        final = stream.get_final_message()
    assert final.content[0].input == {"city": "Rome"}
    assert final.stop_reason == "tool_use"


def test_a_begun_answer_is_continued(server):
    messages = [*_user("say abc"), {"role": "assistant", "content": "I say "}]
    assert server.anthropic().messages.create(model="fake", max_tokens=9, messages=messages).content[0].text == "abc"


def test_counting_agrees_with_usage(server):
    client = server.anthropic()
    asked = {"model": "fake", "messages": _user("say a nice thing"), "system": "Be nice.", "tools": [WEATHER]}
    counted = client.messages.count_tokens(**asked).input_tokens
    usage = client.messages.create(**asked, max_tokens=5).usage
    assert counted == usage.input_tokens + usage.cache_read_input_tokens


def test_speed_fast_is_real_time_work(server):
    message = server.anthropic().messages.create(
        model="fake", max_tokens=5, messages=_user("hi"), extra_body={"speed": "fast"}
    )
    assert message.usage.service_tier == "priority"


def test_errors_have_its_own_shape(server):
    client = server.anthropic()
    with pytest.raises(anthropic.NotFoundError) as missing:
        client.messages.create(model="nope", max_tokens=5, messages=_user("hi"))
    assert missing.value.body["error"]["type"] == "not_found_error"
    assert missing.value.body["request_id"] == missing.value.request_id
    source = {"type": "base64", "media_type": "image/png", "data": ""}
    with pytest.raises(anthropic.BadRequestError) as image:
        client.messages.create(model="fake", max_tokens=5, messages=_user([{"type": "image", "source": source}]))
    assert image.value.body["error"]["type"] == "invalid_request_error"
    with pytest.raises(anthropic.BadRequestError, match="max_tokens"):
        client.messages.create(model="fake", max_tokens=0, messages=_user("hi"))
