"""One device, one worker thread: steps of all engines on it run one at a time, the most urgent waiter first.

Knows nothing of models or requests; a step cannot be interrupted, so whoever asks must ask for bounded ones.
"""

import asyncio
import heapq
import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class Device:
    """Owns the worker thread. Not thread-safe: used from one event loop."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"device-{name}")
        self._is_busy = False
        self._waiting: list[tuple[int, int, Callable[[], None]]] = []
        self._tickets = itertools.count()

    def submit(self, rank: int, step: Callable[[], T]) -> asyncio.Future[T]:
        """Run `step` on the worker thread: at once if the device is free, else by lower `rank`, then first come."""
        outcome: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def start() -> None:
            if outcome.cancelled():
                self._start_next()
                return
            running = asyncio.get_running_loop().run_in_executor(self._executor, step)
            running.add_done_callback(lambda done: self._finish(done, outcome))

        if self._is_busy:
            heapq.heappush(self._waiting, (rank, next(self._tickets), start))
        else:
            self._is_busy = True
            start()
        return outcome

    async def close(self) -> None:
        """Wait for the running step and end the thread."""
        await asyncio.to_thread(self._executor.shutdown)

    def _finish(self, done: "asyncio.Future[T]", outcome: "asyncio.Future[T]") -> None:
        error = done.exception()
        if not outcome.cancelled():
            if error is not None:
                outcome.set_exception(error)
            else:
                outcome.set_result(done.result())
        self._start_next()

    def _start_next(self) -> None:
        if self._waiting:
            heapq.heappop(self._waiting)[2]()
        else:
            self._is_busy = False
