"""Empties a worker whose machine goes away: claims nothing new, finishes what fits in the notice, hands the rest back
at once, so that others go on with it without waiting for leases to end.
"""

import asyncio
import logging
import time
from math import inf

from speciate.batch.store import LineQueue
from speciate.batch.worker import Worker
from speciate.core.errors import StoreUnavailable
from speciate.scaling.notice import Fate, NoticeOptions, fates

log = logging.getLogger(__name__)

LOOK_S = 0.25
"""How often it is looked again whether what runs still fits."""


class Leaving:
    """Begun at the first notice; a later one may only shorten it."""

    def __init__(self, worker: Worker, store: LineQueue, options: NoticeOptions) -> None:
        self._worker = worker
        self._store = store
        self._options = options
        self._goes_s = inf
        self._task: asyncio.Task[None] | None = None

    def begin(self, notice_s: float) -> None:
        """The machine goes in so many seconds. Returns at once."""
        self._goes_s = min(self._goes_s, time.monotonic() + notice_s)
        if self._task is None:
            log.warning("this machine goes in %.0f s: no more lines are claimed", notice_s)
            self._task = asyncio.create_task(self._leave())

    async def left(self) -> None:
        """Wait until nothing is held any more, or the notice is over; at once where none was given."""
        if self._task is not None:
            await self._task

    async def _leave(self) -> None:
        try:
            await self._worker.stop_claiming()
            await self._empty()
            await self._store.announce()
        except StoreUnavailable as error:
            log.warning("lines could not be handed back: %s; their lease ends by itself", error)

    async def _empty(self) -> None:
        num_handed_back = 0
        while True:
            left_s = self._goes_s - time.monotonic()
            running = self._worker.running()
            back = {f.line_id for f in fates(running.values(), left_s, self._options) if f.fate is not Fate.FINISH}
            self._worker.hand_back(back)
            num_handed_back += len(back)
            is_empty = await self._worker.until_written(LOOK_S)
            if back:
                await self._store.announce()
            if is_empty or left_s <= 0:
                log.warning("%d lines were handed back", num_handed_back)
                return
