"""The image replica with the production scheduler and the fake engine, which refuses a pass out of order."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from speciate.admission.picture_limits import PictureLimits
from speciate.core.admission import Refused
from speciate.core.denoise import DenoiseShape, Stage
from speciate.core.errors import DeadlineExceeded, EngineFailed, InvalidRequest, ShuttingDown
from speciate.core.picture import Painted, PictureEvent, PictureFinish, PictureRequest, Preview, Progress
from speciate.core.segment import Segment, Slo, Tier
from speciate.costs.pass_table import PassCost, PassTable
from speciate.engines.fake_denoise import FakeDenoiseEngine, expected_picture
from speciate.runtime.clock import MonotonicClock
from speciate.runtime.device import Device
from speciate.runtime.picture_replica import PictureReplica
from speciate.runtime.running_picture import preview_passes, spec_of
from speciate.scheduling.denoise import DenoiseScheduler
from speciate.telemetry.metrics import Metrics
from speciate.telemetry.picture_metrics import PictureMetrics

SHAPE = DenoiseShape("fake", size_multiple=8, min_size=16, max_size=512, default_size=(64, 64), adapters=("ink",))
PASS_S = 0.002
TABLE = PassTable("here", tuple(PassCost("fake", stage, 16, 1, PASS_S) for stage in Stage))
PATIENT = PictureLimits()


class KeptInMemory:
    """Implements `Checkpoints`."""

    def __init__(self) -> None:
        self.states: dict[str, bytes] = {}
        self.num_puts = 0

    def put(self, request_id: str, state: bytes) -> None:
        self.num_puts += 1
        self.states[request_id] = state

    def get(self, request_id: str) -> bytes | None:
        return self.states.get(request_id)

    def forget(self, request_id: str) -> None:
        self.states.pop(request_id, None)


class FullDisk(KeptInMemory):
    def put(self, request_id: str, state: bytes) -> None:
        raise OSError(28, "No space left on device")


@asynccontextmanager
async def running(
    engine: FakeDenoiseEngine | None = None, checkpoints: KeptInMemory | None = None
) -> AsyncIterator[PictureReplica]:
    device = Device("test")
    made = engine or FakeDenoiseEngine(SHAPE, TABLE)
    metrics = PictureMetrics(Metrics(), "fake")
    replica = PictureReplica(made, DenoiseScheduler(TABLE), device, MonotonicClock(), metrics, checkpoints)
    replica.start()
    yield replica
    await replica.stop()
    replica.check()
    await device.close()


def request_of(
    number: int = 1, tier: Tier = Tier.INTERACTIVE, e2e_s: float | None = 60.0, **more: Any
) -> PictureRequest:
    fields = {"num_steps": 6, "seed": number, "arrival_s": MonotonicClock().now_s(), **more}
    segment = Segment(f"image-{tier.value}", tier, Slo(e2e_s=e2e_s), "image")
    return PictureRequest(f"r{number}", "fake", f"prompt {number}", 64, 64, segment=segment, **fields)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 -- what is awaited happens on the device's thread too
            await asyncio.sleep(0.001)


async def events_of(replica: PictureReplica, request: PictureRequest, state: bytes | None = None) -> list[PictureEvent]:
    return [event async for event in replica.paint(request, state)]


async def test_a_picture_comes_with_progress_and_one_finish() -> None:
    async with running() as replica:
        request = request_of(num_previews=2)
        *before, painted, finish = await events_of(replica, request)
    assert isinstance(painted, Painted)
    assert painted.picture.rgb == expected_picture(SHAPE, spec_of(0, request)).rgb
    assert isinstance(finish, PictureFinish)
    assert finish.passes == 6
    assert finish.timeline.arrival_s <= finish.timeline.scheduled_s <= finish.timeline.finished_s
    previews = [event for event in before if isinstance(event, Preview)]
    assert [preview.index for preview in previews] == [0, 1]
    assert all(preview.picture.is_preview for preview in previews)
    passes = [event.passes_done for event in before if isinstance(event, Progress)]
    assert passes == sorted(passes)


def test_previews_are_spread_over_the_passes() -> None:
    assert preview_passes(3, 20) == (5, 10, 15)
    assert preview_passes(3, 2) == (1,)
    assert preview_passes(1, 1) == ()
    assert preview_passes(0, 50) == ()


async def test_many_pictures_share_the_device_and_each_is_its_own() -> None:
    async with running() as replica:
        requests = [request_of(n, num_steps=2 + n % 5) for n in range(1, 13)]
        drawn = await asyncio.gather(*(events_of(replica, request) for request in requests))
    for request, events in zip(requests, drawn, strict=True):
        (painted,) = [event for event in events if isinstance(event, Painted)]
        assert painted.picture.rgb == expected_picture(SHAPE, spec_of(0, request)).rgb


async def test_who_leaves_is_let_go() -> None:
    engine = FakeDenoiseEngine(SHAPE, TABLE)
    async with running(engine) as replica:
        async with aclosing(replica.paint(request_of(num_steps=1000))) as events:
            await anext(events)
        assert replica.load().pending == ()
        await events_of(replica, request_of(2))
        await until(lambda: not engine._items)
    assert sum(plan.stage is Stage.PASS for plan in engine.plans) < 500


async def test_a_submission_that_nobody_reads_is_let_go_too() -> None:
    engine = FakeDenoiseEngine(SHAPE, TABLE)
    async with running(engine) as replica:
        opened = await replica.submit(request_of(num_steps=1000), PATIENT)
        assert not isinstance(opened, Refused)
        await opened.aclose()
        assert replica.load().pending == ()


async def test_one_bad_picture_ends_alone() -> None:
    engine = FakeDenoiseEngine(SHAPE, TABLE)
    async with running(engine) as replica:
        good = asyncio.create_task(events_of(replica, request_of(2, num_steps=50)))
        bad = asyncio.create_task(events_of(replica, request_of(1, num_steps=200)))
        await until(lambda: len(engine._items) == 2)
        engine.spoil = {item_id for item_id, item in engine._items.items() if item.spec.prompt == "prompt 1"}
        with pytest.raises(EngineFailed, match="NaN"):
            await bad
        assert isinstance((await good)[-1], PictureFinish)


async def test_a_lost_step_fails_who_was_in_it_and_the_replica_goes_on() -> None:
    engine = FakeDenoiseEngine(SHAPE, TABLE)
    async with running(engine) as replica:
        engine.fail_next_step = True
        with pytest.raises(EngineFailed, match="told to fail"):
            await events_of(replica, request_of(1))
        assert replica.is_healthy
        await events_of(replica, request_of(2))


async def test_requests_that_cannot_be_drawn_are_refused_at_once() -> None:
    async with running() as replica:
        with pytest.raises(InvalidRequest, match="width is 63"):
            await events_of(replica, _resized(request_of(), 63))
        assert replica.load().pending == ()


def _resized(request: PictureRequest, width: int) -> PictureRequest:
    return PictureRequest(**{**{f: getattr(request, f) for f in request.__struct_fields__}, "width": width})


async def test_past_its_deadline_it_is_dropped() -> None:
    async with running() as replica:
        late = request_of(num_steps=1000, deadline_s=MonotonicClock().now_s() + 0.05)
        with pytest.raises(DeadlineExceeded, match="of 1000 passes done"):
            await events_of(replica, late)
        assert replica.load().pending == ()


async def test_admission_refuses_what_would_be_late_and_says_when() -> None:
    async with running() as replica:
        opened = await replica.submit(request_of(1, num_steps=400, e2e_s=1.2), PATIENT)
        assert not isinstance(opened, Refused)
        refused = await replica.submit(request_of(2, num_steps=400, e2e_s=1.2), PATIENT)
        assert isinstance(refused, Refused)
        assert "late" in refused.reason
        assert 1.0 <= refused.retry_after_s <= 120.0
        slower = await replica.submit(request_of(3, num_steps=400, e2e_s=1.2, may_downgrade=True), PATIENT)
        assert not isinstance(slower, Refused)
        assert slower.tier is Tier.BATCH
        await opened.aclose()
        await slower.aclose()


async def test_a_full_queue_is_told() -> None:
    async with running() as replica:
        limits = PictureLimits(interactive=1)
        opened = await replica.submit(request_of(1, num_steps=300), limits)
        assert not isinstance(opened, Refused)
        refused = await replica.submit(request_of(2), limits)
        assert isinstance(refused, Refused)
        assert "at most 1" in refused.reason
        await opened.aclose()


async def test_batch_work_is_kept_each_pass_and_taken_up_again() -> None:
    kept = KeptInMemory()
    async with running(checkpoints=kept) as replica:
        request = request_of(7, Tier.BATCH, num_steps=300)
        opened = await replica.submit(request, PATIENT)
        assert not isinstance(opened, Refused)
        await until(lambda: kept.num_puts >= 5)
    assert "r7" in kept.states
    with pytest.raises(ShuttingDown):
        async for _ in opened:
            pass
    engine = FakeDenoiseEngine(SHAPE, TABLE)
    async with running(engine, kept) as replica:
        again = await replica.submit(request, PATIENT)
        assert not isinstance(again, Refused)
        pictures = [event.picture async for event in again if isinstance(event, Painted)]
    assert pictures[0].rgb == expected_picture(SHAPE, spec_of(0, request)).rgb
    passes = [step.index for plan in engine.plans if plan.stage is Stage.PASS for step in plan.items]
    assert passes[0] >= 5
    assert len(passes) == 300 - passes[0]
    assert not kept.states


async def test_a_full_disk_costs_no_picture() -> None:
    async with running(checkpoints=FullDisk()) as replica:
        assert isinstance((await events_of(replica, request_of(1, Tier.BATCH)))[-1], PictureFinish)


async def test_stopping_tells_the_readers() -> None:
    async with running() as replica:
        reading = asyncio.create_task(events_of(replica, request_of(num_steps=1000)))
        await until(lambda: bool(replica.load().pending))
    with pytest.raises(ShuttingDown):
        await reading
