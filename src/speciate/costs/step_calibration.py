"""What one step of a model on a machine takes, as measured by somebody: the clock of the simulator.

A calibration is data with its source. `speciate bench calibrate` records one on a real engine; `A100_LLAMA3_8B` holds
published coefficients. The scheduler never sees these: it learns its own model from observed steps.
"""

from bisect import bisect_right
from pathlib import Path

import msgspec
from msgspec import Struct

from speciate.core.engine import EVERY_SIZE, StepSizes
from speciate.core.errors import ConfigError


class StepWork(Struct, frozen=True, gc=False):
    """What a step computes, in counts."""

    decodes: int
    """Sequences that compute one token after at least one."""
    decode_context: int
    """Tokens that those read."""
    prefill: int
    """Prompt tokens."""
    pairs: float
    """Prompt tokens times the context each reads: sum of x * (start + x / 2) over chunks."""
    chunk_context: int
    """Tokens that stood before each chunk, summed over chunks."""
    is_resized: bool = False
    """Whether it computes another number of tokens, padding included, than the step before it."""

    @property
    def num_tokens(self) -> int:
        return self.decodes + self.prefill


class StepLine(Struct, frozen=True):
    """Seconds of each part of a step; a coefficient of a fit may be negative."""

    base_s: float
    decode_s: float
    context_s: float
    prefill_s: float
    pair_s: float = 0.0
    chunk_context_s: float = 0.0

    def step_s(self, work: StepWork) -> float:
        decodes = self.base_s + self.decode_s * work.decodes + self.context_s * work.decode_context
        chunks = self.prefill_s * work.prefill + self.pair_s * work.pairs + self.chunk_context_s * work.chunk_context
        return decodes + chunks


class StepTable(Struct, frozen=True):
    """Seconds by how many tokens a step computes, padding included, linear between the knots; for engines whose kernels
    go by size. Beyond the last knot the last slope goes on.
    """

    knots: tuple[int, ...]
    """Tokens of a step, rising; the first is 1."""
    seconds: tuple[float, ...]
    decode_s: float
    """One more sequence that samples, beside its token."""
    context_s: float
    pair_s: float
    chunk_context_s: float = 0.0
    resized_s: float = 0.0
    """More if the step before computed another number of tokens."""
    sizes: StepSizes = EVERY_SIZE

    def step_s(self, work: StepWork) -> float:
        seconds = self._by_tokens_s(self.sizes.padded(work.num_tokens))
        if work.is_resized:
            seconds += self.resized_s
        seconds += self.decode_s * work.decodes + self.context_s * work.decode_context
        return seconds + self.pair_s * work.pairs + self.chunk_context_s * work.chunk_context

    def _by_tokens_s(self, num_tokens: int) -> float:
        index = min(max(1, bisect_right(self.knots, num_tokens)), len(self.knots) - 1)
        left, right = self.knots[index - 1], self.knots[index]
        share = (num_tokens - left) / (right - left)
        return self.seconds[index - 1] + share * (self.seconds[index] - self.seconds[index - 1])


class StepCalibration(Struct, frozen=True, forbid_unknown_fields=True):
    """A machine and a model as the simulator sees them."""

    name: str
    source: str
    """Who measured this where, so that a figure can say so."""
    small: StepLine
    """Steps of at most `knee_tokens`: bound by memory bandwidth."""
    large: StepLine
    """Longer steps: bound by arithmetic."""
    knee_tokens: int
    num_blocks: int
    block_tokens: int = 16
    context_tokens: int = 8192
    max_step_tokens: int = 4096
    max_step_sequences: int = 256
    between_s: float = 0.0
    """What passes between two steps outside the engine: planning, sampling, delivery."""
    table: StepTable | None = None
    """Used instead of the two lines where an engine needs it; the lines then say where a scheduler's model starts."""
    noise: float = 0.0
    """Standard deviation of the logarithm of observed over calibrated seconds, as measured."""

    @property
    def step_sizes(self) -> StepSizes:
        return EVERY_SIZE if self.table is None else self.table.sizes

    @property
    def least_s(self) -> float:
        """No step takes less, whatever a fit extrapolates to: a tenth of the shortest."""
        return 0.1 * (self.small.base_s if self.table is None else self.table.seconds[0])

    def line(self, work: StepWork) -> StepLine | None:
        """The line that holds for such a step; None where the table does."""
        if self.table is not None:
            return None
        return self.small if work.num_tokens <= self.knee_tokens else self.large

    def step_s(self, work: StepWork) -> float:
        if self.table is not None:
            return max(self.table.step_s(work), self.least_s)
        line = self.small if work.num_tokens <= self.knee_tokens else self.large
        return max(line.step_s(work), self.least_s)


A100_LLAMA3_8B = StepCalibration(
    name="a100-llama3-8b",
    source=(
        "QoServe artifact (ASPLOS 2026), microsoft/sarathi-serve branch niyama_asplos2026, deadline_scheduler.py: two "
        "linear models of a step, split at 512 tokens; its coefficient of all tokens is added to both kinds. KV: 80 GB "
        "less 16 GB of weights and 10 % of slack, at 128 KiB a token (32 layers, 8 KV heads of 128, 16 bit)"
    ),
    small=StepLine(0.014936, 5.882475e-05 + 3.634519e-05, 1.111258e-07, 5.882475e-05 + 2.247956e-05,
                   chunk_context_s=7.554773e-07),
    large=StepLine(0.005004, 2.719050e-05 - 4.143993e-05, 1.663409e-07, 2.719050e-05 + 6.863043e-05,
                   chunk_context_s=2.727223e-06),
    knee_tokens=512,
    num_blocks=26_000,
)  # fmt: skip

PUBLISHED = {A100_LLAMA3_8B.name: A100_LLAMA3_8B}


def load_calibration(name_or_path: str) -> StepCalibration:
    """A published one by name, or a JSON file that `speciate bench calibrate` wrote. Raises ConfigError."""
    if name_or_path in PUBLISHED:
        return PUBLISHED[name_or_path]
    try:
        return msgspec.json.decode(Path(name_or_path).read_bytes(), type=StepCalibration)
    except OSError as error:
        known = ", ".join(PUBLISHED)
        raise ConfigError(
            f"No calibration {name_or_path!r}: {error.strerror}. Name a file, or one of: {known}."
        ) from error
    except msgspec.DecodeError as error:
        raise ConfigError(f"{name_or_path} is not a step calibration: {error}") from error
