"""Events of a Messages stream: blocks open and close in order, one at a time."""

import msgspec
from msgspec import Struct

from speciate.api.pieces import CallArguments, CallStart, Piece, PieceReader, ReasoningPiece, TextPiece
from speciate.core.output import Delta, Finish, FinishReason
from speciate.core.segment import Tier

_TIER_WORDS = {Tier.REALTIME: "priority", Tier.INTERACTIVE: "standard", Tier.BATCH: "batch"}


class MessagesUsage(Struct, frozen=True):
    """`input_tokens` are those not read from the prefix cache; the two together are the prompt."""

    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int
    service_tier: str
    cache_creation_input_tokens: int = 0


class _StartedMessage(Struct, frozen=True):
    id: str
    model: str
    usage: MessagesUsage
    content: tuple[()] = ()
    stop_reason: None = None
    stop_sequence: None = None
    type: str = "message"
    role: str = "assistant"


class _MessageEnd(Struct, frozen=True):
    stop_reason: str
    stop_sequence: str | None


_encode = msgspec.json.Encoder().encode


def ping() -> bytes:
    return b'event: ping\ndata: {"type":"ping"}\n\n'


def usage_of_message(finish: Finish) -> MessagesUsage:
    usage = finish.usage
    return MessagesUsage(
        input_tokens=usage.prompt_tokens - usage.cached_tokens,
        output_tokens=usage.completion_tokens,
        cache_read_input_tokens=usage.cached_tokens,
        service_tier=_TIER_WORDS[finish.tier],
    )


def stop_reason(finish: Finish, has_calls: bool, max_tokens: int) -> str:
    if finish.reason is FinishReason.LENGTH:
        is_full = finish.usage.completion_tokens < max_tokens
        return "model_context_window_exceeded" if is_full else "max_tokens"
    if has_calls:
        return "tool_use"
    return "end_turn" if finish.stop_sequence is None else "stop_sequence"


class MessageEvents:
    """Writes one answer's events. A piece of another kind closes the open block and opens the next."""

    def __init__(self, reader: PieceReader) -> None:
        self._reader = reader
        self._index = -1
        self._open: object = None
        """What the open block holds: a piece class, or the index of a tool call."""
        self._has_calls = False

    def start(self, answer_id: str, model: str, prompt_tokens: int, tier: Tier) -> bytes:
        usage = MessagesUsage(prompt_tokens, 0, 0, _TIER_WORDS[tier])
        message = _encode(_StartedMessage(answer_id, model, usage))
        return b'event: message_start\ndata: {"type":"message_start","message":%b}\n\n' % message + ping()

    def delta(self, delta: Delta) -> bytes:
        return b"".join([self._piece(piece) for piece in self._reader.feed(delta.text)])

    def finish(self, finish: Finish, max_tokens: int) -> bytes:
        rest = b"".join([self._piece(piece) for piece in self._reader.finish()])
        if self._index < 0:
            rest += self._switch(TextPiece, b'{"type":"text","text":""}')
        end = _MessageEnd(stop_reason(finish, self._has_calls, max_tokens), finish.stop_sequence)
        return (
            rest
            + self._close()
            + b'event: message_delta\ndata: {"type":"message_delta","delta":%b,"usage":%b}\n\n'
            % (_encode(end), _encode(usage_of_message(finish)))
            + b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
        )

    def _piece(self, piece: Piece) -> bytes:
        match piece:
            case TextPiece(text):
                opened = self._switch(TextPiece, b'{"type":"text","text":""}')
                return opened + self._delta(b'{"type":"text_delta","text":%b}' % _encode(text))
            case ReasoningPiece(text):
                opened = self._switch(ReasoningPiece, b'{"type":"thinking","thinking":"","signature":""}')
                return opened + self._delta(b'{"type":"thinking_delta","thinking":%b}' % _encode(text))
            case CallStart(index, call_id, name):
                self._has_calls = True
                block = b'{"type":"tool_use","id":%b,"name":%b,"input":{}}' % (_encode(call_id), _encode(name))
                return self._switch(index, block)
            case CallArguments(_, text):
                return self._delta(b'{"type":"input_json_delta","partial_json":%b}' % _encode(text))

    def _switch(self, kind: object, block: bytes) -> bytes:
        if self._open == kind:
            return b""
        closed = self._close()
        self._open = kind
        self._index += 1
        return (
            closed
            + b'event: content_block_start\ndata: {"type":"content_block_start","index":%d,"content_block":%b}\n\n'
            % (self._index, block)
        )

    def _delta(self, delta: bytes) -> bytes:
        return b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":%b}\n\n' % (
            self._index,
            delta,
        )

    def _close(self) -> bytes:
        if self._open is None:
            return b""
        self._open = None
        return b'event: content_block_stop\ndata: {"type":"content_block_stop","index":%d}\n\n' % self._index
