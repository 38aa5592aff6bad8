"""The mailbox between a replica and one reader. A slow reader costs memory of its own output only: deltas merge."""

import asyncio
from collections.abc import AsyncGenerator

from speciate.core.errors import SpeciateError
from speciate.core.output import Delta, Finish, OutputEvent, Whole


class OutputMailbox:
    """One producer (the replica), one consumer. Bounded by the sequence's own max_tokens."""

    def __init__(self) -> None:
        self._deltas: list[Delta] = []
        self._end: Finish | SpeciateError | None = None
        self._reader: asyncio.Future[None] | None = None
        self._waits_for_end = False

    def put(self, delta: Delta) -> None:
        self._deltas.append(delta)
        if not self._waits_for_end:
            self._wake()

    def finish(self, end: Finish | SpeciateError) -> None:
        """The last event: a finish, or the error that the reader's stream raises. Later ones are ignored."""
        if self._end is None:
            self._end = end
            self._wake()

    async def events(self) -> AsyncGenerator[OutputEvent, None]:
        """Deltas (merged while the reader was away), then one Finish. Raises the error it ended with."""
        while True:
            if self._deltas:
                yield self._take()
            elif self._end is not None:
                break
            else:
                await self._wait()
        if isinstance(self._end, SpeciateError):
            raise self._end
        yield self._end

    async def whole(self) -> Whole:
        """Everything, once it is over: the reader is woken once, however many tokens come. Raises as `events`."""
        self._waits_for_end = True
        while self._end is None:
            await self._wait()
        if isinstance(self._end, SpeciateError):
            raise self._end
        all_of_it = self._take()
        return Whole(all_of_it.text, all_of_it.token_ids, all_of_it.logprobs, self._end)

    def _take(self) -> Delta:
        deltas, self._deltas = self._deltas, []
        if len(deltas) == 1:
            return deltas[0]
        return Delta(
            text="".join(d.text for d in deltas),
            token_ids=tuple(t for d in deltas for t in d.token_ids),
            logprobs=tuple(p for d in deltas for p in d.logprobs),
        )

    async def _wait(self) -> None:
        self._reader = asyncio.get_running_loop().create_future()
        try:
            await self._reader
        finally:
            self._reader = None

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)
