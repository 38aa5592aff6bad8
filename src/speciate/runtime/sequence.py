"""One sequence as the replica sees it: from sampled tokens to text, stop strings, logprobs and the final event."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from speciate.core.engine import SampledToken
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
class Taken:
    """A token that a sequence has taken and not shown yet."""

    sequence: "RunningSequence"
    sample: SampledToken
    at_s: float
    end: FinishReason | None
    """Why it is the last one."""
    text: str | None
    """What it shows, where the end depends on that; None: to be found out."""


@dataclass(slots=True)
class RunningSequence:
    """Owned by the replica that serves it.

    Two threads take part, one after the other for each token. The device's, holding the replica's lock: `take` decides
    whether the token is the last one, which the scheduler must know before it plans; it writes `num_tokens`, `end` and
    `stop_sequence`. Then the event loop's: `show` makes text and log-probabilities of it, which nobody but the reader
    waits for; it writes the times. The text stream belongs to the one of them that pushes: `take` if there are stop
    strings, else `show`.
    """

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

    def take(self, sample: SampledToken, now_s: float) -> Taken:
        """Take one token; sets `end` when the sequence is over."""
        self.num_tokens += 1
        text = None
        if sample.token_id in self.end_token_ids:
            self.end = FinishReason.STOP
        else:
            if self.request.stopping.stop:
                text = self._text_up_to_a_stop(sample)
            if self.end is None:
                self.end = self._end_without_text(sample)
        return Taken(self, sample, now_s, self.end, text)

    def show(self, taken: Taken) -> Delta:
        """What its reader gets of a token that it took; in the order in which they were taken."""
        if self.first_token_s is None:
            self.first_token_s = taken.at_s
        self.last_token_s = taken.at_s
        sample, text = taken.sample, taken.text or ""
        if taken.text is None and sample.token_id not in self.end_token_ids:
            text = self.text.push(sample.token_id).text
        if taken.end is not None and self.stop_sequence is None:
            text += self.text.flush()
        return Delta(text, (sample.token_id,), self._logprobs_of(sample))

    def finish(self) -> Finish:
        """After its last token was shown."""
        if self.end is None or self.last_token_s is None:
            raise AssertionError("finish() before the end of the sequence")
        now_s = self.last_token_s
        first_s = self.first_token_s or now_s
        return Finish(
            reason=self.end,
            usage=Usage(len(self.request.prompt_tokens), self.num_tokens, self.cached_tokens),
            timeline=Timeline(self.request.arrival_s, self.scheduled_s or first_s, first_s, now_s, self.num_evictions),
            tier=self.tier,
            stop_sequence=self.stop_sequence,
        )

    def _text_up_to_a_stop(self, sample: SampledToken) -> str:
        step = self.text.push(sample.token_id)
        if step.stopped_by is not None:
            self.end, self.stop_sequence = FinishReason.STOP, step.stopped_by
        return step.text

    def _end_without_text(self, sample: SampledToken) -> FinishReason | None:
        if sample.ends_grammar:
            return FinishReason.STOP
        return FinishReason.LENGTH if self.num_tokens >= self.request.stopping.max_tokens else None

    def _logprobs_of(self, sample: SampledToken) -> tuple[SampledLogprob, ...]:
        if self.request.sampling.num_logprobs is None or sample.logprob is None:
            return ()
        top = tuple(self._logprob(token_id, logprob) for token_id, logprob in sample.top)
        return (SampledLogprob(self._logprob(sample.token_id, sample.logprob), top),)

    def _logprob(self, token_id: int, logprob: float) -> TokenLogprob:
        return TokenLogprob(token_id, self.token_bytes(token_id), logprob)
