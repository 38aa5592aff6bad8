"""Measures step times of a real engine over a designed set of plans, and fits the calibration that the simulator reads.

Plans: decodes x contexts, prompt chunks x contexts, and both mixed, in an order that is drawn anew each round, so that
slow moments of the machine meet all kinds alike. Each plan runs a few times on end: after one of another size, then
after its like, as most steps of a server do. Blocks are written before they are read: untouched memory reads fast.
"""

import random
import time
from collections.abc import Iterator, Sequence
from math import log
from statistics import median, stdev

from msgspec import Struct

from speciate.core.engine import SequenceSpec, SequenceStep, StepEngine, StepPlan
from speciate.core.errors import ConfigError
from speciate.core.request import SamplingParams
from speciate.costs.step_calibration import StepCalibration
from speciate.costs.step_fit import MeasuredStep, fit_line, fit_table, typical
from speciate.costs.step_series import StepSeries
from speciate.sim.replica import work_of

TOKEN = 10
WARM_STEPS = 3


class CalibrationGrid(Struct, frozen=True):
    """What is measured. A plan that does not fit the engine's blocks or context is left out."""

    decodes: tuple[int, ...] = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
    contexts: tuple[int, ...] = (16, 128, 512, 1024)
    chunks: tuple[int, ...] = (
        *(8, 16, 32, 48, 64, 72, 80, 96, 112, 128, 144, 160, 192, 208, 224, 256, 272, 288, 320, 384, 512),
    )
    starts: tuple[int, ...] = (0, 128, 512)
    mixed_decodes: tuple[int, ...] = (1, 4, 16, 48)
    mixed_chunks: tuple[int, ...] = (16, 32, 48, 56, 64, 80, 96, 112, 128, 144, 176, 192, 208, 256)
    rounds: int = 5
    on_end: int = 3
    """How often a plan runs before the next one."""
    max_seconds: float = 150.0
    """No new round begins after so long."""


class Wanted(Struct, frozen=True):
    """One plan: decodes at a context, and prompt chunks after so many computed tokens."""

    decodes: int = 0
    context: int = 0
    chunks: tuple[tuple[int, int], ...] = ()
    """(tokens, start)."""


def measure_steps(engine: StepEngine, grid: CalibrationGrid, seed: int = 0) -> list[MeasuredStep]:
    """Blocks for about as long as `grid` says."""
    bench = _Bench(engine)
    wanted = [plan for plan in designed_plans(grid) if bench.has_room(plan)]
    if not wanted:
        raise ConfigError("No plan of the calibration fits this engine: give it more KV memory (--kv-mib).")
    bench.write_blocks(wanted)
    draw, began_s = random.Random(seed), time.monotonic()
    steps: list[MeasuredStep] = []
    for index in range(grid.rounds):
        if index and time.monotonic() - began_s > grid.max_seconds:
            break
        steps += [bench.measure(plan) for plan in draw.sample(wanted, len(wanted)) for _ in range(grid.on_end)]
    bench.clear()
    return steps


