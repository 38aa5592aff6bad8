"""How many lines a second come out lately. Time is given, not read."""

from math import inf

HALF_LIFE_S = 60.0
UNKNOWN_RATE = inf
"""Before any was seen: no job is called urgent for what is not known."""


class Pace:
    """A rate with forgetting: idle time does not count, so it says what the engine does when it has work."""

    def __init__(self) -> None:
        self._num_lines = 0.0
        self._busy_s = 0.0
        self._last_s: float | None = None

    @property
    def is_known(self) -> bool:
        return self._busy_s > 1.0

    def add(self, num_lines: int, now_s: float) -> None:
        """So many lines came out since the last call; longer gaps than some seconds were idle."""
        if self._last_s is not None:
            gap_s = min(now_s - self._last_s, 5.0)
            kept = 0.5 ** (gap_s / HALF_LIFE_S)
            self._num_lines = self._num_lines * kept + num_lines
            self._busy_s = self._busy_s * kept + gap_s
        self._last_s = now_s

    def rate_per_s(self) -> float:
        return self._num_lines / self._busy_s if self.is_known and self._num_lines else UNKNOWN_RATE


class Paces:
    """One a model: a line of one may take a thousand times as long as one of another."""

    def __init__(self) -> None:
        self._of_model: dict[str, Pace] = {}

    def add(self, model: str, num_lines: int, now_s: float) -> None:
        self._of_model.setdefault(model, Pace()).add(num_lines, now_s)

    def is_known(self, model: str) -> bool:
        return model in self._of_model and self._of_model[model].is_known

    def rate_per_s(self, model: str) -> float:
        return self._of_model[model].rate_per_s() if model in self._of_model else UNKNOWN_RATE
