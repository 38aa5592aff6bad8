"""One device, one worker thread: turns of all engines on it run one at a time, the most urgent waiter first.

Knows nothing of models or requests; a turn cannot be interrupted, so whoever asks must ask for bounded ones. A thread
of our own and not an executor, which would double what the two hops between threads cost.

    submit(rank, step)     one step; its result comes back to the event loop as a future
    run(turn)              a turn that may name the turn to follow it: a replica's steps, without a hop in between

Who waits goes before what follows: a replica that always has a next turn shares the device with everybody else's.
"""

import asyncio
import heapq
import itertools
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from msgspec import Struct

T = TypeVar("T")


class Turn(Struct, frozen=True):
    """What to run on the device's thread, and how urgent it is (lower ranks first). `run` gives the turn to follow, or
    None, and must not raise."""

    rank: int
    run: "Callable[[], Turn | None]"


class Device:
    """Owns the worker thread, which starts with the first turn. `submit`, `run` and `close` belong to the event loop;
    the queue between it and the worker is guarded by a condition, held for a push or a pop."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._thread: threading.Thread | None = None
        self._changed = threading.Condition()
        self._waiting: list[tuple[int, int, Turn]] = []
        self._tickets = itertools.count()
        self._is_closing = False

    def submit(self, rank: int, step: Callable[[], T]) -> "asyncio.Future[T]":
        """Run `step` on the worker thread: at once if the device is free, else by lower `rank`, then first come."""
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[T] = loop.create_future()

        def run() -> None:
            if outcome.cancelled():
                return
            try:
                result = step()
            except BaseException as error:  # noqa: BLE001 -- the boundary of the thread: the waiter raises it
                loop.call_soon_threadsafe(_fail, outcome, error)
            else:
                loop.call_soon_threadsafe(_finish, outcome, result)

        self.run(Turn(rank, run))
        return outcome

    def run(self, turn: Turn) -> None:
        """Queue a turn, and after it whatever it names, until one names nothing."""
        with self._changed:
            self._push(turn)
            self._changed.notify()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=f"device-{self.name}", daemon=True)
            self._thread.start()

    async def close(self) -> None:
        """Wait for the running turn and end the thread; what waits never runs."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    # ---- on the worker thread --------------------------------------------------------------------------------------

    def _work(self) -> None:
        turn = self._next(None)
        while turn is not None:
            turn = self._next(turn.run())

    def _next(self, following: Turn | None) -> Turn | None:
        """The most urgent waiter, then `following`; blocks while there is neither. None: the device closes."""
        with self._changed:
            while following is None and not self._waiting and not self._is_closing:
                self._changed.wait()
            if self._is_closing:
                return None
            if not self._waiting:
                return following
            turn = heapq.heappop(self._waiting)[2]
            if following is not None:
                self._push(following)
            return turn

    def _push(self, turn: Turn) -> None:
        heapq.heappush(self._waiting, (turn.rank, next(self._tickets), turn))


def _finish(outcome: "asyncio.Future[Any]", result: Any) -> None:
    if not outcome.cancelled():
        outcome.set_result(result)


def _fail(outcome: "asyncio.Future[Any]", error: BaseException) -> None:
    if not outcome.cancelled():
        outcome.set_exception(error)
