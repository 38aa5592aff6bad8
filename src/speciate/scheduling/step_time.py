"""How long a step takes, learnt while running. Knows counts and seconds, not sequences.

    T = base + decode * D + context * C + prefill * X + prefill_context * XC

D decodes that read C tokens of context; X prompt tokens; XC = sum of x * (mean context of the chunk's tokens).
Recursive least squares with forgetting over *relative* errors, so that short steps count as much as long ones.
"""

from bisect import bisect_left, insort
from collections import deque
from math import ceil, sqrt

from msgspec import Struct

from speciate.scheduling.options import StepTimePrior

FORGETTING = 0.99
NOISE = 0.05
"""Relative noise of one observation that the first updates assume."""
CLIP = 3.0
"""An error beyond this many typical ones counts as this many (Huber): a pause must not teach."""
DRIFT_RATE = 0.15
DRIFT_LIMIT = 0.35
"""A smoothed relative error beyond this means that the machine changed: trust the coefficients less, learn anew."""
WINDOW = 500
COVERAGE = 0.95
MIN_OBSERVATIONS = 20
COLD_MARGIN = 1.25


class StepFeatures(Struct, frozen=True):
    """What the model sees of a step."""

    decodes: int = 0
    context: int = 0
    prefill: int = 0
    prefill_context: float = 0.0


class StepCosts(Struct, frozen=True):
    """The coefficients at one moment, in seconds; all positive."""

    base_s: float
    decode_s: float
    context_s: float
    prefill_s: float
    prefill_context_s: float

    def predict_s(self, step: StepFeatures) -> float:
        decodes = self.base_s + self.decode_s * step.decodes + self.context_s * step.context
        return decodes + self.prefill_s * step.prefill + self.prefill_context_s * step.prefill_context

    def decodes_s(self, num: int, context: int) -> float:
        return self.decode_s * num + self.context_s * context

    def chunk_s(self, num: int, start: int) -> float:
        """What `num` prompt tokens after `start` computed ones add to a step."""
        return num * (self.prefill_s + self.prefill_context_s * (start + num / 2))

    def largest_chunk(self, room_s: float, start: int) -> int:
        """Most prompt tokens after `start` that add at most `room_s`: the positive root of `chunk_s(x) = room_s`."""
        if room_s <= 0:
            return 0
        linear = self.prefill_s + self.prefill_context_s * start
        root = sqrt(linear * linear + 2 * self.prefill_context_s * room_s)
        return int(2 * room_s / (linear + root) * (1 + 1e-12))


class Margin:
    """Conformal quantile of observed over predicted, over a sliding window."""

    def __init__(self, low: float, high: float) -> None:
        self._low, self._high = low, high
        self._ratios: deque[float] = deque()
        self._sorted: list[float] = []
        self._errors: deque[float] = deque(maxlen=WINDOW)
        self._error_sum = 0.0

    def observe(self, observed_s: float, predicted_s: float) -> None:
        ratio = observed_s / predicted_s
        self._ratios.append(ratio)
        insort(self._sorted, ratio)
        if len(self._ratios) > WINDOW:
            del self._sorted[bisect_left(self._sorted, self._ratios.popleft())]
        self._observe_error(min(1.0, abs(1.0 - predicted_s / observed_s)))

    def _observe_error(self, error: float) -> None:
        if len(self._errors) == WINDOW:
            self._error_sum -= self._errors[0]
        self._errors.append(error)
        self._error_sum += error

    @property
    def gamma(self) -> float:
        num = len(self._sorted)
        if num < MIN_OBSERVATIONS:
            return max(COLD_MARGIN, self._low)
        quantile = self._sorted[min(num, ceil((num + 1) * COVERAGE)) - 1]
        return min(max(quantile, self._low), self._high)

    @property
    def prediction_error(self) -> float:
        """Mean absolute error of the window, relative to what was observed."""
        return self._error_sum / len(self._errors) if self._errors else 0.0


class StepTimeModel:
    """`costs` now, `observe` after each step."""

    def __init__(self, prior: StepTimePrior, min_margin: float = 1.05, max_margin: float = 4.0) -> None:
        start = (prior.base_s, prior.decode_s, prior.context_s, prior.prefill_s, prior.prefill_context_s)
        self._scale = [max(value, 1e-15) for value in start]
        self._theta = [1.0] * 5  # in units of the prior, which keeps the covariance well conditioned
        self._covariance = _diagonal(self._theta)
        self._spread = 1.0
        self._drift = 0.0
        self.margin = Margin(min_margin, max_margin)
        self.costs = self._costs()

    def observe(self, step: StepFeatures, observed_s: float) -> None:
        """Learn from one step. Costs about 20 microseconds."""
        if observed_s <= 0:
            return
        predicted_s = self.costs.predict_s(step)
        self.margin.observe(observed_s, predicted_s)
        error = observed_s / predicted_s - 1.0
        self._watch_drift(error)
        limit = CLIP * max(self._spread, 0.02)
        self._spread += 0.1 * (min(1.0, abs(error)) - self._spread)
        self._update(self._row(step, predicted_s), max(-limit, min(limit, error)))
        self.costs = self._costs()

    def _watch_drift(self, error: float) -> None:
        self._drift += DRIFT_RATE * (max(-1.0, min(1.0, error)) - self._drift)
        if abs(self._drift) > DRIFT_LIMIT:
            self._covariance = _diagonal([max(value, 1.0) for value in self._theta])
            self._spread, self._drift = 1.0, 0.0

    def _row(self, step: StepFeatures, predicted_s: float) -> list[float]:
        counts = (1.0, step.decodes, step.context, step.prefill, step.prefill_context)
        return [count * scale / predicted_s for count, scale in zip(counts, self._scale, strict=True)]

    def _update(self, row: list[float], error: float) -> None:
        """One step of recursive least squares: gain = P r / (f + r' P r)."""
        p_row = [sum(a * b for a, b in zip(line, row, strict=True)) for line in self._covariance]
        gain_scale = 1.0 / (FORGETTING + sum(a * b for a, b in zip(row, p_row, strict=True)))
        for i in range(5):
            self._theta[i] = max(self._theta[i] + p_row[i] * gain_scale * error, 1e-3)
        self._covariance = [
            [(value - left * right * gain_scale) / FORGETTING for value, right in zip(line, p_row, strict=True)]
            for line, left in zip(self._covariance, p_row, strict=True)
        ]
        self._bound_covariance()

    def _bound_covariance(self) -> None:
        """Directions that steps do not excite would grow without end (wind-up): hold the diagonal at its start."""
        for i in range(5):
            limit = (2.0 * max(self._theta[i], 1.0) / NOISE) ** 2
            excess = self._covariance[i][i] / limit
            if excess > 1.0:
                shrink = 1.0 / sqrt(excess)
                self._covariance[i] = [value * shrink for value in self._covariance[i]]
                for line in self._covariance:
                    line[i] *= shrink

    def _costs(self) -> StepCosts:
        values = [theta * scale for theta, scale in zip(self._theta, self._scale, strict=True)]
        return StepCosts(*values)


def _diagonal(theta: list[float]) -> list[list[float]]:
    """Covariance of independent coefficients known to a factor of about three, in units of the noise."""
    return [[(2.0 * theta[i] / NOISE) ** 2 if i == j else 0.0 for j in range(5)] for i in range(5)]