def designed_plans(grid: CalibrationGrid) -> Iterator[Wanted]:
    for num in grid.decodes:
        yield from (Wanted(num, context) for context in grid.contexts)
    for num in grid.chunks:
        yield from (Wanted(chunks=((num, start),)) for start in grid.starts)
        yield Wanted(chunks=((num // 2, 0), (num - num // 2, 128)))
    for decodes in grid.mixed_decodes:
        for num in grid.mixed_chunks:
            yield Wanted(decodes, 128, ((num, 0),))
            yield Wanted(decodes, 512, ((num // 2, 0), (num - num // 2, 256)))


def fit_calibration(engine: StepEngine, steps: Sequence[MeasuredStep], source: str) -> StepCalibration:
    """A table by tokens, with straight lines beside it for where a scheduler's own model starts."""
    shape, medians = engine.shape, typical(steps)
    line = fit_line(medians)
    return StepCalibration(
        name=shape.model,
        source=source,
        small=line,
        large=line,
        knee_tokens=shape.max_step_tokens,
        num_blocks=shape.num_blocks,
        block_tokens=shape.block_tokens,
        context_tokens=shape.context_tokens,
        max_step_tokens=shape.max_step_tokens,
        max_step_sequences=shape.max_step_sequences,
        table=fit_table(medians, shape.step_sizes),
    )


def noise_of(calibration: StepCalibration, steps: Sequence[MeasuredStep]) -> float:
    """Spread of observed over calibrated time; the outermost hundredths, pauses of the machine, are left out."""
    logs = sorted(log(step.seconds / calibration.step_s(step.work)) for step in steps)
    cut = len(logs) // 100
    inner = logs[cut : len(logs) - cut]
    return stdev(inner) if len(inner) > 2 else 0.0


def pauses_between(began_s: Sequence[float], seconds: Sequence[float]) -> float:
    """Median of what passes between two steps of a loop that always has work."""
    gaps = [later - (began + took) for began, took, later in zip(began_s, seconds, began_s[1:], strict=False)]
    return max(0.0, median(gaps)) if gaps else 0.0


class _Bench:
    """Makes plans on one engine: sequence i owns a run of blocks of its own."""

    def __init__(self, engine: StepEngine) -> None:
        self._engine = engine
        self._shape = engine.shape
        self._num_steps = 0
        self._added: set[int] = set()
        self._series = StepSeries(engine.shape.step_sizes)

    def has_room(self, plan: Wanted) -> bool:
        shape = self._shape
        lengths = [plan.context + 1] * plan.decodes + [num + start for num, start in plan.chunks]
        blocks = sum(self._num_blocks(length) for length in lengths)
        tokens = plan.decodes + sum(num for num, _ in plan.chunks)
        return (
            blocks <= shape.num_blocks
            and max(lengths) <= shape.context_tokens
            and tokens <= shape.max_step_tokens
            and len(lengths) <= shape.max_step_sequences
        )

    def write_blocks(self, plans: Sequence[Wanted]) -> None:
        """Compute prompts over all blocks that any plan reads, in steps of 512 tokens; then a few steps to warm up."""
        num_blocks = max(self._blocks_of(plan) for plan in plans)
        width = self._shape.block_tokens
        size = max(1, min(512, self._shape.context_tokens - 1, self._shape.max_step_tokens) // width)
        for first in range(0, num_blocks, size):
            ids = tuple(range(first, min(first + size, num_blocks)))
            self._step((SequenceStep(self._seq(0), (TOKEN,) * (len(ids) * width), 0, ids, True),))
        for _ in range(WARM_STEPS):
            for plan in (plans[0], plans[-1]):
                self.measure(plan)

    def measure(self, plan: Wanted) -> MeasuredStep:
        return self._step(self._sequences(plan))

    def clear(self) -> None:
        for seq_id in self._added:
            self._engine.remove(seq_id)

    def _step(self, sequences: tuple[SequenceStep, ...]) -> MeasuredStep:
        self._num_steps += 1
        plan = StepPlan(self._num_steps, sequences)
        began_s = time.perf_counter()
        self._engine.step(plan)
        seconds = time.perf_counter() - began_s
        return MeasuredStep(self._series.next(work_of(plan)), seconds)

    def _sequences(self, plan: Wanted) -> tuple[SequenceStep, ...]:
        parts = [(1, plan.context)] * plan.decodes + list(plan.chunks)
        steps, block = [], 0
        for index, (num, start) in enumerate(parts):
            count = self._num_blocks(num + start)
            ids = tuple(range(block, block + count))
            steps.append(SequenceStep(self._seq(index), (TOKEN,) * num, start, ids, True))
            block += count
        return tuple(steps)

    def _seq(self, index: int) -> int:
        if index not in self._added:
            self._added.add(index)
            self._engine.add(SequenceSpec(index, (TOKEN,), SamplingParams(temperature=0.0)))
        return index

    def _blocks_of(self, plan: Wanted) -> int:
        chunks = sum(self._num_blocks(num + start) for num, start in plan.chunks)
        return plan.decodes * self._num_blocks(plan.context + 1) + chunks

    def _num_blocks(self, num_tokens: int) -> int:
        return -(-num_tokens // self._shape.block_tokens)
