"""How long lines take, model by model, and how much longer one that runs will. Time is given, not read."""

from collections import deque

KEPT = 256
"""Lines of a model that are remembered."""
SHARE = 0.9
"""Of those that took at least as long as one has run so far, this share ends within the answer."""


class LineTimes:
    """Owned by a worker."""

    def __init__(self) -> None:
        self._of_model: dict[str, deque[float]] = {}

    def add(self, model: str, took_s: float) -> None:
        self._of_model.setdefault(model, deque(maxlen=KEPT)).append(took_s)

    def left_s(self, model: str, done_s: float) -> float:
        """Of a line that has run `done_s`: what nine in ten of those that lasted so long still needed. Where none did,
        as long again (Lindy's law)."""
        known = self._of_model.get(model, ())
        rests_s = sorted(took_s - done_s for took_s in known if took_s > done_s)
        return rests_s[min(len(rests_s) - 1, int(SHARE * len(rests_s)))] if rests_s else done_s
