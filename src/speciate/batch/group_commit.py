"""One thread that commits what many ask for: whatever came while it committed goes into its next transaction."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from speciate.batch.database import Transaction
from speciate.core.errors import ShuttingDown, SpeciateError, StoreUnavailable

T = TypeVar("T")

MAX_GROUP = 64


@dataclass(slots=True)
class Pending:
    """Work that waits for its commit; `commit` sets a value, or an error of the work's own."""

    work: Callable[[Transaction], Any]
    done: "Future[Any]" = field(default_factory=Future)
    value: Any = None
    error: SpeciateError | None = None

    def settle(self) -> None:
        if self.error is not None:
            self.done.set_exception(self.error)
        else:
            self.done.set_result(self.value)


class GroupCommitter:
    """`commit` gets a group; if it raises, the whole group failed and nothing of it was kept."""

    def __init__(self, commit: Callable[[list[Pending]], None], name: str) -> None:
        self._commit = commit
        self._queue: SimpleQueue[Pending | None] = SimpleQueue()
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    async def submit(self, work: Callable[[Transaction], T]) -> T:
        if self._is_closed:
            raise ShuttingDown("The batch store is closed.")
        pending = Pending(work)
        self._queue.put(pending)
        value: T = await asyncio.wrap_future(pending.done)
        return value

    def close(self) -> None:
        """After what was submitted is committed."""
        self._is_closed = True
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            group, is_last = self._gather(first)
            self._commit_all(group)
            if is_last:
                return

    def _gather(self, first: Pending) -> tuple[list[Pending], bool]:
        group = [first]
        while len(group) < MAX_GROUP:
            try:
                pending = self._queue.get_nowait()
            except Empty:
                break
            if pending is None:
                return group, True
            group.append(pending)
        return group, False

    def _commit_all(self, group: list[Pending]) -> None:
        live = [p for p in group if p.done.set_running_or_notify_cancel()]
        try:
            self._commit(live)
        except SpeciateError as error:
            self._fail(live, error)
        except Exception as error:  # noqa: BLE001 -- the boundary of the thread: whoever waits must hear of it
            self._fail(live, StoreUnavailable(f"The batch store hit a bug: {error!r}."))
        else:
            for pending in live:
                pending.settle()

    def _fail(self, group: list[Pending], error: SpeciateError) -> None:
        for pending in group:
            pending.error = error
            pending.settle()
