"""The painter on fake engines: pictures come out whole, whatever leaves, fails, pauses or is moved meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import pytest

from speciate.core.denoise import DenoisePlan, DenoiseResult, DenoiseShape, DenoiseSpec, ItemFacts, Stage
from speciate.core.denoise_scheduler import Asset
from speciate.core.errors import DeadlineExceeded, EngineFailed, InvalidRequest, LoadFailed, ModelNotFound, ShuttingDown
from speciate.core.picture import Painted, PictureEvent, PictureFinish, PictureRequest, Preview, Progress
from speciate.core.segment import Segment, Slo, Tier
from speciate.costs.pass_table import PassCost, PassTable
from speciate.engines.fake_denoise import FakeDenoiseEngine, expected_picture, fake_facts
from speciate.runtime.clock import MonotonicClock
from speciate.runtime.device import Device
from speciate.runtime.model_shelf import HostedShelf, LoadedShelf
from speciate.runtime.painter import Painter
from speciate.runtime.painter_item import spec_of
from speciate.scheduling.denoise.residency import AssetFacts, Residency, ResidencyOptions
from speciate.scheduling.denoise.scheduler import DenoiseScheduler

ART = Segment("art", Tier.INTERACTIVE, Slo(e2e_s=30.0))
BULK = Segment("bulk", Tier.BATCH, Slo())
MODELS = ("ink", "oil", "clay")
TABLE = PassTable("test", tuple(PassCost(model, Stage.PASS, 4, 1, 0.002) for model in MODELS), unknown_s=0.002)


def shape(model: str) -> DenoiseShape:
    return DenoiseShape(model, 16, 16, 64)


def request(
    name: str, model: str = "ink", num_steps: int = 8, segment: Segment = ART, **more: object
) -> PictureRequest:
    arrival_s = MonotonicClock().now_s()
    return PictureRequest(name, model, f"a picture of {name}", 32, 32, num_steps, 7, segment, arrival_s, **more)  # type: ignore[arg-type]


@asynccontextmanager
async def painting(engine: FakeDenoiseEngine, checkpoints: "Shelved | None" = None) -> AsyncIterator[Painter]:
    device = Device("test")
    shelf = LoadedShelf({engine.shape.model: engine})
    painter = Painter(shelf, DenoiseScheduler(TABLE), device, MonotonicClock(), checkpoints)
    painter.start()
    try:
        yield painter
    finally:
        await painter.stop()
        await device.close()


async def collect(painter: Painter, wanted: PictureRequest, kept: bytes | None = None) -> list[PictureEvent]:
    async with aclosing(painter.paint(wanted, kept)) as events:
        return [event async for event in events]


def pixels(events: list[PictureEvent]) -> bytes:
    return b"".join(event.picture.rgb for event in events if isinstance(event, Painted))


def expected(wanted: PictureRequest) -> bytes:
    return expected_picture(shape(wanted.model), spec_of(0, wanted)).rgb


def assert_is_empty(painter: Painter, engine: FakeDenoiseEngine) -> None:
    painter.check()
    assert painter.load().pending == ()
    assert engine._items == {} or len(engine._items) <= len(painter._removed)


class Shelved:
    """Implements `Checkpoints` in memory."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    def put(self, request_id: str, state: bytes) -> None:
        self.kept[request_id] = state

    def get(self, request_id: str) -> bytes | None:
        return self.kept.get(request_id)

    def forget(self, request_id: str) -> None:
        self.kept.pop(request_id, None)


class SteppedClock:
    """A clock that jumps ahead by a second each time it is read: every pass is worth saving."""

    def __init__(self) -> None:
        self.at_s = 0.0

    def now_s(self) -> float:
        self.at_s += 1.0
        return self.at_s


async def test_many_pictures_are_painted_as_their_specs_say() -> None:
    engine = FakeDenoiseEngine(shape("ink"), TABLE, num_slices=2)
    async with painting(engine) as painter:
        wanted = [
            request(f"r{i}", num_steps=3 + i % 5, guidance=5.0 if i % 2 else None, is_reproducible=i % 7 == 0)
            for i in range(20)
        ]
        found = await asyncio.gather(*(collect(painter, one) for one in wanted))
        for one, events in zip(wanted, found, strict=True):
            assert pixels(events) == expected(one)
            finish = events[-1]
            assert isinstance(finish, PictureFinish)
            assert finish.passes == one.num_steps
        assert_is_empty(painter, engine)


async def test_progress_rises_and_previews_come_between() -> None:
    async with painting(FakeDenoiseEngine(shape("ink"), TABLE)) as painter:
        events = await collect(painter, request("a", num_previews=2))
    done = [event.passes_done for event in events if isinstance(event, Progress)]
    assert done == sorted(done)
    assert done[-1] == 8
    assert [event.index for event in events if isinstance(event, Preview)] == [0, 1]
    assert all(event.picture.is_preview for event in events if isinstance(event, Preview))


async def test_a_reader_that_leaves_takes_its_work_along() -> None:
    engine = FakeDenoiseEngine(shape("ink"), TABLE)
    async with painting(engine) as painter:
        other = asyncio.ensure_future(collect(painter, request("b", num_steps=20)))
        async with aclosing(painter.paint(request("a", num_steps=500))) as events:
            await anext(events)
        assert pixels(await other) == expected(request("b", num_steps=20))
        assert_is_empty(painter, engine)
        assert sum(len(plan.items) for plan in engine.plans) < 300


