"""What a line costs: lines that run side by side share each moment of their machine equally.

    price     1 USD/h ............................
    running   A    A+B      B         line A bears  t1 + t2/2,  line B  t2/2 + t3
              t1   t2       t3

So the lines' costs add up to what the machine cost while any of them ran. Energy likewise, from the processor's own
counter: it counts whatever else ran there too.
"""

import time
from collections.abc import Callable
from typing import Protocol

from msgspec import Struct

from speciate.scaling.market import SECONDS_PER_HOUR

READ_S = 0.25
"""The energy counter is read, and the price asked for, at most so often."""


class EnergyCounter(Protocol):
    """Joules that this machine has used."""

    def read_j(self) -> float:
        """Never falls. Raises OSError."""
        ...


class Cost(Struct, frozen=True, gc=False):
    """Of one line, or of all so far; None is what is not known here."""

    usd: float | None
    energy_j: float | None


class Meter:
    """`begin` when a line starts, `end` with what that gave when it is over."""

    def __init__(
        self,
        usd_per_h: Callable[[], float | None],
        energy: EnergyCounter | None,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._price_of_now = usd_per_h
        self._energy = energy
        self._now_s = now_s
        self._num_running = 0
        self._at_s = self._read_s = now_s()
        self._usd_per_s = _per_second(usd_per_h())
        self._watts: float | None = None
        self._last_j = self._counted_j()
        self._usd = 0.0
        self._energy_j = 0.0

    def begin(self) -> Cost:
        self._go_on()
        self._num_running += 1
        return self._so_far()

    def end(self, begun: Cost) -> Cost:
        self._go_on()
        self._num_running -= 1
        now = self._so_far()
        return Cost(_less(now.usd, begun.usd), _less(now.energy_j, begun.energy_j))

    def _so_far(self) -> Cost:
        return Cost(
            None if self._usd_per_s is None else self._usd,
            None if self._watts is None else self._energy_j,
        )

    def _go_on(self) -> None:
        """Count the time since the last change, at the price and power that held in it."""
        now_s = self._now_s()
        if now_s - self._read_s >= READ_S:
            self._read(now_s)
        if self._num_running:
            share_s = (now_s - self._at_s) / self._num_running
            self._usd += (self._usd_per_s or 0.0) * share_s
            self._energy_j += (self._watts or 0.0) * share_s
        self._at_s = now_s

    def _read(self, now_s: float) -> None:
        self._usd_per_s = _per_second(self._price_of_now())
        used_j, since_s = self._counted_j(), now_s - self._read_s
        if used_j is not None and self._last_j is not None:
            self._watts = (used_j - self._last_j) / since_s
        self._last_j, self._read_s = used_j, now_s

    def _counted_j(self) -> float | None:
        try:
            return None if self._energy is None else self._energy.read_j()
        except OSError:
            return None


def _per_second(usd_per_h: float | None) -> float | None:
    return None if usd_per_h is None else usd_per_h / SECONDS_PER_HOUR


def _less(now: float | None, before: float | None) -> float | None:
    return None if now is None or before is None else now - before
