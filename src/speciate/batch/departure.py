"""Hears from a metadata service that this machine will be taken away, and says so to whom it concerns."""

import asyncio
import logging
import time
from collections.abc import Callable

from speciate.core.errors import SignalUnavailable
from speciate.core.ports import NoticeSource

log = logging.getLogger(__name__)


class Departure:
    """`start` on the event loop, `stop` once. `on_notice` gets the seconds that are left, as often as there is news."""

    def __init__(self, source: NoticeSource | None, poll_s: float, on_notice: Callable[[float], None]) -> None:
        self._source = source
        self._poll_s = poll_s
        self._on_notice = on_notice
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self._source is not None:
            self._task = asyncio.create_task(self._poll(self._source))

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _poll(self, source: NoticeSource) -> None:
        """Until the service says when; its failures are told once."""
        was_away = False
        while True:
            try:
                goes_at_s = await asyncio.to_thread(source.goes_at_s)
                was_away = False
            except SignalUnavailable as error:
                goes_at_s = None
                if not was_away:
                    log.warning("nobody says whether this machine goes: %s", error)
                was_away = True
            if goes_at_s is not None:
                self._on_notice(max(0.0, goes_at_s - time.time()))
                return
            await asyncio.sleep(self._poll_s)
