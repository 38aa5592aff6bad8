"""Small protocols that drivers plug into."""

from typing import Protocol


class Clock(Protocol):
    """Monotonic seconds; only drivers read it."""

    def now_s(self) -> float: ...


class PriceSignal(Protocol):
    """What a machine-hour costs, and is expected to cost."""

    def usd_per_h(self, market: str, at_s: float) -> float | None:
        """None where nobody knows: for a market that is not listed, or a time that is not foretold."""
        ...


class AvailabilitySignal(Protocol):
    """Whether machines can be had."""

    def num_machines(self, market: str, at_s: float) -> int | None:
        """How many could be held at once; None where nobody knows."""
        ...


class CarbonSignal(Protocol):
    """How dirty the grid is."""

    def gco2_per_kwh(self, region: str, at_s: float) -> float | None: ...


class NoticeSource(Protocol):
    """Who says that this machine will be taken away."""

    def goes_at_s(self) -> float | None:
        """Unix seconds; None while nobody says so. Raises SignalUnavailable."""
        ...
