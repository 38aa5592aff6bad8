"""By how much a step may outlast its prediction: what the budget is divided by. Knows ratios, not steps.

gamma          conformal: the 95th percentile of observed over predicted, over a sliding window
strict_gamma   what real-time work depends on. A request of n tokens that must be whole with a chance of 0.99 allows
                 each step that is cut to its limit a miss of about 0.01 / n. No window holds such a quantile, so the
                 tail is extended from the median by the spread, `median * (p95 / median) ^ (z / z95)`, and z is
                 corrected by what happens: up with each miss, down a little with each hit, so that misses come as
                 often as allowed (adaptive conformal inference, Gibbs and Candes 2021, in the quantile tracking form
                 of Angelopoulos, Candes and Tibshirani 2023). A late step is late for all streams that wait for it:
                 with k of them it is allowed 1 / k as often.

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
PROMISE_PART = 0.25
"""Share of the broken promises allowed to a tier that late steps may cause: a late one is late for several at once, and
a promise should hold over a minute too."""
ARRIVALS_PART = 0.25
"""Share of them that the arrival guard may cause; the rest is for bursts."""
Z_COVERAGE = NormalDist().inv_cdf(COVERAGE)
Z_STEP = 0.5
"""How far one miss moves z."""
MAX_CORRECTION = 4.0
"""z stays within this of what a normal tail would need: a machine that stalls now and then cannot stop all work."""
KINDS = ((False, False), (False, True), (True, False), (True, True))
"""(real-time streams wait for it, interactive prompts are under way or wait): such steps differ in size and in how deep
their chunks are, so in how wrong the model is. Each kind has its own tail."""
MAX_TOGETHER = 16
"""Streams beyond so many make a late step no worse."""
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


class Tail:
    """What cut steps of one kind did, and by how much z is corrected for it."""

    def __init__(self) -> None:
        self.ratios = Ratios()
        self.correction = 0.0
        self._known: tuple[float, float, float] | None = None

    @property
    def is_known(self) -> bool:
        return len(self.ratios) >= MIN_OBSERVATIONS

    def add(self, ratio: float, limit: float, allowed: float) -> None:
        """`limit` was the margin that it should not exceed, but in this share of the steps."""
        if self.is_known:
            moved = self.correction + Z_STEP * ((ratio > limit) - allowed)
            self.correction = max(-1.0, min(MAX_CORRECTION, moved))
        self.ratios.add(ratio)
        self._known = None

    def clear(self) -> None:
        self.ratios.clear()
        self.correction = 0.0
        self._known = None

    def quantiles(self) -> tuple[float, float, float]:
        """(median, 95th, 99th percentile); kept until something is added, because every plan asks."""
        if self._known is None:
            self._known = quantiles(self.ratios)
        return self._known


def quantiles(ratios: Ratios) -> tuple[float, float, float]:
    return ratios.quantile(0.5), ratios.quantile(COVERAGE), ratios.quantile(REALTIME_COVERAGE)


class Margin:
    """Owned by a step-time model; `observe` after each step. Always between `low` and `high`."""

    def __init__(self, low: float, high: float) -> None:
        self._low, self._high = low, high
        self._all = Ratios()
        self._tails = {key: Tail() for key in KINDS}
        self._cold = COLD_MARGIN
        self.promise(DEFAULT_SHARE, DEFAULT_TOKENS)

    def promise(self, share: float, num_tokens: int) -> None:
        """What real-time work is promised: this share of requests of about so many tokens."""
        self._allowed = PROMISE_PART * max(1e-6, 1.0 - share) / max(1, num_tokens)
        self.late_arrivals = ARRIVALS_PART * max(1e-6, 1.0 - share)
        """Share of the real-time requests whose first token may be late for the step that ran when they came."""
        normal = NormalDist()
        self._z = tuple(normal.inv_cdf(1.0 - min(0.05, self._allowed / num)) for num in range(1, MAX_TOGETHER + 1))

    def observe(
        self,
        observed_s: float,
        predicted_s: float,
        is_cut: bool = False,
        num_streams: int = 0,
        has_prompts: bool = False,
    ) -> None:
        """`is_cut`: whether the budget bounded the step, so that its lateness would have been somebody's. The rest says
        what kind of step it was."""
        ratio = observed_s / predicted_s
        if is_cut:
            own = self._tails[num_streams > 0, has_prompts]
            own.add(ratio, self.strict_for(min(1, num_streams), has_prompts), self._allowed)
        if not any(tail.is_known for tail in self._tails.values()):
            self._all.add(ratio)

    def forget(self) -> None:
        """The machine changed: what was late meanwhile says nothing about what comes, its noise does."""
        self._cold = max(
            COLD_MARGIN, *(self.strict_for(int(has_streams), has_prompts) for has_streams, has_prompts in KINDS)
        )
        self._all.clear()
        for tail in self._tails.values():
            tail.clear()

    @property
    def gamma(self) -> float:
        return self.gamma_for(0)

    def gamma_for(self, num_streams: int, has_prompts: bool = False) -> float:
        """The usual margin of a step that so many real-time streams wait for, beside interactive prompts or not."""
        tail = self._tail(num_streams, has_prompts)
        return self._clipped(self._begun()[1] if tail is None else tail.quantiles()[1])

    def strict_for(self, num_streams: int, has_prompts: bool = False) -> float:
        """The strict margin of such a step; without any stream, as with one."""
        tail = self._tail(num_streams, has_prompts)
        median, usual, strict = self._begun() if tail is None else tail.quantiles()
        z = self._z[min(max(1, num_streams), MAX_TOGETHER) - 1] + (0.0 if tail is None else tail.correction)
        far: float = median * (usual / median) ** (z / Z_COVERAGE)
        doubt = 1.0 if tail is None else MIN_OBSERVATIONS / len(tail.ratios)
        return self._clipped(max(far, strict, 1.0 + doubt * (self._cold - 1.0)))

    def _tail(self, num_streams: int, has_prompts: bool) -> Tail | None:
        """That of such steps, or of others while these are few: first of those with equal streams."""
        has_streams = num_streams > 0
        for key in ((has_streams, has_prompts), (has_streams, not has_prompts), *KINDS):
            if self._tails[key].is_known:
                return self._tails[key]
        return None

    def _begun(self) -> tuple[float, float, float]:
        if len(self._all) < MIN_OBSERVATIONS:
            return self._cold, self._cold, self._cold
        return quantiles(self._all)

    def _clipped(self, gamma: float) -> float:
        return min(max(gamma, self._low), self._high)
