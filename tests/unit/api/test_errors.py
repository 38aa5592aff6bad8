"""Every error of the product has a body in each dialect, and headers that clients obey."""

import json

import pytest

from speciate.api.errors import anthropic_error, error_headers, openai_error
from speciate.core import errors
from speciate.core.errors import DeadlineExceeded, InvalidRequest, Overloaded, SpeciateError


def _leaves(kind: type[SpeciateError]) -> list[type[SpeciateError]]:
    return [kind, *(leaf for sub in kind.__subclasses__() for leaf in _leaves(sub))]


def _made(kind: type[SpeciateError]) -> SpeciateError:
    if issubclass(kind, Overloaded):
        return kind("It is full.", retry_after_s=3.2)
    return kind("It broke.", param="here")


@pytest.mark.parametrize("kind", _leaves(errors.SpeciateError))
def test_every_error_has_both_shapes(kind: type[SpeciateError]) -> None:
    error = _made(kind)
    body = json.loads(openai_error(error, "req_1"))["error"]
    assert set(body) == {"message", "type", "param", "code"}
    assert (body["message"], body["param"], body["code"]) == (error.message, error.param, kind.code)
    other = json.loads(anthropic_error(error, "req_1"))
    assert other["type"] == "error"
    assert other["request_id"] == "req_1"
    assert set(other["error"]) == {"type", "message"}


@pytest.mark.parametrize(
    ("retry_after_s", "seconds", "milliseconds"),
    [(0.0, b"1", b"1"), (0.2, b"1", b"200"), (1.2, b"2", b"1200"), (3600.0, b"120", b"120000")],
)
def test_retry_after_is_whole_seconds_within_what_clients_obey(
    retry_after_s: float, seconds: bytes, milliseconds: bytes
) -> None:
    headers = dict(error_headers(Overloaded("full", retry_after_s=retry_after_s)))
    assert headers == {b"retry-after": seconds, b"retry-after-ms": milliseconds}


def test_a_passed_deadline_is_not_retried() -> None:
    assert error_headers(DeadlineExceeded("late")) == [(b"x-should-retry", b"false")]
    assert error_headers(InvalidRequest("bad")) == []
