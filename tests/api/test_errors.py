"""What goes wrong is told with the right status, in the shape that the clients read."""

import json

import httpx2
import openai
import pytest

from speciate.api.options import ApiKey, ApiOptions

CHAT = {"model": "fake", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}


@pytest.fixture
def http(server):
    with httpx2.Client(base_url=server.base_url, timeout=30) as client:
        yield client


def _error(answer, status):
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert answer.headers["content-type"] == "application/json"
    return error


BAD_FIELDS = [
    ({"temperature": -1}, "temperature"),
    ({"temperature": 2.1}, "temperature"),
    ({"temperature": "hot"}, "temperature"),
    ({"top_p": 1.5}, "top_p"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": -5}, "max_tokens"),
    ({"max_tokens": 1.5}, "max_tokens"),
    ({"n": 0}, "n"),
    ({"n": 17}, "n"),
    ({"presence_penalty": 3}, "presence_penalty"),
    ({"logit_bias": {"5": 101}}, "logit_bias"),
    ({"logit_bias": {"x": 1}}, "logit_bias"),
    ({"top_logprobs": 3}, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"stop": ["x"] * 17}, "stop"),
    ({"stop": ["x"] * 10_000}, "stop"),
    ({"seed": 2**70}, "seed"),
    ({"service_tier": "platinum"}, "service_tier"),
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "narrator", "content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]},
     "messages[0].content[0]"),
    ({"modalities": ["audio"]}, "modalities"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tools": [{"type": "function", "function": {"name": "f"}}],
      "tool_choice": {"type": "function", "function": {"name": "g"}}}, "tool_choice"),
    ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs"),
    ({"response_format": {"type": "json_object"}, "guided_regex": "a+"}, "response_format"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "param"), BAD_FIELDS)
def test_a_bad_field_is_named(http, fields, param):
    error = _error(http.post("/v1/chat/completions", json={**CHAT, **fields}), 400)
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param


def test_the_limit_of_stop_strings_is_told(http):
    error = _error(http.post("/v1/chat/completions", json={**CHAT, "stop": ["x"] * 10_000}), 400)
    assert "16" in error["message"]


BAD_BODIES = [
    (b'{"model": "fake"', "truncated"),
    (json.dumps(CHAT).encode() + b" trailing", "trailing characters"),
    (b'{"temperature": NaN}', "byte 16"),
    (b'{"temperature": -Infinity}', "byte 17"),
    (b'{"model": "\xff"}', "byte 11 is 0xff"),
    (b"", "0 bytes"),
    (b'{"x":' + b"[" * 100_000, "nested too deeply"),
]


@pytest.mark.parametrize(("body", "told"), BAD_BODIES)
def test_what_is_not_json_is_told_with_its_place(http, body, told):
    error = _error(http.post("/v1/chat/completions", content=body), 400)
    assert error["code"] == "invalid_json"
    assert told in error["message"]


def test_numbers_too_large_for_a_float_are_refused(http):
    body = json.dumps(CHAT)[:-1] + ', "temperature": 1e999}'
    assert _error(http.post("/v1/chat/completions", content=body), 400)["param"] == "temperature"


def test_a_list_for_a_body_is_refused(http):
    assert "object" in _error(http.post("/v1/chat/completions", json=[CHAT]), 400)["message"]


def test_ten_megabytes_are_too_large_with_and_without_a_length(http):
    body = b'{"model": "' + b"x" * 10_000_000 + b'"}'
    assert _error(http.post("/v1/chat/completions", content=body), 413)["code"] == "request_too_large"

    def chunks():
        for start in range(0, len(body), 100_000):
            yield body[start : start + 100_000]

    try:
        answer = http.post("/v1/chat/completions", content=chunks())
    except httpx2.WriteError:
        return
    _error(answer, 413)


def test_unknown_fields_are_ignored(http):
    assert http.post("/v1/chat/completions", json={**CHAT, "web_search_options": {}, "zzz": 1}).status_code == 200


def test_a_schema_that_cannot_compile(http):
    schema = {"type": "object", "properties": {"a": {"$ref": "#/nowhere"}}}
    for stream in (False, True):
        spec = {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}
        error = _error(http.post("/v1/chat/completions", json={**CHAT, "response_format": spec, "stream": stream}), 400)
        assert error["code"] == "invalid_json_schema"


