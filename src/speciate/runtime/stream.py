"""The mailbox between a replica and one reader. A slow reader costs memory of its own output only: deltas merge.

A reader that wants everything at the end is woken at the end: with a hundred of them, waking each for each token took
the event loop longer than handing the tokens out.
"""

import asyncio
from collections.abc import AsyncGenerator

from speciate.core.errors import SpeciateError
from speciate.core.output import Delta, Finish, OutputEvent


class OutputMailbox:
    """One producer (the replica), one consumer. Bounded by the sequence's own max_tokens."""

    def __init__(self, is_streamed: bool = True) -> None:
        self._is_streamed = is_streamed
        self._deltas: list[Delta] = []
        self._end: Finish | SpeciateError | None = None
        self._reader: asyncio.Future[None] | None = None

    def put(self, delta: Delta) -> None:
        self._deltas.append(delta)
        if self._is_streamed:
            self._wake()

    def finish(self, end: Finish | SpeciateError) -> None:
        """The last event: a finish, or the error that the reader's stream raises. Later ones are ignored."""
        if self._end is None:
            self._end = end
            self._wake()

    async def events(self) -> AsyncGenerator[OutputEvent, None]:
        """Deltas (merged while the reader was away), then one Finish. Raises the error it ended with."""
        while True:
            if self._deltas and (self._is_streamed or self._end is not None):
                yield self._take()
            elif self._end is not None:
                break
            else:
                await self._wait()
        if isinstance(self._end, SpeciateError):
            raise self._end
        yield self._end

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
