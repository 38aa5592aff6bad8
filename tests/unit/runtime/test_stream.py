import asyncio
from contextlib import aclosing

import pytest

from speciate.core.errors import EngineFailed
from speciate.core.output import Delta, Finish, FinishReason, OutputEvent, Timeline, Usage, Whole
from speciate.core.segment import Tier
from speciate.runtime.stream import OutputMailbox

FINISH = Finish(FinishReason.STOP, Usage(1, 2), Timeline(0, 0, 0, 0), Tier.INTERACTIVE)


async def _all(mailbox: OutputMailbox) -> list[OutputEvent]:
    async with aclosing(mailbox.events()) as events:
        return [event async for event in events]


async def test_deltas_merge_while_the_reader_is_away() -> None:
    mailbox = OutputMailbox()
    mailbox.put(Delta("a", (1,)))
    mailbox.put(Delta("b", (2,)))
    mailbox.finish(FINISH)
    assert await _all(mailbox) == [Delta("ab", (1, 2)), FINISH]


async def test_a_waiting_reader_gets_each_delta_as_it_comes() -> None:
    mailbox = OutputMailbox()
    reader = asyncio.create_task(_all(mailbox))
    for text in "abc":
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        mailbox.put(Delta(text))
    await asyncio.sleep(0)
    mailbox.finish(FINISH)
    events = await reader
    assert "".join(e.text for e in events if isinstance(e, Delta)) == "abc"
    assert len(events) == 4


async def test_who_wants_the_whole_is_woken_once() -> None:
    mailbox = OutputMailbox()
    reader = asyncio.create_task(mailbox.whole())
    await asyncio.sleep(0)
    for text in "abc":
        mailbox.put(Delta(text, (ord(text),)))
        assert mailbox._bell.is_awaited
    mailbox.finish(FINISH)
    assert await reader == Whole("abc", (97, 98, 99), (), FINISH)


async def test_who_wants_the_whole_gets_the_error() -> None:
    mailbox = OutputMailbox()
    mailbox.put(Delta("a"))
    mailbox.finish(EngineFailed("lost"))
    with pytest.raises(EngineFailed, match="lost"):
        await mailbox.whole()


async def test_an_error_is_raised_after_what_came_before_it() -> None:
    mailbox = OutputMailbox()
    mailbox.put(Delta("a"))
    mailbox.finish(EngineFailed("lost"))
    mailbox.finish(FINISH)
    async with aclosing(mailbox.events()) as events:
        assert await anext(events) == Delta("a")
        with pytest.raises(EngineFailed, match="lost"):
            await anext(events)
