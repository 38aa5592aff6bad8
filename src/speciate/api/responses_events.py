"""Typed events of a response, in their strict order; every event has the next sequence number.

    created, in_progress, { output_item.added, [ content_part.added, *.delta ..., *.done, content_part.done ] or
    [ function_call_arguments.delta ..., .done ], output_item.done } ..., completed | incomplete | failed

Writing an event also writes the Response object: the two cannot differ.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from speciate.api.call import new_id
from speciate.api.logprobs import chat_logprobs
from speciate.api.pieces import CallArguments, CallStart, Piece, PieceReader, ReasoningPiece, TextPiece, ToolCall
from speciate.api.responses_object import (
    ItemStatus,
    OutputItem,
    OutputText,
    ReasoningText,
    Response,
    ResponseError,
    call_item,
    close_response,
    message_item,
    reasoning_item,
    text_part,
)
from speciate.core.errors import SpeciateError
from speciate.core.output import Delta, Finish, FinishReason, SampledLogprob

Kind = Literal["message", "reasoning", "call"]
_PREFIXES: dict[Kind, str] = {"message": "msg_", "reasoning": "rs_", "call": "fc_"}
_DELTAS: dict[Kind, str] = {
    "message": "response.output_text",
    "reasoning": "response.reasoning_text",
    "call": "response.function_call_arguments",
}
_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class _OpenItem:
    """The item that is being written; there is one at a time."""

    kind: Kind
    id: str
    output_index: int
    call: CallStart | None = None
    texts: list[str] = field(default_factory=list)
    logprobs: list[SampledLogprob] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(self.texts)

    def place(self) -> dict[str, Any]:
        place: dict[str, Any] = {"item_id": self.id, "output_index": self.output_index}
        return place if self.kind == "call" else {**place, "content_index": 0}

    def item(self, status: ItemStatus) -> OutputItem:
        text = self.text
        is_open = status == "in_progress"
        if self.call is not None:
            return call_item(self.id, status, ToolCall(self.call.call_id, self.call.name, text))
        if self.kind == "reasoning":
            return reasoning_item(self.id, status, None if is_open else text)
        return message_item(self.id, status, [] if is_open else [self.part()])

    def part(self) -> OutputText:
        return text_part(self.text, tuple(self.logprobs))

    def wire_part(self) -> OutputText | ReasoningText:
        return ReasoningText(self.text) if self.kind == "reasoning" else self.part()


class ResponseEvents:
    """Owns and writes one Response. Each method gives the events of what it is told, one frame an event."""

    def __init__(self, response: Response, reader: PieceReader, num_logprobs: int | None) -> None:
        self.response = response
        self._reader = reader
        self._has_logprobs = num_logprobs is not None
        self._logprobs: list[SampledLogprob] = []
        self._num_events = 0
        self._open: _OpenItem | None = None
        self._delta_head = b""
        self.is_opened = False
        self._thoughts: list[str] = []

    def opening(self) -> list[bytes]:
        """Once, before all others."""
        self.is_opened = True
        created = self._event("response.created", response=self.response)
        self.response.status = "in_progress"
        return [created, self._event("response.in_progress", response=self.response)]

    def delta(self, delta: Delta) -> list[bytes]:
        if self._has_logprobs:
            self._logprobs.extend(delta.logprobs)
        return [frame for piece in self._reader.feed(delta.text) for frame in self._piece(piece)]

    def finish(self, finish: Finish, count_tokens: Callable[[str], int]) -> list[bytes]:
        """The last events. An answer that said nothing at all is an empty message."""
        frames = [frame for piece in self._reader.finish() for frame in self._piece(piece)]
        if self._open is None and not self.response.output:
            frames += self._begin("message", None)
        frames += self._end("completed" if finish.reason is not FinishReason.LENGTH else "incomplete")
        close_response(self.response, finish, count_tokens("".join(self._thoughts)), int(time.time()))
        return [*frames, self._event(f"response.{self.response.status}", response=self.response)]

    def fail(self, error: SpeciateError) -> list[bytes]:
        """Tells the error and ends; what was said so far stays in the response."""
        frames = [] if self.is_opened else self.opening()
        frames += self._end("incomplete")
        self.response.status = "failed"
        self.response.error = ResponseError(error.code, error.message)
        told = self._event("error", code=error.code, message=error.message, param=error.param)
        return [*frames, told, self._event("response.failed", response=self.response)]

    def cancel(self) -> None:
        """No event exists for it: a cancelled response is seen by retrieving it."""
        self._end("incomplete")
        self.response.status = "cancelled"

    def _piece(self, piece: Piece) -> list[bytes]:
        match piece:
            case TextPiece(text):
                return self._write("message", text)
            case ReasoningPiece(text):
                self._thoughts.append(text)
                return self._write("reasoning", text)
            case CallStart():
                return [*self._end("completed"), *self._begin("call", piece)]
            case CallArguments(_, text):
                return self._write("call", text)

    def _write(self, kind: Kind, text: str) -> list[bytes]:
        frames: list[bytes] = []
        if self._open is None or self._open.kind != kind:
            frames = [*self._end("completed"), *self._begin(kind, None)]
        return [*frames, self._delta(text)]

    def _delta(self, text: str) -> bytes:
        """The hot one: only text, log-probabilities and number are encoded."""
        item = self._open
        if item is None:
            return b""
        item.texts.append(text)
        logprobs = b""
        if item.kind == "message":
            taken, self._logprobs = self._logprobs, []
            item.logprobs += taken
            logprobs = b',"logprobs":%b' % (_encode(chat_logprobs(taken).content) if taken else b"[]")
        self._num_events += 1
        return b'%b,"delta":%b%b,"sequence_number":%d}\n\n' % (
            self._delta_head,
            _encode(text),
            logprobs,
            self._num_events - 1,
        )

    def _begin(self, kind: Kind, call: CallStart | None) -> list[bytes]:
        item = _OpenItem(kind, new_id(_PREFIXES[kind]), len(self.response.output), call)
        self._open = item
        name = _DELTAS[kind] + ".delta"
        head = _encode({"type": name, **item.place()})
        self._delta_head = b"event: %b\ndata: %b" % (name.encode(), head[:-1])
        added = self._event("response.output_item.added", output_index=item.output_index, item=item.item("in_progress"))
        if kind == "call":
            return [added]
        return [added, self._event("response.content_part.added", **item.place(), part=item.wire_part())]

    def _end(self, status: ItemStatus) -> list[bytes]:
        item, self._open = self._open, None
        if item is None:
            return []
        done = item.item(status)
        self.response.output.append(done)
        frames = [self._event(_DELTAS[item.kind] + ".done", **item.place(), **_done_fields(item))]
        if item.kind != "call":
            frames.append(self._event("response.content_part.done", **item.place(), part=item.wire_part()))
        return [*frames, self._event("response.output_item.done", output_index=item.output_index, item=done)]

    def _event(self, name: str, /, **fields: Any) -> bytes:
        data = _encode({"type": name, "sequence_number": self._num_events, **fields})
        self._num_events += 1
        return b"event: %b\ndata: %b\n\n" % (name.encode(), data)


def _done_fields(item: _OpenItem) -> dict[str, Any]:
    if item.call is not None:
        return {"arguments": item.text, "name": item.call.name}
    if item.kind == "reasoning":
        return {"text": item.text}
    return {"text": item.text, "logprobs": chat_logprobs(item.logprobs).content}
