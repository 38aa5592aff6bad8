"""Errors as each dialect writes them. Knows statuses and codes from the error classes, never from their text."""

import math

import msgspec
from msgspec import Struct

from speciate.api.rate_limits import rate_limit_headers
from speciate.core.errors import DeadlineExceeded, Overloaded, ShuttingDown, SpeciateError

MAX_RETRY_AFTER_S = 120
"""The official clients ignore a Retry-After that is longer."""

Headers = list[tuple[bytes, bytes]]


class OpenAIErrorDetail(Struct, frozen=True):
    """All four keys are always there: clients read them without asking."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class OpenAIError(Struct, frozen=True):
    error: OpenAIErrorDetail


class AnthropicErrorDetail(Struct, frozen=True):
    type: str
    message: str


class AnthropicError(Struct, frozen=True):
    error: AnthropicErrorDetail
    request_id: str | None
    type: str = "error"


_OPENAI_TYPES = {401: "authentication_error", 429: "rate_limit_error"}
_ANTHROPIC_TYPES = {
    401: "authentication_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
_encode = msgspec.json.Encoder().encode


def openai_detail(error: SpeciateError) -> OpenAIErrorDetail:
    return OpenAIErrorDetail(error.message, openai_type(error.status), error.param, error.code)


def openai_type(status: int) -> str:
    return _OPENAI_TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")


def openai_error(error: SpeciateError, request_id: str) -> bytes:
    """The OpenAI body; the request id travels in a header there."""
    return _encode(OpenAIError(openai_detail(error)))


def anthropic_error(error: SpeciateError, request_id: str) -> bytes:
    kind = _ANTHROPIC_TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "api_error")
    return _encode(AnthropicError(AnthropicErrorDetail(kind, error.message), request_id))


def error_headers(error: SpeciateError) -> Headers:
    """When to come again, for those who may; and whether to try at all."""
    if isinstance(error, Overloaded):
        limits = [] if error.room is None else rate_limit_headers(error.room)
        return [*_retry_headers(error.retry_after_s), *limits]
    if isinstance(error, ShuttingDown):
        return _retry_headers(1.0)
    if isinstance(error, DeadlineExceeded):
        return [(b"x-should-retry", b"false")]
    return []


def _retry_headers(retry_after_s: float) -> Headers:
    bounded_s = min(max(retry_after_s, 0.001), float(MAX_RETRY_AFTER_S))
    return [
        (b"retry-after", b"%d" % math.ceil(bounded_s)),
        (b"retry-after-ms", b"%d" % math.ceil(bounded_s * 1000)),
    ]
