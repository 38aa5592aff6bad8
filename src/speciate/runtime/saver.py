"""Writes checkpoints behind the painter's back: one at a time, of each picture the newest only.

A disk that is full or slow costs no picture: what could not be saved would be computed again after a crash, and the log
says so.
"""

import asyncio
import logging
from collections.abc import Callable

from speciate.core.errors import SpeciateError
from speciate.core.picture import Checkpoints

log = logging.getLogger(__name__)


class Saver:
    """Owned by a painter; used from its event loop."""

    def __init__(self, checkpoints: Checkpoints) -> None:
        self._checkpoints = checkpoints
        self._waiting: dict[str, bytes] = {}
        self._writing: str | None = None
        self._settled: Callable[[], None] | None = None
        self._task: asyncio.Task[None] | None = None

    def put(self, request_id: str, state: bytes) -> None:
        """Keep this soon; replaces what waits for the same request."""
        self._waiting[request_id] = state
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._write(), name="saver")

    def settle(self, request_id: str, then: Callable[[], None]) -> None:
        """Call `then` when nothing of this request is written any more: at once, or after the write under way."""
        self._waiting.pop(request_id, None)
        if self._writing == request_id:
            self._settled = then
        else:
            then()

    async def close(self) -> None:
        """Write what waits."""
        if self._task is not None:
            await self._task

    async def _write(self) -> None:
        while self._waiting:
            request_id = next(iter(self._waiting))
            state = self._waiting.pop(request_id)
            self._writing = request_id
            try:
                await asyncio.to_thread(self._checkpoints.put, request_id, state)
            except SpeciateError as error:
                log.warning("the state of %s was not saved: %s", request_id, error)
            self._writing = None
            if self._settled is not None:
                settled, self._settled = self._settled, None
                settled()
