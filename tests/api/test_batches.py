"""Files and batches with the official client: to the letter of OpenAI's semantics."""

import json
import time
from collections.abc import Callable, Iterable
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types import Batch

from speciate.batch.options import BatchOptions
from speciate.engines.fake import StepCost

OVER = ("completed", "failed", "expired", "cancelled")


def _chat_line(number: int, said: str = "", **changes: Any) -> dict[str, Any]:
    body = {"model": "fake", "messages": [{"role": "user", "content": said or f"say line {number}"}], "max_tokens": 50}
    line = {"custom_id": f"id-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
    return {**line, **changes}


def _jsonl(lines: Iterable[Any]) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def _upload(client: OpenAI, data: bytes, name: str = "in.jsonl") -> str:
    return client.files.create(file=(name, data), purpose="batch").id


def _submit(client: OpenAI, data: bytes, endpoint: Any = "/v1/chat/completions", **more: Any) -> Batch:
    window: Any = more.pop("completion_window", "24h")
    return client.batches.create(
        input_file_id=_upload(client, data), endpoint=endpoint, completion_window=window, **more
    )


def _wait(client: OpenAI, batch: Batch, until: tuple[str, ...] = OVER, timeout_s: float = 30.0) -> Batch:
    ends = time.monotonic() + timeout_s
    while batch.status not in until:
        assert time.monotonic() < ends, batch
        time.sleep(0.02)
        batch = client.batches.retrieve(batch.id)
    return batch


def _lines(client: OpenAI, file_id: str | None) -> list[dict[str, Any]]:
    assert file_id is not None
    return [json.loads(line) for line in client.files.content(file_id).content.splitlines()]


@pytest.fixture
def client(server: Any) -> OpenAI:
    return server.openai()  # type: ignore[no-any-return]


def test_a_batch_from_upload_to_output_in_input_order(client: OpenAI) -> None:
    batch = _submit(client, _jsonl(_chat_line(i) for i in range(300)), metadata={"job": "nightly"})
    assert (batch.status, batch.object, batch.completion_window) == ("validating", "batch", "24h")
    assert batch.expires_at == batch.created_at + 86_400
    done = _wait(client, batch)
    assert done.status == "completed"
    assert done.request_counts is not None
    assert (done.request_counts.total, done.request_counts.completed, done.request_counts.failed) == (300, 300, 0)
    assert (done.metadata, done.model, done.error_file_id, done.errors) == ({"job": "nightly"}, "fake", None, None)
    times = [done.created_at, done.in_progress_at, done.finalizing_at, done.completed_at]
    assert times == sorted(t or 0 for t in times)
    assert (done.failed_at, done.expired_at, done.cancelling_at, done.cancelled_at) == (None,) * 4
    lines = _lines(client, done.output_file_id)
    assert [line["custom_id"] for line in lines] == [f"id-{i}" for i in range(300)]
    assert len({line["id"] for line in lines}) == 300
    first = lines[0]
    assert first["error"] is None
    assert first["response"]["status_code"] == 200
    assert first["response"]["request_id"]
    assert first["response"]["body"]["object"] == "chat.completion"
    assert first["response"]["body"]["choices"][0]["message"]["content"] == "line 0"
    assert first["response"]["body"]["service_tier"] == "flex"
    assert done.usage is not None
    assert done.usage.output_tokens == sum(line["response"]["body"]["usage"]["completion_tokens"] for line in lines)
    assert done.usage.total_tokens == done.usage.input_tokens + done.usage.output_tokens
    output = client.files.retrieve(str(done.output_file_id))
    assert (output.purpose, output.bytes) == ("batch_output", len(client.files.content(output.id).content))


def test_provenance_says_where_each_line_ran(client: OpenAI) -> None:
    done = _wait(client, _submit(client, _jsonl(_chat_line(i) for i in range(3))))
    rows = _lines(client, done.model_extra["provenance_file_id"])  # type: ignore[index]
    assert [(row["index"], row["custom_id"], row["attempt"]) for row in rows] == [(i, f"id-{i}", 1) for i in range(3)]
    assert set(rows[0]) >= {"worker", "replica", "market", "seconds", "price_usd", "energy_j"}


def test_lines_that_fail_go_to_the_error_file(client: OpenAI) -> None:
    bad = _chat_line(1)
    bad["body"]["temperature"] = 99
    too_long = _chat_line(2, "x" * 5000)
    done = _wait(client, _submit(client, _jsonl([_chat_line(0), bad, too_long, _chat_line(3)])))
    assert done.status == "completed"
    assert done.request_counts is not None
    assert (done.request_counts.completed, done.request_counts.failed) == (2, 2)
    assert [line["custom_id"] for line in _lines(client, done.output_file_id)] == ["id-0", "id-3"]
    errors = _lines(client, done.error_file_id)
    assert [line["custom_id"] for line in errors] == ["id-1", "id-2"]
    assert errors[0]["response"]["status_code"] == 400
    assert errors[0]["response"]["body"]["error"]["param"] == "temperature"
    assert errors[1]["response"]["body"]["error"]["code"] == "context_length_exceeded"


def test_a_batch_with_only_failures_has_no_output_file(client: OpenAI) -> None:
    bad = _chat_line(0)
    bad["body"]["temperature"] = 99
    done = _wait(client, _submit(client, _jsonl([bad])))
    assert (done.status, done.output_file_id) == ("completed", None)
    assert len(_lines(client, done.error_file_id)) == 1


@pytest.mark.parametrize(
    ("endpoint", "body", "kind"),
    [
        ("/v1/completions", {"model": "fake", "prompt": "hello", "max_tokens": 5}, "text_completion"),
        ("/v1/responses", {"model": "fake", "input": "say hi"}, "response"),
        ("/v1/embeddings", {"model": "fake-embed", "input": "hello"}, "list"),
        ("/v1/messages", {"model": "fake", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 20}, None),
    ],
)
def test_every_endpoint_runs(client: OpenAI, endpoint: str, body: dict[str, Any], kind: str | None) -> None:
    line = {"custom_id": "a", "method": "POST", "url": endpoint, "body": body}
    done = _wait(client, _submit(client, _jsonl([line]), endpoint))
    assert done.status == "completed"
    (answer,) = _lines(client, done.output_file_id)
    assert answer["response"]["body"].get("object") == kind
    assert done.usage is not None
    assert done.usage.input_tokens > 0


def test_cancel_mid_way_keeps_what_is_done(start_server: Callable[..., Any], slow_steps: Any) -> None:
    client = start_server(cost=slow_steps).openai()
    batch = _submit(client, _jsonl(_chat_line(i, f"count {i % 5 + 5}") for i in range(2000)))
    while (client.batches.retrieve(batch.id).request_counts or batch.request_counts).completed < 20:  # type: ignore[union-attr]
        time.sleep(0.02)
    cancelling = client.batches.cancel(batch.id)
    assert cancelling.status in ("cancelling", "cancelled")
    done = _wait(client, cancelling)
    assert done.status == "cancelled"
    assert done.cancelled_at is not None
    output, errors = _lines(client, done.output_file_id), _lines(client, done.error_file_id)
    ids = sorted(int(line["custom_id"][3:]) for line in output + errors)
    assert ids == list(range(2000))
    assert {line["error"]["code"] for line in errors} == {"batch_cancelled"}
    assert len(output) >= 20
    with pytest.raises(openai.BadRequestError):
        client.batches.cancel(_wait(client, _submit(client, _jsonl([_chat_line(0)]))).id)


def test_lines_of_a_cancelled_batch_stop(start_server: Callable[..., Any]) -> None:
    """Their answers would take a minute, the grace is over at once: nothing of them may run on."""
    options = BatchOptions(poll_s=0.05, cancel_grace_s=0.1)
    server = start_server(cost=StepCost(fixed_s=0.2), batch=options)
    client = server.openai()
    batch = _submit(client, _jsonl(_chat_line(i, "count 300") for i in range(20)))
    while server.is_idle():
        time.sleep(0.02)
    assert _wait(client, client.batches.cancel(batch.id)).status == "cancelled"
    ends = time.monotonic() + 10.0
    while not server.is_idle():
        assert time.monotonic() < ends, "lines of a cancelled batch still run"
        time.sleep(0.05)


class _Wall:
    """A wall clock that the test moves."""

    def __init__(self) -> None:
        self.shift_s = 0.0

    def now_s(self) -> float:
        return time.time() + self.shift_s


def test_what_is_not_done_in_its_window_expires(start_server: Callable[..., Any], slow_steps: Any) -> None:
    wall = _Wall()
    client = start_server(cost=slow_steps, wall=wall).openai()
    batch = _submit(client, _jsonl(_chat_line(i, "count 20") for i in range(2000)), completion_window="PT1H")
    assert batch.expires_at == batch.created_at + 3600
    while (client.batches.retrieve(batch.id).request_counts or batch.request_counts).completed < 5:  # type: ignore[union-attr]
        time.sleep(0.02)
    wall.shift_s = 3601.0
    done = _wait(client, batch)
    assert done.status == "expired"
    assert done.expired_at is not None
    errors = _lines(client, done.error_file_id)
    assert {line["error"]["code"] for line in errors} == {"batch_expired"}
    assert len(errors) + len(_lines(client, done.output_file_id)) == 2000


def test_the_output_of_a_running_batch_is_its_complete_prefix(
    start_server: Callable[..., Any], slow_steps: Any
) -> None:
    client = start_server(cost=slow_steps).openai()
    batch = _submit(client, _jsonl(_chat_line(i, f"count {i % 7 + 3}") for i in range(1500)))
    sizes = []
    while batch.status not in OVER:
        batch = client.batches.retrieve(batch.id)
        if batch.output_file_id:
            lines = _lines(client, batch.output_file_id)
            assert [line["custom_id"] for line in lines] == [f"id-{i}" for i in range(len(lines))]
            sizes.append(len(lines))
    assert sizes == sorted(sizes)
    assert sizes[-1] <= 1500
    assert any(0 < size < 1500 for size in sizes)


def test_lists_have_cursors(client: OpenAI) -> None:
    made = [_submit(client, _jsonl([_chat_line(0)])).id for _ in range(5)]
    page = client.batches.list(limit=2)
    assert [batch.id for batch in page.data] == made[:2:-1]
    assert page.has_more
    listed = [batch.id for batch in client.batches.list(limit=2)]
    assert listed[:5] == made[::-1]
    files = client.files.list(limit=3, purpose="batch")
    assert len(files.data) == 3
    assert len({file.id for file in files}) >= 5
    with pytest.raises(openai.NotFoundError):
        client.batches.list(after="batch_nothing")


def test_an_idempotency_key_makes_one_batch(client: OpenAI) -> None:
    file_id = _upload(client, _jsonl([_chat_line(0)]))
    headers = {"Idempotency-Key": f"k-{time.time()}"}
    wanted: dict[str, Any] = {"input_file_id": file_id, "endpoint": "/v1/chat/completions"}
    first = client.batches.create(**wanted, completion_window="24h", extra_headers=headers)
    assert client.batches.create(**wanted, completion_window="24h", extra_headers=headers).id == first.id
    with pytest.raises(openai.BadRequestError, match="asked for something else"):
        client.batches.create(**wanted, completion_window="8h", extra_headers=headers)  # type: ignore[arg-type]


@pytest.mark.parametrize("window", ["2h", "8h", "24h", "90m", "7d", "PT2H30M", "P1D", "P1W"])
def test_windows_of_any_length(client: OpenAI, window: str) -> None:
    seconds = {"2h": 7200, "8h": 28800, "24h": 86400, "90m": 5400, "7d": 604800, "PT2H30M": 9000, "P1D": 86400}
    batch = _submit(client, _jsonl([_chat_line(0)]), completion_window=window)
    assert batch.expires_at == batch.created_at + seconds.get(window, 604800)
    assert batch.completion_window == window


def _broken(number: int = 1, **changes: Any) -> bytes:
    return _jsonl([_chat_line(0), _chat_line(number, **changes)])


def _without(key: str) -> bytes:
    line = _chat_line(1)
    del line[key]
    return _jsonl([_chat_line(0), line])


def _body(**changes: Any) -> bytes:
    line = _chat_line(1)
    line["body"] = {k: v for k, v in {**line["body"], **changes}.items() if v is not None}
    return _jsonl([_chat_line(0), line])


GOOD = _jsonl([_chat_line(0)])
MALFORMED = {
    "duplicate custom_id": (_broken(0), "duplicate_custom_id", 2),
    "not JSON": (GOOD + b"{nope\n", "invalid_json_line", 2),
    "an array": (GOOD + b"[1]\n", "invalid_type", 2),
    "a blank line between": (GOOD + b"\n" + _jsonl([_chat_line(1)]), "invalid_json_line", 2),
    "UTF-8 with a byte order mark": (b"\xef\xbb\xbf" + GOOD, "invalid_encoding", 1),
    "UTF-16": (GOOD.decode().encode("utf-16"), "invalid_encoding", 1),
    "invalid UTF-8": (GOOD + b'{"custom_id":"\xff"}\n', "invalid_encoding", 2),
    "nested too deeply": (GOOD + b'{"custom_id":' + b"[" * 100_000 + b"\n", "invalid_type", 2),
    "no custom_id": (_without("custom_id"), "missing_required_parameter", 2),
    "empty custom_id": (_broken(custom_id=""), "missing_required_parameter", 2),
    "custom_id is a number": (_broken(custom_id=7), "invalid_type", 2),
    "custom_id is too long": (_broken(custom_id="x" * 513), "invalid_custom_id", 2),
    "no method": (_without("method"), "missing_required_parameter", 2),
    "GET": (_broken(method="GET"), "invalid_method", 2),
    "no url": (_without("url"), "missing_required_parameter", 2),
    "another endpoint": (_broken(url="/v1/completions"), "mismatched_endpoint", 2),
    "no body": (_without("body"), "missing_required_parameter", 2),
    "body is text": (_broken(body="{}"), "invalid_type", 2),
    "no model": (_body(model=None), "missing_required_parameter", 2),
    "mixed models": (_body(model="plain"), "mismatched_model", 2),
    "streams": (_body(stream=True), "invalid_value", 2),
    "unknown model": (_jsonl([{**_chat_line(0), "body": {"model": "gpt-9"}}]), "model_not_found", 1),
    "a line of 9 MB": (GOOD + _jsonl([_chat_line(1, "x" * 9_000_000)]), "line_too_long", 2),
    "nothing": (b"", "empty_file", None),
    "only blank lines": (b"\n\n", "empty_file", None),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_input_is_told_by_line(client: OpenAI, name: str) -> None:
    data, code, line = MALFORMED[name]
    done = _wait(client, _submit(client, data))
    assert done.status == "failed"
    assert done.failed_at is not None
    assert done.errors is not None
    assert done.errors.data is not None
    first = done.errors.data[0]
    assert (first.code, first.line) == (code, line)
    assert first.message


def test_all_errors_of_a_file_are_listed(client: OpenAI) -> None:
    data = _jsonl([_chat_line(0), _chat_line(1, method="PUT"), _chat_line(2), _chat_line(0)])
    done = _wait(client, _submit(client, data))
    assert done.errors is not None
    assert [(e.code, e.line) for e in done.errors.data or []] == [("invalid_method", 2), ("duplicate_custom_id", 4)]


def test_a_line_of_5_mb_and_blank_lines_at_the_end_are_fine_for_validation(client: OpenAI) -> None:
    data = _jsonl([_chat_line(0), _chat_line(1, "x" * 5_000_000)]) + b"\n\r\n"
    done = _wait(client, _submit(client, data))
    assert done.status == "completed"
    assert _lines(client, done.error_file_id)[0]["response"]["body"]["error"]["code"] == "context_length_exceeded"


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"endpoint": "/v1/nothing"}, "endpoint"),
        ({"completion_window": "tomorrow"}, "completion_window"),
        ({"completion_window": "P1Y"}, "completion_window"),
        ({"completion_window": "1m"}, None),
        ({"metadata": {"k": "v" * 513}}, None),
        ({"metadata": {str(i): "v" for i in range(17)}}, None),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 5}}, "output_expires_after"),
    ],
)
def test_a_batch_that_cannot_be_made_is_refused_at_once(
    client: OpenAI, change: dict[str, Any], param: str | None
) -> None:
    wanted = {
        "input_file_id": _upload(client, GOOD),
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
        **change,
    }
    if change == {"completion_window": "1m"}:
        client.batches.create(**wanted)
        return
    with pytest.raises(openai.BadRequestError) as refused:
        client.batches.create(**wanted)
    assert param in (refused.value.param, None)


