"""Message batches with Anthropic's official client: a second dialect of the same jobs."""

import time
from collections.abc import Callable
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic
from anthropic.types.messages import MessageBatch


def _request(number: int, said: str = "", **changes: Any) -> Any:
    params = {
        "model": "fake",
        "max_tokens": 50,
        "messages": [{"role": "user", "content": said or f"say line {number}"}],
        **changes,
    }
    return {"custom_id": f"id-{number}", "params": params}


def _wait(client: Anthropic, batch: MessageBatch) -> MessageBatch:
    ends = time.monotonic() + 30
    while batch.processing_status != "ended":
        assert time.monotonic() < ends, batch
        time.sleep(0.02)
        batch = client.messages.batches.retrieve(batch.id)
    return batch


@pytest.fixture
def client(server: Any) -> Anthropic:
    return server.anthropic()  # type: ignore[no-any-return]


def test_a_message_batch_from_requests_to_results_in_order(client: Anthropic) -> None:
    batch = client.messages.batches.create(requests=[_request(i) for i in range(50)])
    assert (batch.type, batch.processing_status, batch.ended_at, batch.results_url) == (
        "message_batch",
        "in_progress",
        None,
        None,
    )
    assert batch.id.startswith("msgbatch_")
    assert (batch.expires_at - batch.created_at).total_seconds() == 86_400
    done = _wait(client, batch)
    assert done.request_counts.succeeded == 50
    assert done.ended_at is not None
    results = list(client.messages.batches.results(done.id))
    assert [row.custom_id for row in results] == [f"id-{i}" for i in range(50)]
    first = results[0].result
    assert first.type == "succeeded"
    assert first.message.content[0].text == "line 0"  # type: ignore[union-attr]


def test_requests_that_fail_are_among_the_results(client: Anthropic) -> None:
    requests = [_request(0), _request(1, temperature=99), _request(2, model="nothing"), _request(3, model="plain")]
    done = _wait(client, client.messages.batches.create(requests=requests))
    assert (done.request_counts.succeeded, done.request_counts.errored) == (1, 3)
    kinds = [(row.custom_id, row.result.type) for row in client.messages.batches.results(done.id)]
    assert kinds == [("id-0", "succeeded"), ("id-1", "errored"), ("id-2", "errored"), ("id-3", "errored")]
    rows = list(client.messages.batches.results(done.id))
    assert rows[2].result.error.error.type == "not_found_error"  # type: ignore[union-attr]


def test_cancelling_keeps_what_is_done(start_server: Callable[..., Any], slow_steps: Any) -> None:
    client = start_server(cost=slow_steps).anthropic()
    batch = client.messages.batches.create(requests=[_request(i, "count 9") for i in range(1000)])
    while client.messages.batches.retrieve(batch.id).request_counts.succeeded < 5:
        time.sleep(0.02)
    cancelled = client.messages.batches.cancel(batch.id)
    assert cancelled.processing_status in ("canceling", "ended")
    assert cancelled.cancel_initiated_at is not None
    done = _wait(client, cancelled)
    counts = done.request_counts
    assert counts.succeeded >= 5
    assert counts.succeeded + counts.canceled == 1000
    kinds = [row.result.type for row in client.messages.batches.results(done.id)]
    assert (kinds.count("succeeded"), kinds.count("canceled")) == (counts.succeeded, counts.canceled)


def test_lists_and_deletes(client: Anthropic) -> None:
    made = [_wait(client, client.messages.batches.create(requests=[_request(0)])).id for _ in range(3)]
    page = client.messages.batches.list(limit=2)
    assert [batch.id for batch in page.data] == made[:0:-1]
    assert page.has_more
    newer = client.messages.batches.list(before_id=made[0], limit=1)
    assert ([batch.id for batch in newer.data], newer.has_more) == ([made[1]], True)
    assert [batch.id for batch in newer][:2] == made[1:]
    newest = client.messages.batches.list(before_id=made[2])
    assert (newest.data, newest.has_more, newest.first_id, newest.last_id) == ([], False, None, None)
    with pytest.raises(anthropic.BadRequestError, match="together"):
        client.messages.batches.list(before_id=made[0], after_id=made[1])
    with pytest.raises(anthropic.NotFoundError):
        client.messages.batches.list(before_id="msgbatch_nothing")
    assert client.messages.batches.delete(made[0]).type == "message_batch_deleted"
    with pytest.raises(anthropic.NotFoundError):
        client.messages.batches.retrieve(made[0])


def test_what_cannot_be_a_batch_is_refused(client: Anthropic) -> None:
    with pytest.raises(anthropic.BadRequestError, match="used before"):
        client.messages.batches.create(requests=[_request(0), _request(0)])
    with pytest.raises(anthropic.BadRequestError):
        client.messages.batches.create(requests=[])
    with pytest.raises(anthropic.NotFoundError):
        client.messages.batches.retrieve("msgbatch_nothing")


def test_requests_for_models_that_are_not_here_end_in_errors(client: Anthropic) -> None:
    done = _wait(client, client.messages.batches.create(requests=[_request(0, model="nothing")]))
    assert done.request_counts.errored == 1
