"""Takes tool calls out of a model's text while it is being written. Knows the formats' marks, nothing of any API.

Whitespace beside a call belongs to the format and is dropped. What looked like a call and is none comes back as text.
"""

from enum import Enum

from msgspec import Struct

from speciate.models.call_reader import CallReader
from speciate.models.tool_formats import ToolFormat


class ToolText(Struct, frozen=True, gc=False):
    """Text that is no part of a call."""

    text: str


class CallStarted(Struct, frozen=True, gc=False):
    """A call's function is known; calls of one answer are numbered from 0."""

    index: int
    name: str


class CallArguments(Struct, frozen=True, gc=False):
    """More of the arguments' JSON text, as the model wrote it."""

    index: int
    text: str


class CallEnded(Struct, frozen=True, gc=False):
    """Nothing more comes for this call."""

    index: int


ToolEvent = ToolText | CallStarted | CallArguments | CallEnded


class ToolCallStream:
    """One answer. Arguments flow as they are written; the text around them waits only while it may be a mark."""

    def __init__(self, tool_format: ToolFormat, tool_names: frozenset[str]) -> None:
        """`tool_names` decide whether a bare JSON object at the start is a call, where the format has no marks."""
        self._format = tool_format
        self._names = tool_names
        self._place = _Place.START
        self._pending = ""
        self._raw = ""
        """The call being read, from its mark on: given back as text if it is none."""
        self._call: CallReader | None = None
        self._is_marked = False
        """Whether the call being read began with the format's mark."""
        self._num_calls = 0
        self._has_text = False
        self._events: list[ToolEvent] = []

    def push(self, text: str) -> tuple[ToolEvent, ...]:
        self._pending += text
        while self._pending and self._advance():
            pass
        return self._take_events()

    def flush(self) -> tuple[ToolEvent, ...]:
        """What was held back: a call cut off before its arguments is text; one cut off later just ends."""
        if self._place is _Place.CALL:
            self._abandon("")
        held, self._pending = self._pending, ""
        is_leftover = self._place in (_Place.AFTER_CALL, _Place.BETWEEN) and not held.strip(" \n\t}],;")
        if held and not is_leftover:
            self._events.append(ToolText(held))
        return self._take_events()

    def _take_events(self) -> tuple[ToolEvent, ...]:
        events, self._events = self._events, []
        return tuple(events)

    def _advance(self) -> bool:
        """Move on in `_pending`; False when more text is needed."""
        match self._place:
            case _Place.START:
                return self._read_start()
            case _Place.TEXT:
                return self._read_text()
            case _Place.CALL:
                return self._read_call()
            case _Place.AFTER_CALL:
                return self._read_after_call()
            case _Place.BETWEEN:
                return self._read_between()

    def _read_start(self) -> bool:
        """Formats without marks: an object at the very start may be a call."""
        if not self._format.bare_start:
            self._place = _Place.TEXT
            return True
        body = self._pending.lstrip()
        if self._format.open.startswith(body):
            return False
        if body.startswith(self._format.bare_start) and not body.startswith(self._format.open):
            self._begin_call(len(self._pending) - len(body), 0)
        else:
            self._place = _Place.TEXT
        return True

    def _read_text(self) -> bool:
        """Show text up to an opening mark, or up to what may become one."""
        mark = self._format.open
        at = self._pending.find(mark)
        if at >= 0:
            self._show(self._pending[:at].rstrip())
            self._begin_call(at, len(mark))
            return True
        safe = len(self._pending) - _overlap(self._pending, mark)
        safe = len(self._pending[:safe].rstrip())
        self._show(self._pending[:safe])
        self._pending = self._pending[safe:]
        return False

    def _begin_call(self, at: int, mark_size: int) -> None:
        """`_pending[at:]` begins with the mark, or with the call itself where `mark_size` is 0."""
        self._is_marked = mark_size > 0
        self._raw = self._pending[at : at + mark_size]
        self._pending = self._pending[at + mark_size :]
        self._place = _Place.CALL
        self._call = CallReader(self._format.arguments_keys, self._format.is_list)

    def _read_call(self) -> bool:
        call = self._call
        assert call is not None
        taken = call.read(self._pending)
        self._raw += self._pending[:taken]
        self._pending = self._pending[taken:]
        if call.is_broken or call.is_done:
            self._end_call(call)
            return True
        self._emit(call)
        return False

    def _end_call(self, call: CallReader) -> None:
        if call.is_broken or not self._is_call(call):
            self._abandon(self._pending)
            return
        self._emit(call)
        self._events.append(CallEnded(self._num_calls))
        self._num_calls += 1
        self._call = None
        self._place = _Place.AFTER_CALL

    def _emit(self, call: CallReader) -> None:
        """Events for what is newly known of the call; none before its name and the begin of its arguments."""
        if not call.is_started and self._is_call(call):
            call.is_started = True
            self._events.append(CallStarted(self._num_calls, call.name or ""))
        if call.is_started:
            fragment = call.take_arguments()
            if fragment:
                self._events.append(CallArguments(self._num_calls, fragment))

    def _is_call(self, call: CallReader) -> bool:
        if call.is_started:
            return True
        if not self._is_marked and call.name not in self._names:
            return False
        return call.name is not None and (call.has_arguments or (call.is_done and self._is_marked))

    def _abandon(self, rest: str) -> None:
        """No call after all: its text comes back, unless parts of it were already shown as one."""
        call = self._call
        self._call = None
        if call is not None and call.is_started:
            self._emit_remaining(call)
            self._place, self._pending = _Place.AFTER_CALL, rest
            return
        self._show(self._raw)
        self._raw = ""
        self._place, self._pending = _Place.TEXT, rest

    def _emit_remaining(self, call: CallReader) -> None:
        self._emit(call)
        self._events.append(CallEnded(self._num_calls))
        self._num_calls += 1

    def _read_after_call(self) -> bool:
        """Skip to the end of the call's wrapping. Small models write a bracket too many here; it is dropped."""
        if self._format.is_list:
            return self._read_list_separator()
        if not self._format.close:
            self._place = _Place.BETWEEN
            return True
        at = self._pending.find(self._format.close)
        again = self._pending.find(self._format.open)
        if at >= 0 and (again < 0 or at < again):
            self._pending = self._pending[at + len(self._format.close) :]
            self._place = _Place.BETWEEN
            return True
        if again >= 0:
            self._begin_call(again, len(self._format.open))
            return True
        return False

    def _read_list_separator(self) -> bool:
        body = self._pending.lstrip(" \n\t}")
        if not body:
            return False
        if body[0] == ",":
            self._pending = body[1:]
            self._raw = ""
            self._place = _Place.CALL
            self._call = CallReader(self._format.arguments_keys, is_list=False)
            return True
        self._pending = body[1:] if body[0] == "]" else body
        self._place = _Place.BETWEEN
        return True

    def _read_between(self) -> bool:
        """After a call: whitespace and separators, then another call or text."""
        body = self._pending.lstrip(" \n\t" + self._format.separators)
        if not body:
            return False
        if self._format.bare_start and body.startswith(self._format.bare_start):
            self._begin_call(len(self._pending) - len(body), 0)
            return True
        if not body.startswith(self._format.open) and self._format.open.startswith(body):
            return False
        if body.startswith(self._format.open):
            self._pending = body
        elif not self._has_text:
            self._pending = self._pending.lstrip()
        self._place = _Place.TEXT
        return True

    def _show(self, text: str) -> None:
        if text:
            self._has_text = True
            self._events.append(ToolText(text))


class _Place(Enum):
    """Where in the answer the stream is."""

    START = "start"
    TEXT = "text"
    CALL = "call"
    AFTER_CALL = "after_call"
    BETWEEN = "between"


def _overlap(text: str, mark: str) -> int:
    """Length of the longest end of the text that begins the mark."""
    for size in range(min(len(mark) - 1, len(text)), 0, -1):
        if mark.startswith(text[-size:]):
            return size
    return 0
