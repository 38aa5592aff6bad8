"""Chunks of a chat stream from byte templates: per chunk only the new text is encoded.

data: {"id":..,"created":..,"model":..,"choices":[{"index":0,"delta":  | {"content":"new text"} | ,"logprobs":...
      `--------------------- once a request ------------------------'   `----- each chunk -----'
"""

import msgspec
from msgspec import Struct

from speciate.api.fingerprint import FINGERPRINT
from speciate.api.logprobs import chat_logprobs
from speciate.api.pieces import CallArguments, CallStart, PieceFolder, PieceReader, ReasoningPiece, TextPiece
from speciate.api.tiers import WORD_OF_TIER
from speciate.api.turn import Turn
from speciate.api.usage import CompletionUsage
from speciate.core.output import Delta, Finish, SampledLogprob
from speciate.core.segment import Tier


class _Head(Struct, frozen=True):
    """The part of a chunk that is the same in all chunks of an answer."""

    id: str
    created: int
    model: str
    service_tier: str
    system_fingerprint: str = FINGERPRINT
    object: str = "chat.completion.chunk"


_encode = msgspec.json.Encoder().encode


class ChunkTemplate:
    """The bytes around what changes, for one answer."""

    def __init__(self, turn: Turn, *, has_usage: bool) -> None:
        self._turn = turn
        self._head = self._opening(turn.tier)
        self.end = b',"usage":null}\n\n' if has_usage else b"}\n\n"

    def choice(self, index: int) -> bytes:
        """Everything up to the delta of a choice."""
        return b'%b,"choices":[{"index":%d,"delta":' % (self._head, index)

    def final(self, index: int, tier: Tier, finish_reason: str, logprobs: bytes) -> bytes:
        """The last chunk of a choice names the tier that served it: it may have changed on the way."""
        head = self._head if tier is self._turn.tier else self._opening(tier)
        return b'%b,"choices":[{"index":%d,"delta":{},"logprobs":%b,"finish_reason":"%b"}]%b' % (
            head,
            index,
            logprobs,
            finish_reason.encode(),
            self.end,
        )

    def roles(self, num_choices: int) -> bytes:
        """The first chunk of every choice."""
        delta = b'{"role":"assistant","content":"","refusal":null},"logprobs":null,"finish_reason":null}]'
        return b"".join(self.choice(i) + delta + self.end for i in range(num_choices))

    def usage(self, usage: CompletionUsage, tier: Tier) -> bytes:
        return b'%b,"choices":[],"usage":%b}\n\n' % (self._opening(tier), _encode(usage))

    def _opening(self, tier: Tier) -> bytes:
        turn = self._turn
        head = _encode(_Head(turn.answer_id, turn.created, turn.wish.model, WORD_OF_TIER[tier]))
        return b"data: " + head[:-1]


class ChoiceWriter:
    """Turns one choice's events into chunks. Several pieces of one delta become several chunks in one frame."""

    def __init__(self, template: ChunkTemplate, index: int, reader: PieceReader, num_logprobs: int | None) -> None:
        self._template = template
        self._index = index
        self._reader = reader
        self._has_logprobs = num_logprobs is not None
        self._logprobs: list[SampledLogprob] = []
        self._folder = PieceFolder()
        self._choice = template.choice(index)
        self._tail = b',"logprobs":null,"finish_reason":null}]' + template.end

    @property
    def reasoning(self) -> str:
        return self._folder.reasoning

    def delta(self, delta: Delta) -> bytes:
        if self._has_logprobs:
            self._logprobs.extend(delta.logprobs)
        pieces = self._reader.feed(delta.text)
        if len(pieces) == 1:
            return self._chunk(pieces[0])
        return b"".join([self._chunk(piece) for piece in pieces])

    def finish(self, finish: Finish) -> bytes:
        rest = b"".join([self._chunk(piece) for piece in self._reader.finish()])
        reason = "tool_calls" if self._folder.num_calls else finish.reason.value
        return rest + self._template.final(self._index, finish.tier, reason, self._take_logprobs())

    def _chunk(self, piece: TextPiece | ReasoningPiece | CallStart | CallArguments) -> bytes:
        if isinstance(piece, TextPiece):
            delta = b'{"content":%b}' % _encode(piece.text)
        else:
            self._folder.add(piece)
            delta = _special_delta(piece)
        if not self._has_logprobs:
            return self._choice + delta + self._tail
        return b'%b%b,"logprobs":%b,"finish_reason":null}]%b' % (
            self._choice,
            delta,
            self._take_logprobs(),
            self._template.end,
        )

    def _take_logprobs(self) -> bytes:
        """Of all tokens since the last chunk: text that was held back brings its tokens along."""
        if not self._logprobs:
            return b"null"
        taken, self._logprobs = self._logprobs, []
        return _encode(chat_logprobs(taken))


def _special_delta(piece: ReasoningPiece | CallStart | CallArguments) -> bytes:
    match piece:
        case ReasoningPiece(text):
            encoded = _encode(text)
            return b'{"reasoning_content":%b,"reasoning":%b}' % (encoded, encoded)
        case CallStart(index, call_id, name):
            return b'{"tool_calls":[{"index":%d,"id":%b,"type":"function","function":{"name":%b,"arguments":""}}]}' % (
                index,
                _encode(call_id),
                _encode(name),
            )
        case CallArguments(index, text):
            return b'{"tool_calls":[{"index":%d,"function":{"arguments":%b}}]}' % (index, _encode(text))
