"""Pages of allowed origins may call from a browser, and read what the server says in headers; others may not."""

import httpx2
import pytest

from speciate.api.options import ApiOptions

ORIGIN = "https://app.example"


@pytest.fixture
def http(start_server):
    server = start_server(ApiOptions(cors_origins=(ORIGIN,)))
    with httpx2.Client(base_url=server.base_url, timeout=30) as client:
        yield client


def test_a_preflight_and_a_call_of_an_allowed_page(http):
    asked = {
        "origin": ORIGIN,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization",
    }
    preflight = http.options("/v1/chat/completions", headers=asked)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == ORIGIN
    body = {"model": "fake", "messages": [{"role": "user", "content": "hi"}]}
    answer = http.post("/v1/chat/completions", json=body, headers={"origin": ORIGIN})
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    exposed = {name.strip() for name in answer.headers["access-control-expose-headers"].split(",")}
    assert {"x-request-id", "retry-after", "x-ratelimit-remaining-requests"} <= exposed
    assert answer.json()["choices"]


def test_other_origins_get_no_leave(http):
    answer = http.get("/v1/models", headers={"origin": "https://elsewhere.example"})
    assert "access-control-allow-origin" not in answer.headers


def test_without_origins_nothing_is_said(server):
    with httpx2.Client(base_url=server.base_url, timeout=30) as client:
        answer = client.get("/v1/models", headers={"origin": ORIGIN})
        assert client.options("/v1/models", headers={"origin": ORIGIN}).status_code == 405
        assert client.head("/v1/models").status_code == 200
    assert "access-control-allow-origin" not in answer.headers
