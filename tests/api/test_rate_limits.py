"""`x-ratelimit-*` say what the tier still takes: they move with the queue, on every kind of answer."""

import httpx2
import pytest

from speciate.admission.admit import AdmissionOptions, QueueLimits
from speciate.api.rate_limits import RATE_LIMIT_NAMES, duration

PROMPT = [{"role": "user", "content": "hi"}]
ANSWERS = [
    ("/v1/chat/completions", {"messages": PROMPT}),
    ("/v1/chat/completions", {"messages": PROMPT, "stream": True}),
    ("/v1/completions", {"prompt": "hi"}),
    ("/v1/completions", {"prompt": "hi", "stream": True}),
    ("/v1/responses", {"input": "hi"}),
    ("/v1/responses", {"input": "hi", "stream": True}),
    ("/v1/messages", {"messages": PROMPT, "max_tokens": 5}),
    ("/v1/messages", {"messages": PROMPT, "max_tokens": 5, "stream": True}),
]


@pytest.mark.parametrize(("path", "body"), ANSWERS)
def test_every_answer_says_what_is_left(server, path, body):
    with httpx2.Client(base_url=server.base_url, timeout=30) as http:
        answer = http.post(path, json={"model": "fake", **body})
        assert answer.status_code == 200, answer.text
    assert set(RATE_LIMIT_NAMES) <= set(answer.headers)
    assert int(answer.headers["x-ratelimit-limit-requests"]) == 100_000
    assert int(answer.headers["x-ratelimit-remaining-requests"]) <= 99_999


def test_every_choice_takes_from_what_is_left(server):
    with httpx2.Client(base_url=server.base_url, timeout=30) as http:
        answer = http.post("/v1/chat/completions", json={"model": "fake", "messages": PROMPT, "n": 16})
    limit, left = (int(answer.headers[f"x-ratelimit-{fact}-requests"]) for fact in ("limit", "remaining"))
    assert left <= limit - 16


QUEUE = QueueLimits(max_waiting=4, max_tokens=100_000)


@pytest.mark.parametrize(("n", "status"), [(4, 200), (5, 429)])
@pytest.mark.parametrize(
    ("path", "body"),
    [("/v1/chat/completions", {"messages": PROMPT}), ("/v1/completions", {"prompt": "hi"})],
)
def test_choices_are_admitted_together(start_server, path, body, n, status):
    """The last of them must find room too, though none was there when the first was looked at."""
    server = start_server(limits=AdmissionOptions(realtime=QUEUE, interactive=QUEUE, batch=QUEUE))
    with httpx2.Client(base_url=server.base_url, timeout=30) as http:
        answer = http.post(path, json={"model": "fake", "n": n, **body})
    assert answer.status_code == status, answer.text


def test_prompts_are_admitted_together(start_server):
    server = start_server(limits=AdmissionOptions(realtime=QUEUE, interactive=QUEUE, batch=QUEUE))
    with httpx2.Client(base_url=server.base_url, timeout=30) as http:
        refused = http.post("/v1/completions", json={"model": "fake", "prompt": ["a", "b", "c"], "n": 2})
        answered = http.post("/v1/completions", json={"model": "fake", "prompt": ["a", "b"], "n": 2})
    assert (refused.status_code, answered.status_code) == (429, 200)
    assert "at most 4 may" in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(0.0, b"0ms"), (0.0081, b"8ms"), (1.0, b"1s"), (1.25, b"1.25s"), (59.9996, b"1m0s"), (120.0, b"2m0s")],
)
def test_durations_are_written_as_openai_does(seconds, written):
    assert duration(seconds) == written