def test_unknown_urls_and_methods(http):
    assert _error(http.get("/v1/nothing"), 404)["code"] == "unknown_url"
    answer = http.get("/v1/chat/completions")
    assert _error(answer, 405)["code"] == "method_not_allowed"
    assert answer.headers["allow"] == "POST"


def test_unknown_models_are_told_with_those_that_exist(server):
    with pytest.raises(openai.NotFoundError) as missing:
        server.openai().chat.completions.create(**{**CHAT, "model": "gpt-9"})
    assert missing.value.code == "model_not_found"
    assert missing.value.param == "model"
    assert "org/fake-lora" in missing.value.message


def test_context_overflow_names_both_numbers(server):
    client = server.openai()
    with pytest.raises(openai.BadRequestError) as too_much:
        client.chat.completions.create(**{**CHAT, "max_tokens": 5000})
    assert too_much.value.code == "context_length_exceeded"
    assert "4096" in too_much.value.message
    assert "5000" in too_much.value.message
    long = [{"role": "user", "content": "x" * 6000}]
    with pytest.raises(openai.BadRequestError) as too_long:
        client.chat.completions.create(model="fake", messages=long, stream=True)
    assert too_long.value.code == "context_length_exceeded"
    assert "4096" in too_long.value.message


def test_overload_says_when_to_come_again(start_server, tiny_queues):
    server = start_server(limits=tiny_queues)
    with pytest.raises(openai.RateLimitError) as refused:
        server.openai().chat.completions.create(**CHAT)
    headers = refused.value.response.headers
    assert 1 <= int(headers["retry-after"]) <= 120
    assert 1 <= int(headers["retry-after-ms"]) <= 120_000
    assert refused.value.code == "rate_limit_exceeded"
    assert headers["x-ratelimit-remaining-requests"] == headers["x-ratelimit-limit-requests"] == "0"
    assert headers["x-ratelimit-reset-requests"] == "1s"
    with pytest.raises(openai.RateLimitError):
        server.openai().chat.completions.create(**CHAT, stream=True)


def test_a_lost_step_is_a_500_that_the_client_may_retry(start_server):
    server = start_server()
    server.engine.fail_next_step = True
    with pytest.raises(openai.InternalServerError) as lost:
        server.openai().chat.completions.create(**CHAT)
    assert lost.value.code == "engine_failed"
    server.engine.fail_next_step = True
    assert server.openai(max_retries=2).chat.completions.create(**CHAT).choices[0].message.content == "Hello"


def test_a_deadline_that_passes_is_a_504(start_server, slow_steps):
    server = start_server(cost=slow_steps)
    asked = {"model": "fake", "messages": [{"role": "user", "content": "count 900"}]}
    with pytest.raises(openai.InternalServerError) as late:
        server.openai().chat.completions.create(**asked, extra_headers={"x-speciate-deadline-ms": "100"})
    assert late.value.status_code == 504
    assert late.value.code == "deadline_exceeded"
    with pytest.raises(openai.BadRequestError, match="x-speciate-deadline-ms"):
        server.openai().chat.completions.create(**asked, extra_headers={"x-speciate-deadline-ms": "soon"})


def test_keys_are_asked_for_when_there_are_any(start_server):
    server = start_server(ApiOptions(api_keys=(ApiKey("secret-1", "one"), ApiKey("secret-2", "two"))))
    with pytest.raises(openai.AuthenticationError) as wrong:
        server.openai(api_key="guess").chat.completions.create(**CHAT)
    assert wrong.value.code == "invalid_api_key"
    assert server.openai(api_key="secret-2").chat.completions.create(**CHAT).choices
    message = {"model": "fake", "max_tokens": 5, "messages": CHAT["messages"]}
    assert server.anthropic(api_key="secret-1").messages.create(**message).content
    with httpx2.Client(base_url=server.base_url) as http:
        _error(http.get("/v1/models"), 401)
        assert http.get("/health").status_code == http.get("/ready").status_code == 200
        assert b"vllm:" in http.get("/metrics").content


def test_tenants_do_not_see_each_others_responses(start_server):
    server = start_server(ApiOptions(api_keys=(ApiKey("secret-1", "one"), ApiKey("secret-2", "two"))))
    made = server.openai(api_key="secret-1").responses.create(model="fake", input="say hi")
    with pytest.raises(openai.NotFoundError):
        server.openai(api_key="secret-2").responses.retrieve(made.id)


def test_the_root_serves_inference_too(http):
    assert http.post("/chat/completions", json=CHAT).status_code == 200
