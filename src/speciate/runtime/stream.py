"""The mailbox between a replica and one reader. A slow reader costs memory of its own output only: deltas merge."""

from collections.abc import AsyncGenerator

from speciate.core.errors import SpeciateError
from speciate.core.output import Delta, Finish, OutputEvent, Whole
from speciate.runtime.bell import Bell


class OutputMailbox:
    """One producer (the replica), one consumer. Bounded by the sequence's own max_tokens."""

    def __init__(self) -> None:
        self._deltas: list[Delta] = []
        self._end: Finish | SpeciateError | None = None
        self._bell = Bell()
        self._waits_for_end = False

    def put(self, delta: Delta) -> None:
        self._deltas.append(delta)
        if not self._waits_for_end:
            self._bell.ring()

    def finish(self, end: Finish | SpeciateError) -> None:
        """The last event: a finish, or the error that the reader's stream raises. Later ones are ignored."""
        if self._end is None:
            self._end = end
            self._bell.ring()

    async def events(self) -> AsyncGenerator[OutputEvent, None]:
        """Deltas (merged while the reader was away), then one Finish. Raises the error it ended with."""
        while True:
            if self._deltas:
                yield self._take()
            elif self._end is not None:
                break
            else:
                await self._bell.wait()
        if isinstance(self._end, SpeciateError):
            raise self._end
        yield self._end

    async def whole(self) -> Whole:
        """Everything, once it is over: the reader is woken once, however many tokens come. Raises as `events`."""
        self._waits_for_end = True
        while self._end is None:
            await self._bell.wait()
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