def test_input_files_must_be_there_and_be_meant_for_it(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        client.batches.create(
            input_file_id="file-000000000000000000000000", endpoint="/v1/chat/completions", completion_window="24h"
        )
    other = client.files.create(file=("a", GOOD), purpose="user_data")
    with pytest.raises(openai.BadRequestError, match="purpose"):
        client.batches.create(input_file_id=other.id, endpoint="/v1/chat/completions", completion_window="24h")


def test_output_files_expire_when_asked(client: OpenAI) -> None:
    batch = _submit(client, GOOD, output_expires_after={"anchor": "created_at", "seconds": 3600})
    done = _wait(client, batch)
    output = client.files.retrieve(str(done.output_file_id))
    assert output.expires_at == output.created_at + 3600


def test_a_window_that_cannot_be_kept_is_refused_with_the_earliest(start_server: Callable[..., Any]) -> None:
    """Some seconds of work show a pace; a job of hours at that pace does not fit into a minute."""
    server = start_server(cost=StepCost(fixed_s=0.2))
    client = server.openai()
    slow = [_chat_line(i, "count 4") for i in range(40)]
    _wait(client, _submit(client, _jsonl(slow), completion_window="PT2H"))
    wait_for = time.monotonic() + 20.0
    while not server.jobs._worker.paces.is_known("fake"):
        assert time.monotonic() < wait_for
        _wait(client, _submit(client, _jsonl(slow), completion_window="PT2H"))
    big = _jsonl(_chat_line(i) for i in range(30_000))
    with pytest.raises(openai.BadRequestError, match="The earliest window that can be kept is PT") as refused:
        _submit(client, big, completion_window="1m")
    assert (refused.value.code, refused.value.param) == ("window_infeasible", "completion_window")
    estimate = client.post(
        "/batches/estimate",
        body={"input_file_id": _upload(client, big), "completion_window": "1m"},
        cast_to=dict[str, Any],
    )
    assert (estimate["is_feasible"], estimate["num_lines"], estimate["is_measured"]) == (False, 30_000, True)
    offered = str(refused.value).partition("can be kept is ")[2].partition(".")[0]
    assert _submit(client, big, completion_window=offered).status == "validating"
    assert estimate["earliest_window"].startswith("PT")


def test_too_many_lines_and_open_batches_are_refused(start_server: Callable[..., Any], slow_steps: Any) -> None:
    limits = BatchOptions(poll_s=0.05, max_lines=3, max_open_batches=1, max_file_bytes=2000)
    client = start_server(cost=slow_steps, batch=limits).openai()
    done = _wait(client, _submit(client, _jsonl(_chat_line(i) for i in range(4))))
    assert done.errors is not None
    assert done.errors.data is not None
    assert done.errors.data[0].code == "request_limit_exceeded"
    with pytest.raises(openai.APIStatusError) as large:
        _upload(client, b"x" * 2001)
    assert large.value.status_code == 413
    _wait(client, _submit(client, _jsonl([_chat_line(0, "count 900")])), ("in_progress",))
    with pytest.raises(openai.RateLimitError):
        _submit(client, GOOD)
