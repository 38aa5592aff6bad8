"""Several replicas on one device: each takes a seat, and its loop runs a step when the arbiter says so.

    loop of a replica:  take -> plan -> step -> release        (pass_on instead, when nothing that it has is so short)

The decision is `scheduling.device.arbiter`'s; this file only waits. All of it runs on one event loop.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

from speciate.core.arbiter import Sharer, Wish
from speciate.core.errors import InvariantError
from speciate.core.ports import Clock
from speciate.scheduling.device.arbiter import Arbiter, Grant

RETRY_S = 0.05
"""How long after nobody could run they are asked again: guards come down with time alone."""


class Seat(Protocol):
    """A replica's right to step its device."""

    @property
    def is_own(self) -> bool:
        """Whether it may step on and on; else each step is taken for itself."""
        ...

    async def take(self) -> float:
        """Wait for the device; how long the next step should take at most. 0 while there is no work: plan, and wait."""
        ...

    def release(self, seconds: float) -> None:
        """The step took so long."""
        ...

    def pass_on(self) -> None:
        """Nothing will run now."""
        ...

    def leave(self) -> None:
        """The replica stops."""
        ...


class OwnSeat:
    """Implements `Seat` where nobody else is on the device."""

    @property
    def is_own(self) -> bool:
        return True

    async def take(self) -> float:
        return float("inf")

    def release(self, seconds: float) -> None:
        del seconds

    def pass_on(self) -> None:
        pass

    def leave(self) -> None:
        pass


class SharedDevice:
    """Owns the seats of one device."""

    def __init__(self, arbiter: Arbiter, clock: Clock) -> None:
        self._arbiter = arbiter
        self._clock = clock
        self._seats: dict[str, SharedSeat] = {}
        self._holder: Grant | None = None
        self._passed: set[str] = set()
        self._retry: asyncio.TimerHandle | None = None
        self.busy_s: dict[str, float] = {}
        """Device seconds by seat."""

    def seat(
        self, name: str, sharer: Sharer, wake: Callable[[], None], allow: Callable[[float], None] = lambda _: None
    ) -> "SharedSeat":
        """`wake` makes the replica's loop come back to `take` after it passed; `allow` is told how long the step may
        be before `take` returns."""
        if name in self._seats:
            raise InvariantError(f"two seats are called {name} on one device")
        seat = self._seats[name] = SharedSeat(self, name, sharer, wake, allow)
        self.busy_s[name] = 0.0
        return seat

    def leave(self, name: str) -> None:
        """A replica stopped; whoever waits is asked again."""
        seat = self._seats.pop(name, None)
        if seat is not None and seat.is_waiting:
            seat.give(0.0)
        if self._holder is not None and self._holder.name == name:
            self._holder = None
        self._ask()

    def _ask(self) -> None:
        """Give the free device to whom the arbiter chooses. One who has work but is not here yet is waited for."""
        if self._holder is not None:
            return
        now_s = self._clock.now_s()
        wishes = {name: seat.sharer.wish(now_s) for name, seat in self._seats.items()}
        grant = self._arbiter.choose(wishes, self._passed)
        if grant is not None and self._seats[grant.name].is_waiting:
            self._holder = grant
            self._seats[grant.name].give(grant.within_s)
        elif grant is None and any(wish.claims for wish in wishes.values()):
            self._ask_again_later()
        self._dismiss(wishes)

    def _dismiss(self, wishes: dict[str, Wish]) -> None:
        """Who waits and has no work any more goes back to wait for some."""
        for name, wish in wishes.items():
            if not wish.claims and self._seats[name].is_waiting:
                self._seats[name].give(0.0)

    def _end(self, name: str, seconds: float) -> None:
        if self._holder is None or self._holder.name != name:
            return
        self._arbiter.charge(self._holder, seconds)
        self.busy_s[name] += seconds
        self._holder = None
        self._come_back()
        self._ask()

    def _pass(self, name: str) -> None:
        if self._holder is None or self._holder.name != name:
            return
        self._holder = None
        self._passed.add(name)
        self._ask()

    def _come_back(self) -> None:
        """Things changed: who passed may look again."""
        passed, self._passed = self._passed, set()
        for name in passed:
            if name in self._seats:
                self._seats[name].wake()

    def _ask_again_later(self) -> None:
        if self._retry is None:
            self._retry = asyncio.get_running_loop().call_later(RETRY_S, self._try_again)

    def _try_again(self) -> None:
        self._retry = None
        self._come_back()
        self._ask()


class SharedSeat:
    """Implements `Seat` by the arbiter's word. Owned by one replica's loop."""

    def __init__(
        self,
        device: SharedDevice,
        name: str,
        sharer: Sharer,
        wake: Callable[[], None],
        allow: Callable[[float], None],
    ) -> None:
        self._device = device
        self._allow = allow
        self._name = name
        self._turn: asyncio.Future[float] | None = None
        self.sharer = sharer
        self.wake = wake

    @property
    def is_waiting(self) -> bool:
        return self._turn is not None and not self._turn.done()

    @property
    def is_own(self) -> bool:
        return False

    def give(self, within_s: float) -> None:
        if self._turn is not None:
            self._allow(within_s)
            self._turn.set_result(within_s)

    async def take(self) -> float:
        self._device._passed.discard(self._name)
        self._turn = asyncio.get_running_loop().create_future()
        self._device._ask()
        try:
            return await self._turn
        finally:
            self._turn = None

    def release(self, seconds: float) -> None:
        self._device._end(self._name, seconds)

    def pass_on(self) -> None:
        self._device._pass(self._name)

    def leave(self) -> None:
        self._device.leave(self._name)
