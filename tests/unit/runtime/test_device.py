import asyncio
import threading

import pytest

from speciate.runtime.device import Device, Turn


async def test_steps_run_one_at_a_time_most_urgent_waiter_first() -> None:
    device = Device("test")
    gate, order = threading.Event(), []
    first = device.submit(2, lambda: gate.wait(5))
    waiting = [device.submit(rank, lambda rank=rank: order.append(rank)) for rank in (2, 1, 0, 1)]
    gate.set()
    await asyncio.gather(first, *waiting)
    assert order == [0, 1, 1, 2]
    await device.close()


async def test_a_cancelled_waiter_never_runs_and_blocks_nobody() -> None:
    device = Device("test")
    gate, ran = threading.Event(), []
    first = device.submit(0, lambda: gate.wait(5))
    gone = device.submit(0, lambda: ran.append("gone"))
    stays = device.submit(1, lambda: ran.append("stays"))
    gone.cancel()
    gate.set()
    await asyncio.gather(first, stays)
    assert ran == ["stays"]
    await device.close()


async def test_an_error_reaches_its_own_waiter_only() -> None:
    device = Device("test")

    def fail() -> None:
        raise ValueError("boom")

    failed, fine = device.submit(0, fail), device.submit(0, lambda: 7)
    with pytest.raises(ValueError, match="boom"):
        await failed
    assert await fine == 7
    await device.close()


async def test_turns_follow_each_other_and_let_others_in_between() -> None:
    device, order, done = Device("test"), [], asyncio.Event()
    loop, gate = asyncio.get_running_loop(), threading.Event()

    def turn(number: int) -> Turn:
        def run() -> Turn | None:
            gate.wait(5)
            order.append(number)
            if number < 4:
                return turn(number + 1)
            loop.call_soon_threadsafe(done.set)
            return None

        return Turn(0, run)

    device.run(turn(1))
    others = [device.submit(2, lambda name=name: order.append(name)) for name in ("a", "b")]
    gate.set()
    await asyncio.gather(done.wait(), *others)
    assert order == [1, "a", 2, "b", 3, 4], "who always has a next turn must not shut out less urgent ones"
    await device.close()


async def test_a_closed_device_runs_nothing_more() -> None:
    device, gate, ran = Device("test"), threading.Event(), []
    first = device.submit(0, lambda: gate.wait(5))
    later = device.submit(0, lambda: ran.append("later"))
    closing = asyncio.create_task(device.close())
    await asyncio.sleep(0.01)
    gate.set()
    await asyncio.gather(closing, first)
    assert not ran
    assert not later.done()
