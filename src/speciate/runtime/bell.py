"""Wakes the one reader of a mailbox. Producer and reader are on the same event loop."""

import asyncio


class Bell:
    """`ring` wakes who waits now; nobody waiting, nothing is kept: look at the mailbox before you wait."""

    def __init__(self) -> None:
        self._reader: asyncio.Future[None] | None = None

    @property
    def is_awaited(self) -> bool:
        """Whether a reader waits whom no ring has woken."""
        return self._reader is not None and not self._reader.done()

    async def wait(self) -> None:
        """Until the next ring. One reader at a time."""
        self._reader = asyncio.get_running_loop().create_future()
        try:
            await self._reader
        finally:
            self._reader = None

    def ring(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)
