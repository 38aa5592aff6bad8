"""How long a step may last so that an item that has not arrived yet can still be in time. One tier's arrivals."""

from collections import deque
from math import inf

WINDOW = 64


class PromiseGuard:
    """Remembers how much room the promises of the last arrivals left beside their own work."""

    def __init__(self, arm_s: float) -> None:
        self._arm_s = arm_s
        self._last_s = -inf
        self._rooms: deque[float] = deque(maxlen=WINDOW)
        self._least_s = inf

    def observe(self, promise_s: float, work_s: float, now_s: float) -> None:
        """An item arrived that is promised so much and needs so much, margin included."""
        self._last_s = now_s
        if promise_s == inf:
            return
        self._rooms.append(promise_s - work_s)
        self._least_s = min(self._rooms)

    def longest_step_s(self, now_s: float) -> float:
        """Infinite while unarmed, and where the promise could not be kept on an idle device either."""
        is_armed = now_s - self._last_s <= self._arm_s
        return self._least_s if is_armed and self._least_s > 0 else inf
