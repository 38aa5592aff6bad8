"""The two engine protocols and the plan of one step.

`Engine` schedules itself; `StepEngine` is stepped by our scheduler. `runtime` turns a stepped engine and a scheduler
into an `Engine`, so that everything above sees one kind.
"""

from collections.abc import AsyncGenerator
from typing import Protocol

from msgspec import Struct

from speciate.core.output import OutputEvent, Whole
from speciate.core.request import GenerateRequest, Grammar, SamplingParams


class StepSizes(Struct, frozen=True):
    """The numbers of tokens that an engine computes at once: a step of any other number is padded to the next of them.

    Every number up to `exact`; then multiples of the grain of the first of `grains` (up to so many tokens, grain) that
    reaches far enough, beyond them multiples of `widest`. `exact` and how far a grain reaches are multiples of the next
    grain. As made without arguments, every number is a size.
    """

    exact: int = 0
    grains: tuple[tuple[int, int], ...] = ()
    widest: int = 1

    def padded(self, num_tokens: int) -> int:
        """What a step of so many tokens computes: the least size that holds them."""
        grain = self._grain(num_tokens)
        return -(-num_tokens // grain) * grain

    def filled(self, num_tokens: int) -> int:
        """The largest size that so many tokens fill."""
        grain = self._grain(num_tokens)
        return num_tokens // grain * grain

    def _grain(self, num_tokens: int) -> int:
        if num_tokens <= self.exact:
            return 1
        for most, grain in self.grains:
            if num_tokens <= most:
                return grain
        return self.widest


EVERY_SIZE = StepSizes()


class TokenEngineShape(Struct, frozen=True):
    """What a scheduler must know of a loaded model."""

    model: str
    vocab_size: int
    context_tokens: int
    """Longest prompt plus output."""
    block_tokens: int
    """Tokens a KV block holds."""
    num_blocks: int
    """KV blocks 0..num_blocks-1; all of them may be handed out."""
    block_bytes: int
    """Bytes of one block over all layers, keys and values."""
    eos_token_ids: tuple[int, ...]
    adapters: tuple[str, ...] = ()
    max_step_tokens: int = 4096
    """The most tokens one step may compute."""
    max_step_sequences: int = 256
    step_sizes: StepSizes = EVERY_SIZE


class SequenceSpec(Struct, frozen=True):
    """What sampling needs to know of a sequence; constant over its life, kept when its blocks are evicted."""

    seq_id: int
    prompt_tokens: tuple[int, ...]
    sampling: SamplingParams
    grammar: Grammar | None = None
    adapter: str | None = None
    stop_token_ids: tuple[int, ...] = ()
    """All end tokens of this sequence (the model's own too unless ignored): masked until `min_tokens`."""
    min_tokens: int = 0


class SequenceStep(Struct, frozen=True, gc=False):
    """One sequence's share of a step: compute `tokens` at positions start, start+1, ..."""

    seq_id: int
    tokens: tuple[int, ...]
    start: int
    """Tokens whose KV is already in the blocks."""
    block_ids: tuple[int, ...]
    """The sequence's block table, in order, at least ceil((start + len(tokens)) / block_tokens) long."""
    samples: bool
    """Whether the logits after the last token are wanted: False inside a prompt."""


class StepPlan(Struct, frozen=True):
    """What one step runs: decodes and prefill chunks of many sequences, each at most once."""

    step_id: int
    sequences: tuple[SequenceStep, ...]

    @property
    def num_tokens(self) -> int:
        return sum(len(s.tokens) for s in self.sequences)


class SampledToken(Struct, frozen=True, gc=False):
    """The token drawn after a sequence's last computed one."""

    seq_id: int
    token_id: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()
    """(token id, logprob), likeliest first."""
    ends_grammar: bool = False
    """The grammar allows nothing after this token."""


class StepResult(Struct, frozen=True):
    """Samples in the order of the plan's sampling sequences; a sequence that failed alone is in `failed`."""

    samples: tuple[SampledToken, ...]
    failed: tuple[tuple[int, str], ...] = ()
    """(seq_id, why): this sequence cannot go on, the others can."""


class StepEngine(Protocol):
    """A model that runs one bounded step at a time; `step` blocks while it computes.

    `step`, `remove` and `close` come from one thread at a time and never overlap. `add` may come from another thread
    while a step runs (compiling a grammar must not delay the others); its sequence is in no plan before it returns.
    """

    @property
    def shape(self) -> TokenEngineShape: ...

    def add(self, sequence: SequenceSpec) -> None:
        """Make sampling state. Raises InvalidRequest where the grammar, the adapter or a token id cannot be used."""
        ...

    def step(self, plan: StepPlan) -> StepResult:
        """Compute the plan. Raises EngineFailed when the whole step is lost."""
        ...

    def remove(self, seq_id: int) -> None:
        """Forget a sequence; unknown ids are ignored."""
        ...

    def close(self) -> None: ...


class EmbedEngine(Protocol):
    """A model that turns token rows into vectors, one bounded batch a step. Blocks while it computes."""

    @property
    def model(self) -> str: ...

    @property
    def dimensions(self) -> int: ...

    @property
    def context_tokens(self) -> int: ...

    def embed(self, inputs: tuple[tuple[int, ...], ...]) -> tuple[bytes, ...]:
        """One little-endian float32 vector of `dimensions` per row, unit length. Raises EngineFailed."""
        ...

    def close(self) -> None: ...


class Engine(Protocol):
    """What routing and the front door see."""

    def generate(self, request: GenerateRequest) -> AsyncGenerator[OutputEvent, None]:
        """A stream of one sequence. Closing the iterator cancels the work."""
        ...

    async def complete(self, request: GenerateRequest) -> Whole:
        """The same sequence in one piece, without an event a token. Cancelling the call cancels the work."""
        ...
