"""Small protocols that drivers plug into."""

from typing import Protocol


class Clock(Protocol):
    """Monotonic seconds; only drivers read it."""

    def now_s(self) -> float: ...
