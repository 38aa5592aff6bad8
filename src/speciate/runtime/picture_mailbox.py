"""The mailbox between a replica and the reader of one picture. Of progress only the newest is kept."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator

from speciate.core.errors import SpeciateError
from speciate.core.picture import Painted, PictureEvent, PictureFinish, Preview, Progress


class PictureMailbox:
    """One producer (the replica), one consumer. Bounded: by the previews asked for and the picture itself."""

    def __init__(self) -> None:
        self._pictures: deque[Preview | Painted] = deque()
        self._progress: Progress | None = None
        self._end: PictureFinish | SpeciateError | None = None
        self._reader: asyncio.Future[None] | None = None

    def put(self, event: Preview | Painted | Progress) -> None:
        if isinstance(event, Progress):
            self._progress = event
        else:
            self._pictures.append(event)
        self._wake()

    def finish(self, end: PictureFinish | SpeciateError) -> None:
        """The last event: a finish, or the error that the reader's stream raises. Later ones are ignored."""
        if self._end is None:
            self._end = end
            self._wake()

    async def events(self) -> AsyncGenerator[PictureEvent, None]:
        """Progress and pictures as they come, then one finish. Raises the error it ended with."""
        while True:
            if self._progress is not None:
                progress, self._progress = self._progress, None
                yield progress
            elif self._pictures:
                yield self._pictures.popleft()
            elif self._end is not None:
                break
            else:
                await self._wait()
        if isinstance(self._end, SpeciateError):
            raise self._end
        yield self._end

    async def _wait(self) -> None:
        self._reader = asyncio.get_running_loop().create_future()
        try:
            await self._reader
        finally:
            self._reader = None

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)
