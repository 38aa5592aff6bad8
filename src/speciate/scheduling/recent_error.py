"""The mean error of the last predictions: what operators see, and nothing that decides."""

from collections import deque

WINDOW = 500
"""Steps."""


class RecentError:
    """Mean absolute error, relative to what was observed, over about the last 500 steps."""

    def __init__(self) -> None:
        self._recent: deque[tuple[float, int]] = deque()
        self._sum = 0.0
        self._num = 0

    def add(self, observed_s: float, predicted_s: float, num_steps: int = 1) -> None:
        """One observation that stands for `num_steps` steps like it."""
        error = abs(1.0 - predicted_s / observed_s)
        self._recent.append((error, num_steps))
        self._sum += error * num_steps
        self._num += num_steps
        while self._num - self._recent[0][1] >= WINDOW:
            old, num_old = self._recent.popleft()
            self._sum -= old * num_old
            self._num -= num_old

    @property
    def mean(self) -> float:
        """0 before anything was observed."""
        return max(0.0, self._sum / self._num) if self._num else 0.0
