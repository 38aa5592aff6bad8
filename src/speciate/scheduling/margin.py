"""By how much a step may outlast its prediction: what the budget is divided by. Knows ratios, not steps.

gamma            conformal: the 95th percentile of observed over predicted, over a sliding window
strict_gamma   what real-time work depends on. A request of n tokens that must be whole with a chance of 0.99 allows
                 each step that is cut to its limit a miss of about 0.01 / n. No window holds such a quantile, so the
                 tail is extended from the median by the spread, `median * (p95 / median) ^ (z / z95)`, and z is
                 corrected by what happens: up with each miss, down a little with each hit, so that misses come as
                 often as allowed (adaptive conformal inference, Gibbs and Candes 2021, in the quantile tracking form
                 of Angelopoulos, Candes and Tibshirani 2023).

Only steps that the budget cut count for the quantiles, once there are enough: the others were not late for anybody.
"""

from bisect import bisect_left, insort
from collections import deque
from math import ceil
from statistics import NormalDist

WINDOW = 500
COVERAGE = 0.95
REALTIME_COVERAGE = 0.99
MIN_OBSERVATIONS = 20
COLD_MARGIN = 1.25
PROMISE_PART = 0.5
"""Share of the broken promises allowed to a tier that late steps may cause; the rest is for arrivals and bursts."""
Z_COVERAGE = NormalDist().inv_cdf(COVERAGE)
Z_STEP = 0.5
"""How far one miss moves z."""
MAX_CORRECTION = 4.0
"""z stays within this of what a normal tail would need: a machine that stalls now and then cannot stop all work."""
DEFAULT_SHARE = 0.99
DEFAULT_TOKENS = 20


class Ratios:
    """Observed over predicted of the last steps, sorted."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque()
        self._sorted: list[float] = []

    def __len__(self) -> int:
        return len(self._sorted)

    def add(self, ratio: float) -> None:
        self._recent.append(ratio)
        insort(self._sorted, ratio)
        if len(self._recent) > WINDOW:
            del self._sorted[bisect_left(self._sorted, self._recent.popleft())]

    def clear(self) -> None:
        self._recent.clear()
        self._sorted.clear()

    def quantile(self, coverage: float) -> float:
        num = len(self._sorted)
        return self._sorted[min(num, ceil((num + 1) * coverage)) - 1]


class Margin:
    """Owned by a step-time model; `observe` after each step. Always between `low` and `high`."""

    def __init__(self, low: float, high: float) -> None:
        self._low, self._high = low, high
        self._all, self._cut = Ratios(), Ratios()
        self._errors: deque[float] = deque(maxlen=WINDOW)
        self._error_sum = 0.0
        self._correction = 0.0
        self._cold = COLD_MARGIN
        self._known: tuple[float, float] | None = None
        """(gamma, strict gamma), until something is observed: every plan asks."""
        self.promise(DEFAULT_SHARE, DEFAULT_TOKENS)

    def promise(self, share: float, num_tokens: int) -> None:
        """What real-time work is promised: this share of requests of about so many tokens."""
        self._allowed = PROMISE_PART * max(1e-6, 1.0 - share) / max(1, num_tokens)
        self._z = NormalDist().inv_cdf(1.0 - min(0.05, self._allowed))
        self._known = None

    def observe(self, observed_s: float, predicted_s: float, is_cut: bool = False) -> None:
        """`is_cut`: whether the budget bounded the step, so that its lateness would have been somebody's."""
        ratio = observed_s / predicted_s
        if is_cut:
            self._track(ratio > self.strict_gamma)
            self._cut.add(ratio)
        if len(self._cut) < MIN_OBSERVATIONS:
            self._all.add(ratio)
        self._observe_error(min(1.0, abs(1.0 - predicted_s / observed_s)))
        self._known = None

    def forget(self) -> None:
        """The machine changed: what was late meanwhile says nothing about what comes, its noise does."""
        self._cold = max(COLD_MARGIN, self.strict_gamma)
        self._all.clear()
        self._cut.clear()
        self._correction = 0.0
        self._known = None

    def _track(self, is_late: bool) -> None:
        if len(self._cut) >= MIN_OBSERVATIONS:
            moved = self._correction + Z_STEP * (is_late - self._allowed)
            self._correction = max(-1.0, min(MAX_CORRECTION, moved))

    def _observe_error(self, error: float) -> None:
        if len(self._errors) == WINDOW:
            self._error_sum -= self._errors[0]
        self._errors.append(error)
        self._error_sum += error

    @property
    def gamma(self) -> float:
        return self._gammas()[0]

    @property
    def strict_gamma(self) -> float:
        return self._gammas()[1]

    def _gammas(self) -> tuple[float, float]:
        if self._known is None:
            ratios = self._ratios()
            usual, strict = (self._cold, self._cold) if ratios is None else self._quantiles(ratios)
            self._known = self._clipped(usual), self._clipped(strict)
        return self._known

    def _quantiles(self, ratios: Ratios) -> tuple[float, float]:
        median, usual = ratios.quantile(0.5), ratios.quantile(COVERAGE)
        tail: float = median * (usual / median) ** ((self._z + self._correction) / Z_COVERAGE)
        return usual, max(tail, ratios.quantile(REALTIME_COVERAGE))

    def _ratios(self) -> Ratios | None:
        if len(self._cut) >= MIN_OBSERVATIONS:
            return self._cut
        return self._all if len(self._all) >= MIN_OBSERVATIONS else None

    def _clipped(self, gamma: float) -> float:
        return min(max(gamma, self._low), self._high)

    @property
    def prediction_error(self) -> float:
        """Mean absolute error of the window, relative to what was observed."""
        return self._error_sum / len(self._errors) if self._errors else 0.0
