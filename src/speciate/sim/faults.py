"""What goes wrong in a simulated world: noisy and shifted step times, clients that leave, clocks that jump. Seeded."""

import random

from msgspec import Struct

from speciate.sim.workload import SimRequest


class Shift(Struct, frozen=True):
    """Steps take `factor` times as long between two moments: a neighbour, a throttled clock."""

    from_s: float
    factor: float
    until_s: float = float("inf")


class ClockJump(Struct, frozen=True):
    """From then on the replica's clock shows `by_s` more; true time, in which promises are judged, goes on."""

    at_s: float
    by_s: float


class Faults(Struct, frozen=True):
    """All of a run's faults; none by default."""

    noise: float = 0.0
    """Standard deviation of the logarithm of a step's duration around the calibration."""
    shifts: tuple[Shift, ...] = ()
    disconnect_share: float = 0.0
    """Share of the requests whose client leaves before the end."""
    disconnect_after_s: float = 2.0
    """Mean patience of those (exponential)."""
    jumps: tuple[ClockJump, ...] = ()

    @property
    def are_steps_exact(self) -> bool:
        return self.noise == 0 and not self.shifts and not self.jumps


class Patience:
    """Draws which clients leave when. One draw a request, so that policies see equal clients."""

    def __init__(self, faults: Faults, seed: int) -> None:
        self._faults = faults
        self._random = random.Random(f"patience {seed}")

    def leaves_at_s(self, request: SimRequest) -> float | None:
        faults = self._faults
        if not faults.disconnect_share or self._random.random() >= faults.disconnect_share:
            return None
        return request.at_s + self._random.expovariate(1 / faults.disconnect_after_s)
