"""Several submissions read as one: in turn for a stream, all at once for a whole answer."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from msgspec import Struct

from speciate.core.output import Finish, OutputEvent, Whole
from speciate.runtime.gateway import Submission


class ChoiceEvent(Struct, frozen=True, gc=False):
    """An event of one of the choices."""

    index: int
    event: OutputEvent


async def whole_answers(submissions: Sequence[Submission]) -> list[Whole]:
    """All sequences to their end. If one fails, the others are cancelled and its error is raised."""
    if len(submissions) == 1:
        return [await submissions[0].whole()]
    tasks = [asyncio.create_task(s.whole()) for s in submissions]
    try:
        return await asyncio.gather(*tasks)
    finally:
        await _end_all(tasks)


async def choice_events(submissions: Sequence[Submission]) -> AsyncGenerator[ChoiceEvent, None]:
    """Events of all choices as they come. Closing it cancels all; one that fails ends all."""
    if len(submissions) == 1:
        async with aclosing(submissions[0].events()) as events:
            async for event in events:
                yield ChoiceEvent(0, event)
        return
    async with aclosing(_merged(submissions)) as merged:
        async for choice_event in merged:
            yield choice_event


async def _merged(submissions: Sequence[Submission]) -> AsyncGenerator[ChoiceEvent, None]:
    """One pump a submission; a pump waits while the queue is full, and its submission merges deltas meanwhile."""
    queue: asyncio.Queue[ChoiceEvent | BaseException] = asyncio.Queue(maxsize=len(submissions))
    pumps = [asyncio.create_task(_pump(i, s, queue)) for i, s in enumerate(submissions)]
    num_open = len(submissions)
    try:
        while num_open:
            item = await queue.get()
            if isinstance(item, BaseException):
                raise item
            num_open -= isinstance(item.event, Finish)
            yield item
    finally:
        await _end_all(pumps)


async def _pump(index: int, submission: Submission, queue: "asyncio.Queue[ChoiceEvent | BaseException]") -> None:
    try:
        async with aclosing(submission.events()) as events:
            async for event in events:
                await queue.put(ChoiceEvent(index, event))
    except Exception as error:  # noqa: BLE001 -- the boundary of a task: the reader of the queue raises it
        await queue.put(error)


async def _end_all(tasks: Sequence["asyncio.Task[object]"]) -> None:
    """Cancel what still runs and wait until it is over, so that nothing outlives its request."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.exception()
