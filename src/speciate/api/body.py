"""Reads and decodes request bodies: bounded in bytes, strict in encoding, lenient about unknown fields."""

import re
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec

from speciate.core.errors import BodyTooLarge, CallerError, InvalidEncoding, InvalidRequest

T = TypeVar("T")
Receive = Callable[[], Awaitable[Any]]

_PATH = re.compile(r" - at (?:`(?:key|value)` in )?`\$\.?(.*)`$")


async def read_body(receive: Receive, declared_bytes: bytes | None, max_bytes: int) -> bytes:
    """The whole body. Raises BodyTooLarge as soon as the limit is known to be passed."""
    if declared_bytes is not None and declared_bytes.isdigit() and int(declared_bytes) > max_bytes:
        raise _too_large(int(declared_bytes), max_bytes)
    chunks: list[bytes] = []
    num_bytes = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise CallerError("The client left before its request was read.")
        chunk: bytes = message.get("body", b"")
        num_bytes += len(chunk)
        if num_bytes > max_bytes:
            raise _too_large(num_bytes, max_bytes)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _too_large(num_bytes: int, max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"The request body has {num_bytes} bytes or more; this server reads at most {max_bytes}.")


def decode_body(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """Raises InvalidEncoding with the position for what is not JSON, InvalidRequest with the field for the rest."""
    try:
        return decoder.decode(body.decode())
    except UnicodeDecodeError as e:
        raise InvalidEncoding(f"The body is not UTF-8: byte {e.start} is 0x{body[e.start]:02x}.") from e
    except msgspec.ValidationError as e:
        raise _invalid_field(str(e)) from e
    except msgspec.DecodeError as e:
        raise InvalidEncoding(f"The body is not JSON ({len(body)} bytes were read): {e}.") from e
    except RecursionError as e:
        raise InvalidEncoding("The JSON in the body is nested too deeply. Flatten it.") from e


def _invalid_field(text: str) -> InvalidRequest:
    """msgspec names the place at the end of its message; a place is what our caller needs as `param`."""
    found = _PATH.search(text)
    if found is None:
        return InvalidRequest(f"The body cannot be used: {text}.")
    param = found[1].removesuffix("[...]") or None
    return InvalidRequest(f"Field {param or 'body'} cannot be used: {text[: found.start()]}.", param=param)
