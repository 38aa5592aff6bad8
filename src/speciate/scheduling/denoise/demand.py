"""How often an asset is asked for: arrivals that fade, on a short and a long scale. Knows no queue and no memory.

Bursts are why two scales are needed: in a trace of 26,823 image requests (GenTD26) arrivals have a coefficient of
variation of 12, so what came in the last minutes says more about the next ones than the day's mean, and the day's mean
more about a model that rests than its last minutes.
"""

from dataclasses import dataclass
from math import exp, inf

LN2 = 0.6931471805599453


@dataclass(slots=True)
class _Fading:
    """Arrivals, each halved every half-life."""

    sum: float = 0.0
    at_s: float = 0.0

    def read(self, half_life_s: float, now_s: float) -> float:
        age_s = now_s - self.at_s
        return self.sum * exp(-LN2 * age_s / half_life_s) if age_s > 0 else self.sum

    def add(self, half_life_s: float, now_s: float) -> None:
        self.sum = self.read(half_life_s, now_s) + 1.0
        self.at_s = max(self.at_s, now_s)


class Demand:
    """Rates by key. Bounded: keys whose arrivals have faded are forgotten."""

    def __init__(self, short_s: float, long_s: float, short_weight: float, max_keys: int = 100_000) -> None:
        self._scales = ((short_s, short_weight), (long_s, 1.0 - short_weight))
        self._max_keys = max_keys
        self._keys: dict[object, tuple[_Fading, _Fading]] = {}

    def observe(self, key: object, now_s: float) -> None:
        pair = self._keys.get(key)
        if pair is None:
            if len(self._keys) >= self._max_keys:
                self._forget(now_s)
            pair = self._keys[key] = (_Fading(at_s=now_s), _Fading(at_s=now_s))
        for fading, (half_life_s, _) in zip(pair, self._scales, strict=True):
            fading.add(half_life_s, now_s)

    def rate(self, key: object, now_s: float) -> float:
        """Expected arrivals a second; 0 for a key never seen."""
        pair = self._keys.get(key)
        if pair is None:
            return 0.0
        parts = zip(pair, self._scales, strict=True)
        return sum(weight * fading.read(life_s, now_s) * LN2 / life_s for fading, (life_s, weight) in parts)

    def last_s(self, key: object) -> float:
        """When it was last asked for; minus infinity for a key never seen."""
        pair = self._keys.get(key)
        return -inf if pair is None else pair[0].at_s

    def _forget(self, now_s: float) -> None:
        """The rarer half goes."""
        ranked = sorted(self._keys, key=lambda key: self.rate(key, now_s))
        for key in ranked[: len(ranked) // 2 + 1]:
            del self._keys[key]
