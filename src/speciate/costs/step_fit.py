"""From measured steps to a calibration: least squares over relative errors, and what error is left, by kind of step."""

from collections.abc import Callable, Iterable, Sequence
from statistics import fmean, median
from typing import Any

import numpy as np
from msgspec import Struct

from speciate.core.engine import EVERY_SIZE, StepSizes
from speciate.costs.step_calibration import StepLine, StepTable, StepWork

Array = np.ndarray[Any, np.dtype[np.float64]]
KNOTS = (
    *(1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 72, 80, 96, 112, 128, 144, 160, 192, 208, 224, 256, 272, 288, 320, 384),
    *(512, 1024, 2048, 4096),
)
"""Kernels work on blocks of 64 rows or so: 72 tokens took half as long again as 64 (docs/decisions/0017)."""
SMALL_TOKENS = 32
"""Up to this many tokens a mixed step counts as small in reports of errors."""


class MeasuredStep(Struct, frozen=True):
    """One step as the engine ran it."""

    work: StepWork
    seconds: float


class FitError(Struct, frozen=True):
    """How far predictions are from what was measured."""

    kind: str
    num_steps: int
    mean: float
    """Mean absolute error relative to what was measured."""
    bias: float
    """Predicted over measured in total seconds, less 1."""


def fit_table(steps: Sequence[MeasuredStep], sizes: StepSizes = EVERY_SIZE) -> StepTable:
    """Needs steps of at least two sizes; knots that no step is near are left out."""
    computed = [sizes.padded(step.work.num_tokens) for step in steps]
    knots = _knots(sorted(set(computed)))
    rows = np.array([[*_hats(n, knots), *_parts(step.work)] for n, step in zip(computed, steps, strict=True)])
    values = _non_negative(rows, np.array([step.seconds for step in steps]))
    seconds, parts = values[: len(knots)], values[len(knots) :]
    decode_s, context_s, pair_s, chunk_context_s, resized_s = (float(value) for value in parts)
    return StepTable(
        knots, tuple(float(value) for value in seconds), decode_s, context_s, pair_s, chunk_context_s, resized_s, sizes
    )


def fit_line(steps: Sequence[MeasuredStep]) -> StepLine:
    """One straight line through all."""
    rows = np.array([[1.0, s.work.decodes, s.work.decode_context, s.work.prefill, s.work.pairs] for s in steps])
    return StepLine(*(float(v) for v in _non_negative(rows, np.array([step.seconds for step in steps]))))


def typical(steps: Iterable[MeasuredStep]) -> list[MeasuredStep]:
    """Equal steps measured several times, once each with their median: what else ran meanwhile must not teach."""
    groups: dict[StepWork, list[float]] = {}
    for step in steps:
        groups.setdefault(step.work, []).append(step.seconds)
    return [MeasuredStep(work, median(seconds)) for work, seconds in groups.items()]


def errors_by_kind(predict_s: Callable[[StepWork], float], steps: Sequence[MeasuredStep]) -> list[FitError]:
    """All steps, and by kind: decodes alone, prompts alone, mixed small and large."""
    groups: dict[str, list[MeasuredStep]] = {"all": list(steps)}
    for step in steps:
        groups.setdefault(kind_of(step.work), []).append(step)
    return [_error(kind, predict_s, rows) for kind, rows in groups.items() if rows]


def kind_of(work: StepWork) -> str:
    if not work.prefill:
        return "decodes alone"
    if not work.decodes:
        return "prompts alone"
    return "mixed, small" if work.num_tokens <= SMALL_TOKENS else "mixed, large"


def _error(kind: str, predict_s: Callable[[StepWork], float], steps: list[MeasuredStep]) -> FitError:
    predicted = [predict_s(step.work) for step in steps]
    off = [abs(p - step.seconds) / step.seconds for p, step in zip(predicted, steps, strict=True)]
    return FitError(kind, len(steps), fmean(off), sum(predicted) / sum(step.seconds for step in steps) - 1.0)


def _knots(sizes: Sequence[int]) -> tuple[int, ...]:
    """Those with a measured size on each side of the gap to their neighbours, and the two ends. `sizes` rise."""
    chosen = [sizes[0]]
    for knot in KNOTS:
        if any(chosen[-1] < size <= knot for size in sizes) and knot < sizes[-1]:
            chosen.append(knot)
    return tuple(dict.fromkeys([*chosen, max(sizes[-1], sizes[0] + 1)]))


def _hats(num_tokens: int, knots: tuple[int, ...]) -> list[float]:
    """Weights of the knots for a step of this size: two neighbours share it."""
    return [float(np.interp(num_tokens, knots, np.eye(len(knots))[i])) for i in range(len(knots))]


def _parts(work: StepWork) -> tuple[float, float, float, float, float]:
    return work.decodes, work.decode_context, work.pairs, work.chunk_context, work.is_resized


def _non_negative(rows: Array, seconds: Array) -> Array:
    """Least squares over relative errors; coefficients that would be negative are dropped, the worst first."""
    scaled = rows / seconds[:, None]
    active = list(range(rows.shape[1]))
    while True:
        values, *_ = np.linalg.lstsq(scaled[:, active], np.ones(len(seconds)), rcond=None)
        if not len(values) or values.min() >= 0:
            break
        del active[int(values.argmin())]
    result = np.zeros(rows.shape[1])
    result[active] = values
    return result
