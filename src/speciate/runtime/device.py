"""One device, one worker thread: steps of all engines on it run one at a time, the most urgent waiter first.

Knows nothing of models or requests; a step cannot be interrupted, so whoever asks must ask for bounded ones. A thread
of our own and not an executor, which would double what the two hops between threads cost.
"""

import asyncio
import heapq
import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class _Job:
    run: Callable[[], Any]
    outcome: "asyncio.Future[Any]"
    loop: asyncio.AbstractEventLoop


class Device:
    """Owns the worker thread, which starts with the first step. Not thread-safe: used from one event loop."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._is_busy = False
        self._waiting: list[tuple[int, int, _Job]] = []
        self._tickets = itertools.count()

    def submit(self, rank: int, step: Callable[[], T]) -> "asyncio.Future[T]":
        """Run `step` on the worker thread: at once if the device is free, else by lower `rank`, then first come."""
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[T] = loop.create_future()
        job = _Job(step, outcome, loop)
        if self._is_busy:
            heapq.heappush(self._waiting, (rank, next(self._tickets), job))
        else:
            self._is_busy = True
            self._start(job)
        return outcome

    async def close(self) -> None:
        """Wait for the running step and end the thread."""
        self._jobs.put(None)
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    def _start(self, job: _Job) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=f"device-{self.name}", daemon=True)
            self._thread.start()
        self._jobs.put(job)

    def _work(self) -> None:
        """Runs on the worker thread."""
        while (job := self._jobs.get()) is not None:
            try:
                result, error = job.run(), None
            except BaseException as raised:  # noqa: BLE001 -- the boundary of the thread: the waiter raises it
                result, error = None, raised
            job.loop.call_soon_threadsafe(self._finish, job.outcome, result, error)
            del job, result, error

    def _finish(self, outcome: "asyncio.Future[Any]", result: Any, error: BaseException | None) -> None:
        if not outcome.cancelled():
            if error is not None:
                outcome.set_exception(error)
            else:
                outcome.set_result(result)
        self._start_next()

    def _start_next(self) -> None:
        while self._waiting:
            job = heapq.heappop(self._waiting)[2]
            if not job.outcome.cancelled():
                self._start(job)
                return
        self._is_busy = False