async def test_an_item_that_fails_alone_costs_the_others_nothing() -> None:
    engine = FakeDenoiseEngine(shape("ink"), TABLE)
    async with painting(engine) as painter:
        engine.spoil.add(1)
        bad, good = await asyncio.gather(
            collect(painter, request("bad")), collect(painter, request("good")), return_exceptions=True
        )
        assert isinstance(bad, EngineFailed)
        assert "NaN" in bad.message
        assert isinstance(good, list)
        assert pixels(good) == expected(request("good"))
        assert_is_empty(painter, engine)


async def test_a_lost_step_is_tried_once_more() -> None:
    engine = FakeDenoiseEngine(shape("ink"), TABLE)
    async with painting(engine) as painter:
        engine.fail_next_step = True
        assert pixels(await collect(painter, request("a"))) == expected(request("a"))
        assert painter.is_healthy


async def test_an_engine_that_is_broken_fails_its_items_and_says_so() -> None:
    engine = BrokenEngine(shape("ink"), TABLE)
    async with painting(engine) as painter:
        with pytest.raises(EngineFailed):
            await collect(painter, request("a"))
        with pytest.raises(EngineFailed):
            await collect(painter, request("b"))
        assert not painter.is_healthy


async def test_a_deadline_that_passes_ends_the_stream() -> None:
    async with painting(FakeDenoiseEngine(shape("ink"), TABLE)) as painter:
        late = request("a", num_steps=900, deadline_s=MonotonicClock().now_s() + 0.1)
        with pytest.raises(DeadlineExceeded, match="of 900 passes"):
            await collect(painter, late)


async def test_bad_requests_are_refused_at_once() -> None:
    async with painting(FakeDenoiseEngine(shape("ink"), TABLE)) as painter:
        with pytest.raises(InvalidRequest, match="steps is 0"):
            await collect(painter, request("a", num_steps=0))
        with pytest.raises(ModelNotFound, match="ink"):
            await collect(painter, request("a", model="nothing"))


async def test_stopping_ends_open_streams() -> None:
    async with painting(FakeDenoiseEngine(shape("ink"), TABLE)) as painter:
        reading = asyncio.ensure_future(collect(painter, request("a", num_steps=1000)))
        await asyncio.sleep(0.02)
        await painter.stop()
        with pytest.raises(ShuttingDown):
            await reading


async def test_a_crash_costs_the_pass_under_way_and_no_more() -> None:
    """What was saved goes on in another painter, with the same pixels."""
    checkpoints, wanted = Shelved(), request("video", num_steps=30)
    first = FakeDenoiseEngine(shape("ink"), TABLE)
    painter = Painter(
        LoadedShelf({"ink": first}), DenoiseScheduler(TABLE), device := Device("a"), SteppedClock(), checkpoints
    )
    painter.start()
    async with aclosing(painter.paint(wanted)) as events:
        async for event in events:
            if isinstance(event, Progress) and event.passes_done >= 12:
                break
    await painter.stop()
    await device.close()
    kept = checkpoints.get("video")
    assert kept is not None

    second = FakeDenoiseEngine(shape("ink"), TABLE)
    async with painting(second) as other:
        assert pixels(await collect(other, wanted, kept)) == expected(wanted)
    passes = [plan for plan in second.plans if plan.stage is Stage.PASS]
    assert len(passes) <= 30 - 10
    with pytest.raises(InvalidRequest, match="another picture"):
        async with painting(FakeDenoiseEngine(shape("ink"), TABLE)) as other:
            await collect(other, request("another"), kept)


async def test_models_come_and_go_and_paused_pictures_stay_whole() -> None:
    host = FakeHost()
    device, clock = Device("test"), MonotonicClock()
    residency = Residency(ResidencyOptions(device_bytes=10, host_bytes=20), facts_of)
    painter = Painter(HostedShelf(host, lambda asset: asset.adapter), DenoiseScheduler(TABLE, residency), device, clock)
    painter.start()
    wanted = [request(f"r{i}", MODELS[i % 3], 5 + i, BULK if i % 4 == 0 else ART) for i in range(12)]
    found = await asyncio.wait_for(asyncio.gather(*(collect(painter, one) for one in wanted)), 60)
    assert [pixels(events) for events in found] == [expected(one) for one in wanted]
    assert host.most_loaded == 1
    assert host.num_loads < 12, "models are grouped in time"
    host.broken.add("clay")
    await asyncio.wait_for(collect(painter, request("other", "ink")), 60)
    with pytest.raises(LoadFailed, match="broken"):
        await asyncio.wait_for(collect(painter, request("last", "clay")), 60)
    painter.check()
    await painter.stop()
    await device.close()


def facts_of(asset: Asset) -> AssetFacts:
    return AssetFacts(asset, 10, 10, 0.01, 0.01)


class FakeHost:
    """Implements `ModelHost`."""

    def __init__(self) -> None:
        self.loaded: set[str] = set()
        self.most_loaded = 0
        self.num_loads = 0
        self.broken: set[str] = set()

    def facts(self, model: str, spec: DenoiseSpec) -> ItemFacts:
        return fake_facts(shape(model), spec)

    def fetch(self, model: str) -> None:
        pass

    def load(self, model: str) -> FakeDenoiseEngine:
        if model in self.broken:
            raise LoadFailed(f"{model} is broken")
        self.loaded.add(model)
        self.num_loads += 1
        self.most_loaded = max(self.most_loaded, len(self.loaded))
        return FakeDenoiseEngine(shape(model), TABLE)

    def unload(self, model: str) -> None:
        self.loaded.discard(model)

    def drop(self, model: str) -> None:
        pass


class BrokenEngine(FakeDenoiseEngine):
    """Raises what a model runtime might."""

    def step(self, plan: DenoisePlan) -> DenoiseResult:
        raise RuntimeError("out of memory")
