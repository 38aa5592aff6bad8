"""Reads an input file line by line and says what is wrong with it. Memory grows by 24 bytes a line.

Lines that begin alike get neighbouring ranks, so that the prefix cache pays: within each window of lines, those with
the same system prompt come together, in order of the first of each.
"""

from array import array
from collections.abc import Callable, Iterator
from typing import BinaryIO

import msgspec
import numpy as np
from msgspec import UNSET, Raw, Struct, UnsetType

from speciate.batch.records import BatchError, NewLine
from speciate.batch.sql_store import RANK_WINDOW

MAX_ERRORS = 100
"""More are counted, not listed."""
MAX_ID_CHARS = 512
UNLIMITED_TOKENS = 512
"""Assumed in estimates of an answer that names no limit."""
BOMS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")


class FileRules(Struct, frozen=True):
    """What a file of one batch may hold."""

    endpoint: str
    max_lines: int
    max_line_bytes: int
    serves: Callable[[str], bool]
    """Whether a model of that name is here."""
    judges_bodies: bool = True
    """Whether a body that cannot run, or asks for another model than the first, spoils the file. Anthropic's dialect
    answers such a line alone."""


class _Body(Struct):
    """What of a request validation looks at; the rest is the endpoint's to judge when the line runs."""

    model: str | UnsetType = UNSET
    stream: bool | None = None
    background: bool | None = None
    messages: list[Raw] | UnsetType = UNSET
    system: Raw | UnsetType = UNSET
    instructions: Raw | UnsetType = UNSET


class _Line(Struct):
    custom_id: str | UnsetType = UNSET
    method: str | UnsetType = UNSET
    url: str | UnsetType = UNSET
    body: _Body | UnsetType = UNSET


class BatchLine(Struct, frozen=True):
    """A line that passed, as the worker reads it."""

    custom_id: str
    url: str
    body: Raw


_LINE = msgspec.json.Decoder(_Line)
_BATCH_LINE = msgspec.json.Decoder(BatchLine)


class PeekedBody(Struct):
    """What an estimate needs of a request, whatever its dialect calls it."""

    model: str = ""
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    max_output_tokens: int | None = None

    @property
    def longest(self) -> int:
        given = (self.max_tokens, self.max_completion_tokens, self.max_output_tokens)
        return next((limit for limit in given if limit is not None), UNLIMITED_TOKENS)


class _PeekedLine(Struct):
    body: PeekedBody


def peek_body(data: bytes) -> PeekedBody | None:
    """None for a line that is no request; it is not judged here."""
    try:
        return msgspec.json.decode(data, type=_PeekedLine).body
    except (msgspec.DecodeError, RecursionError):
        return None


def read_line(data: bytes) -> BatchLine:
    """A line that was found good before."""
    return _BATCH_LINE.decode(data)


