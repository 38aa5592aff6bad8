"""One sequence as the replica sees it: from sampled tokens to text, stop strings, logprobs and the final event."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from speciate.core.engine import SampledToken, SequenceSpec
from speciate.core.output import Delta, Finish, FinishReason, SampledLogprob, Timeline, TokenLogprob, Usage
from speciate.core.request import GenerateRequest
from speciate.core.segment import Tier
from speciate.runtime.stream import OutputMailbox


class TextStep(Protocol):
    """What a decoded token shows: text that is safe now, and the stop string that it completed, if any."""

    @property
    def text(self) -> str: ...

    @property
    def stopped_by(self) -> str | None: ...


class TextStream(Protocol):
    """Incremental detokeniser of one sequence; holds back half characters and possible stop strings."""

    def push(self, token_id: int) -> TextStep: ...

    def flush(self) -> str: ...


class TextCodec(Protocol):
    """The part of a tokenizer that output needs."""

    def stream(self, stop: tuple[str, ...], include_stop: bool, skip_special: bool) -> TextStream: ...

    def token_bytes(self, token_id: int) -> bytes: ...


@dataclass(slots=True)
class RunningSequence:
    """Owned by the replica that serves it; written only between steps."""

    seq_id: int
    request: GenerateRequest
    end_token_ids: frozenset[int]
    text: TextStream
    token_bytes: Callable[[int], bytes]
    tier: Tier
    mailbox: OutputMailbox = field(default_factory=OutputMailbox)
    num_tokens: int = 0
    cached_tokens: int = 0
    num_evictions: int = 0
    scheduled_s: float | None = None
    first_token_s: float | None = None
    last_token_s: float | None = None
    end: FinishReason | None = None
    stop_sequence: str | None = None

    def push(self, sample: SampledToken, now_s: float) -> Delta:
        """Take one token; sets `end` when the sequence is over."""
        self.num_tokens += 1
        if self.first_token_s is None:
            self.first_token_s = now_s
        self.last_token_s = now_s
        text = self._text_of(sample)
        if self.end is not None and self.stop_sequence is None:
            text += self.text.flush()
        return Delta(text, (sample.token_id,), self._logprobs_of(sample))

    def finish(self, now_s: float) -> Finish:
        if self.end is None:
            raise AssertionError("finish() before the end of the sequence")
        first_s = self.first_token_s or now_s
        return Finish(
            reason=self.end,
            usage=Usage(len(self.request.prompt_tokens), self.num_tokens, self.cached_tokens),
            timeline=Timeline(self.request.arrival_s, self.scheduled_s or first_s, first_s, now_s, self.num_evictions),
            tier=self.tier,
            stop_sequence=self.stop_sequence,
        )

    def _text_of(self, sample: SampledToken) -> str:
        if sample.token_id in self.end_token_ids:
            self.end = FinishReason.STOP
            return ""
        step = self.text.push(sample.token_id)
        if step.stopped_by is not None:
            self.end, self.stop_sequence = FinishReason.STOP, step.stopped_by
        elif sample.ends_grammar:
            self.end = FinishReason.STOP
        elif self.num_tokens >= self.request.stopping.max_tokens:
            self.end = FinishReason.LENGTH
        return step.text

    def _logprobs_of(self, sample: SampledToken) -> tuple[SampledLogprob, ...]:
        if self.request.sampling.num_logprobs is None or sample.logprob is None:
            return ()
        top = tuple(self._logprob(token_id, logprob) for token_id, logprob in sample.top)
        return (SampledLogprob(self._logprob(sample.token_id, sample.logprob), top),)

    def _logprob(self, token_id: int, logprob: float) -> TokenLogprob:
        return TokenLogprob(token_id, self.token_bytes(token_id), logprob)


def end_tokens(request: GenerateRequest, eos_token_ids: tuple[int, ...]) -> frozenset[int]:
    """All tokens that end this request: its own, and the model's unless it ignores them."""
    own = request.stopping.stop_token_ids
    return frozenset(own if request.stopping.ignore_eos else (*own, *eos_token_ids))


def spec_of(seq_id: int, request: GenerateRequest, end_token_ids: frozenset[int]) -> SequenceSpec:
    """What the engine's sampler must know of a request."""
    return SequenceSpec(
        seq_id=seq_id,
        prompt_tokens=request.prompt_tokens,
        sampling=request.sampling,
        grammar=request.grammar,
        adapter=request.adapter,
        stop_token_ids=tuple(sorted(end_token_ids)),
        min_tokens=request.stopping.min_tokens,
    )
