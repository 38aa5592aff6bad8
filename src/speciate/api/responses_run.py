"""One response being made: in front of its client, or in the background for whoever asks later."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

import msgspec

from speciate.api.responses_events import ResponseEvents
from speciate.api.responses_items import Item
from speciate.api.responses_object import Response
from speciate.api.turn import Turn
from speciate.core.errors import InvariantError, SpeciateError
from speciate.core.output import Delta, Finish

log = logging.getLogger(__name__)


class ResponseRun:
    """Owns its turn and its Response. Start it once: `whole`, `frames` or `start_in_background`."""

    def __init__(self, turn: Turn, response: Response, items: list[Item], tenant: str, num_bytes: int) -> None:
        self.turn = turn
        self.items = items
        """The whole conversation up to here."""
        self.tenant = tenant
        self.num_bytes = num_bytes
        """Of the input; what bounds the store."""
        self._events = ResponseEvents(response, turn.reader(), turn.wish.num_logprobs)
        self._recorded: list[bytes] = []
        self._grew = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def response(self) -> Response:
        return self._events.response

    @property
    def is_over(self) -> bool:
        return self.response.status not in ("queued", "in_progress")

    def conversation(self) -> list[Item]:
        """What a response that follows this one begins with."""
        output: list[Item] = msgspec.to_builtins(self.response.output)
        return [*self.items, *output]

    async def whole(self) -> Response:
        """Raises the error that it ends with."""
        (whole,) = await self.turn.wholes()
        self._events.delta(Delta(whole.text, whole.token_ids, whole.logprobs))
        self._finish(whole.finish)
        return self.response

    async def frames(self, on_end: Callable[[], None]) -> AsyncGenerator[bytes, None]:
        """For one reader. `on_end` is called before the last frame is given out. Raises the error it ends with."""
        async with aclosing(self._batches()) as batches:
            async for batch in batches:
                if self.is_over:
                    on_end()
                if batch:
                    yield b"".join(batch)

    def fail(self, error: SpeciateError) -> bytes:
        return b"".join(self._events.fail(error))

    def start_in_background(self) -> None:
        self._task = asyncio.create_task(self._record(), name=self.response.id)

    async def cancel(self) -> None:
        """Stops the work of a background run; one that is over stays as it is."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])

    async def replay(self, starting_after: int) -> AsyncGenerator[bytes, None]:
        """Events of a background run after the one of this number, as they come."""
        place = starting_after + 1
        while True:
            while place < len(self._recorded):
                place += 1
                yield self._recorded[place - 1]
            if self.is_over:
                return
            await self._grew.wait()

    async def _batches(self) -> AsyncGenerator[list[bytes], None]:
        async with aclosing(self.turn.events()) as events:
            async for choice_event in events:
                event = choice_event.event
                opening = [] if self._events.is_opened else self._events.opening()
                frames = self._finish(event) if isinstance(event, Finish) else self._events.delta(event)
                yield [*opening, *frames]

    def _finish(self, finish: Finish) -> list[bytes]:
        return self._events.finish(finish, self.turn.num_tokens)

    async def _record(self) -> None:
        try:
            self._add(self._events.opening())
            async with aclosing(self._batches()) as batches:
                async for batch in batches:
                    self._add(batch)
        except asyncio.CancelledError:
            self._events.cancel()
            self._add([])
            raise
        except SpeciateError as error:
            self._add(self._events.fail(error))
        except Exception:  # the boundary of a task: whoever retrieves the response must see that it failed
            log.exception("response %s failed", self.response.id)
            self._add(self._events.fail(InvariantError("The server has a bug; its log has the details.")))

    def _add(self, frames: list[bytes]) -> None:
        self._recorded += frames
        self._grew.set()
        self._grew = asyncio.Event()