class InputFile:
    """One pass over a file: `chunks` gives the lines, and afterwards `errors` says whether they may be used."""

    def __init__(self, file: BinaryIO, rules: FileRules) -> None:
        self._file = file
        self._rules = rules
        self._ids = array("q")
        self._starts = array("q")
        self._numbers = array("q")
        self._start = 0
        self._number = 0
        self._blank: int | None = None
        self.model: str | None = None
        self.errors: list[BatchError] = []
        self.num_errors = 0

    @property
    def num_lines(self) -> int:
        return len(self._ids)

    def chunks(self) -> Iterator[list[NewLine]]:
        """Lines of a rank window each; blocks while it reads. Once something is wrong they are empty."""
        while chunk := self._chunk():
            yield [] if self.errors else _ranked(chunk)
        self._check_end()

    def _chunk(self) -> list[tuple[NewLine, int]]:
        """Up to a window of lines, each with the hash of how its prompt begins."""
        chunk: list[tuple[NewLine, int]] = []
        while len(chunk) < RANK_WINDOW and (raw := self._file.readline(self._rules.max_line_bytes + 2)):
            start, data = self._start, raw.rstrip(b"\r\n")
            if not self._advance(raw) or self._is_blank(data):
                continue
            prefix = self._check(data, start)
            index = len(self._ids) - 1
            chunk.append((NewLine(index, index, start, len(data)), prefix))
        return chunk

    def _advance(self, raw: bytes) -> bool:
        """To the next line; False for one that is too long, which is skipped to its end."""
        self._number += 1
        self._start += len(raw)
        if len(raw) <= self._rules.max_line_bytes or raw.endswith(b"\n"):
            return True
        self._fail("line_too_long", f"The line has more than {self._rules.max_line_bytes} bytes.")
        while (more := self._file.readline(1 << 20)) and not more.endswith(b"\n"):
            self._start += len(more)
        self._start += len(more)
        return False

    def _is_blank(self, data: bytes) -> bool:
        """Blank lines may only stand at the end: one that is followed by another line is an error."""
        if not data.strip():
            self._blank = self._blank or self._number
            return True
        if self._blank is not None:
            self._fail("invalid_json_line", "The line is blank; only lines at the end may be.", self._blank)
            self._blank = None
        return False

    def _check(self, data: bytes, start: int) -> int:
        """Notes what is wrong with a line; gives the hash of the beginning of its prompt."""
        self._starts.append(start)
        self._numbers.append(self._number)
        self._ids.append(self._number - (1 << 62))
        if len(self._ids) == self._rules.max_lines + 1:
            self._fail("request_limit_exceeded", f"The file has more than {self._rules.max_lines} lines.")
        line = self._decode(data)
        if line is None or not self._check_envelope(line) or line.body is UNSET:
            return 0
        self._ids[-1] = hash(line.custom_id)
        if self._rules.judges_bodies:
            self._check_body(line.body)
        elif self.model is None and line.body.model is not UNSET:
            self.model = line.body.model
        return _prefix_hash(line.body)

    def _decode(self, data: bytes) -> _Line | None:
        try:
            return _LINE.decode(data.decode())
        except msgspec.ValidationError as error:
            self._fail("invalid_type", f"The line cannot be used: {error}.")
        except (UnicodeDecodeError, msgspec.DecodeError, RecursionError) as error:
            self._fail_encoding(data, error)
        return None

    def _fail_encoding(self, data: bytes, error: Exception) -> None:
        if self._number == 1 and data.startswith(BOMS):
            self._fail("invalid_encoding", "The file begins with a byte order mark; save it as UTF-8 without one.")
        elif isinstance(error, UnicodeDecodeError):
            place = f"byte {error.start} is 0x{data[error.start]:02x}"
            self._fail("invalid_encoding", f"The line is not UTF-8: {place}.")
        else:
            self._fail("invalid_json_line", f"The line is not a JSON object: {error}.")

    def _check_envelope(self, line: _Line) -> bool:
        for name in ("custom_id", "method", "url", "body"):
            if getattr(line, name) in (UNSET, ""):
                self._fail("missing_required_parameter", f"The line has no {name}.", param=name)
                return False
        if line.method != "POST":
            self._fail("invalid_method", f"method is {line.method!r}; only POST can be used.", param="method")
        if line.url != self._rules.endpoint:
            message = f"url is {line.url!r}, the batch's endpoint is {self._rules.endpoint!r}."
            self._fail("mismatched_endpoint", message, param="url")
        if len(str(line.custom_id)) > MAX_ID_CHARS:
            self._fail("invalid_custom_id", f"custom_id has more than {MAX_ID_CHARS} characters.", param="custom_id")
        return True

    def _check_body(self, body: _Body) -> None:
        if body.model is UNSET or not body.model:
            self._fail("missing_required_parameter", "The body has no model.", param="body.model")
        elif self.model is None:
            self.model = str(body.model)
            if not self._rules.serves(self.model):
                self._fail("model_not_found", f"There is no model {self.model!r} here.", param="body.model")
        elif body.model != self.model:
            message = f"model is {body.model!r}, earlier lines ask for {self.model!r}; a batch has one model."
            self._fail("mismatched_model", message, param="body.model")
        for name in ("stream", "background"):
            if getattr(body, name):
                self._fail("invalid_value", f"{name} cannot be used in a batch.", param=f"body.{name}")

    def _check_end(self) -> None:
        if not self._ids and not self.errors:
            self._fail("empty_file", "The file has no lines.", 0)
        for number, first in self._repeats():
            message = f"custom_id was used before, on line {first}."
            self._fail("duplicate_custom_id", message, number, param="custom_id")

    def _repeats(self) -> Iterator[tuple[int, int]]:
        """(line, the first line with the same id). Lines whose ids have equal hashes are read again."""
        ids = np.frombuffer(self._ids, dtype=np.int64)
        order = np.argsort(ids, kind="stable")
        same = np.flatnonzero(ids[order][1:] == ids[order][:-1])
        firsts: dict[str, int] = {}
        for index in order[np.unique(np.concatenate([same, same + 1]))].tolist():
            first = firsts.setdefault(self._custom_id(index), index)
            if first != index:
                yield self._numbers[index], self._numbers[first]
            if self.num_errors >= MAX_ERRORS:
                return

    def _custom_id(self, index: int) -> str:
        self._file.seek(self._starts[index])
        try:
            line = _LINE.decode(self._file.readline())
        except msgspec.DecodeError:
            return f"unreadable line {index}"
        return str(line.custom_id)

    def _fail(self, code: str, message: str, line: int | None = None, *, param: str | None = None) -> None:
        self.num_errors += 1
        if len(self.errors) < MAX_ERRORS:
            number = self._number if line is None else line
            self.errors.append(BatchError(code, message, number or None, param))


def _ranked(chunk: list[tuple[NewLine, int]]) -> list[NewLine]:
    groups: dict[int, list[NewLine]] = {}
    for line, prefix in chunk:
        groups.setdefault(prefix, []).append(line)
    if len(groups) == 1:
        return [line for line, _ in chunk]
    base = chunk[0][0].index
    in_order = (line for group in groups.values() for line in group)
    return [NewLine(line.index, base + place, line.start, line.num_bytes) for place, line in enumerate(in_order)]


def _prefix_hash(body: _Body) -> int:
    """Of the system prompt, however the dialect writes it; 0 where there is none."""
    if body.system is not UNSET:
        return hash(bytes(body.system))
    if body.instructions is not UNSET:
        return hash(bytes(body.instructions))
    if body.messages is not UNSET and body.messages:
        first = bytes(body.messages[0])
        if b'"system"' in first or b'"developer"' in first:
            return hash(first)
    return 0
