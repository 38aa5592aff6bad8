"""Reads a multipart upload as it arrives: the file goes to disk piece by piece, its limits hold from the first byte."""

import asyncio
from collections.abc import Callable
from typing import Any

from msgspec import Struct
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from speciate.api.call import Call
from speciate.core.errors import BodyTooLarge, CallerError, InvalidRequest

MAX_FIELD_BYTES = 4096
MAX_PARTS = 16
FLUSH_BYTES = 1 << 20
"""Written to disk at once."""
FRAMING_BYTES = 65_536
"""What boundaries, headers and fields may add to the file."""


class UploadForm(Struct, frozen=True):
    """What came beside the bytes of the file."""

    fields: dict[str, str]
    filename: str


async def read_upload(call: Call, write: Callable[[bytes], None], max_bytes: int) -> UploadForm:
    """Gives the file's bytes to `write`, on a thread. Raises InvalidRequest, BodyTooLarge, what `write` does."""
    _check_declared(call, max_bytes)
    reader = _FormReader(_boundary(call), max_bytes)
    while True:
        message = await _receive(call)
        reader.feed(message.get("body", b""))
        is_last = not message.get("more_body", False)
        if reader.num_buffered >= FLUSH_BYTES or is_last:
            await asyncio.to_thread(write, reader.take())
        if is_last:
            return reader.form()


class _FormReader:
    """Pushes bytes through the parser; collects fields, buffers the file."""

    def __init__(self, boundary: bytes, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._num_bytes = 0
        self._num_parts = 0
        self._fields: dict[str, bytes] = {}
        self._filename: str | None = None
        self._name = ""
        self._is_file = False
        self._header_name = b""
        self._header_value = b""
        self._headers: dict[bytes, bytes] = {}
        self._chunks: list[bytes] = []
        self._is_complete = False
        self.num_buffered = 0
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin_part,
                "on_header_field": self._header_field,
                "on_header_value": self._add_header_value,
                "on_header_end": self._end_header,
                "on_headers_finished": self._end_headers,
                "on_part_data": self._part_data,
                "on_end": self._end,
            },
        )

    def feed(self, data: bytes) -> None:
        try:
            self._parser.write(data)
        except MultipartParseError as error:
            raise InvalidRequest(f"The body is no multipart form: {error}.") from error

    def take(self) -> bytes:
        chunks, self._chunks, self.num_buffered = self._chunks, [], 0
        return b"".join(chunks)

    def form(self) -> UploadForm:
        if not self._is_complete:
            raise InvalidRequest("The multipart form ends before its last boundary; it was cut off.")
        if self._filename is None:
            raise InvalidRequest("The form has no file.", param="file")
        return UploadForm(
            {name: value.decode("utf-8", "replace") for name, value in self._fields.items()}, self._filename
        )

    def _begin_part(self) -> None:
        self._num_parts += 1
        self._headers = {}
        if self._num_parts > MAX_PARTS:
            raise InvalidRequest(f"The form has more than {MAX_PARTS} parts.")

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]
        self._check_field(self._header_name)

    def _add_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]
        self._check_field(self._header_value)

    def _end_header(self) -> None:
        self._headers[self._header_name.lower()] = self._header_value
        self._header_name = self._header_value = b""

    def _end_headers(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        self._is_file = self._name == "file"
        if not self._is_file:
            self._fields[self._name] = b""
        elif self._filename is not None:
            raise InvalidRequest("The form has two files; send one at a time.", param="file")
        else:
            self._filename = options.get(b"filename", b"").decode("utf-8", "replace")

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if not self._is_file:
            self._fields[self._name] += data[start:end]
            self._check_field(self._fields[self._name])
            return
        self._num_bytes += end - start
        if self._num_bytes > self._max_bytes:
            raise _too_large(self._max_bytes)
        self._chunks.append(data[start:end])
        self.num_buffered += end - start

    def _end(self) -> None:
        self._is_complete = True

    def _check_field(self, value: bytes) -> None:
        if len(value) > MAX_FIELD_BYTES:
            raise InvalidRequest(f"A field or header of the form has more than {MAX_FIELD_BYTES} bytes.")


def _check_declared(call: Call, max_bytes: int) -> None:
    declared = call.headers.get(b"content-length", b"")
    if declared.isdigit() and int(declared) > max_bytes + FRAMING_BYTES:
        raise _too_large(max_bytes)


def _boundary(call: Call) -> bytes:
    kind, options = parse_options_header(call.headers.get(b"content-type", b""))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise InvalidRequest("Send the file as multipart/form-data with a boundary.", param="file")
    return options[b"boundary"]


async def _receive(call: Call) -> dict[str, Any]:
    if call.receive is None:
        raise InvalidRequest("This route reads its body itself.")
    message: dict[str, Any] = await call.receive()
    if message["type"] == "http.disconnect":
        raise CallerError("The client left before its file was read.")
    return message


def _too_large(max_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"The file has more than {max_bytes} bytes, which is what may be stored here.", param="file")
