"""Text and pictures on one device, by the arbiter's word: fake engines, real loops."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

from tests.unit.runtime.test_replica import NumberCodec

from speciate.core.arbiter import DeviceClaim, DeviceGuard, Wish
from speciate.core.denoise import DenoiseShape, Stage
from speciate.core.engine import TokenEngineShape
from speciate.core.output import Finish
from speciate.core.picture import Painted, PictureRequest, Progress
from speciate.core.request import GenerateRequest, SamplingParams, StopRules
from speciate.core.segment import Segment, Slo, Tier
from speciate.costs.pass_table import PassCost, PassTable
from speciate.engines.fake import FakeEngine, StepCost, expected_tokens
from speciate.engines.fake_denoise import FakeDenoiseEngine, expected_picture
from speciate.runtime.clock import MonotonicClock
from speciate.runtime.device import Device
from speciate.runtime.model_shelf import LoadedShelf
from speciate.runtime.painter import Painter
from speciate.runtime.painter_item import spec_of
from speciate.runtime.replica import Replica
from speciate.runtime.shared_device import SharedDevice
from speciate.scheduling.denoise.scheduler import DenoiseScheduler
from speciate.scheduling.device.arbiter import Arbiter
from speciate.scheduling.device.shared_tokens import SharedTokenScheduler
from speciate.scheduling.token import TokenScheduler
from speciate.telemetry.metrics import Metrics, ReplicaMetrics

PASS_S = 0.02
TEXT = TokenEngineShape("fake", 1000, 512, 4, 200, 1, (2,))
IMAGE = DenoiseShape("ink", 16, 16, 64)
TABLE = PassTable("test", (PassCost("ink", Stage.PASS, 4, 1, PASS_S),), unknown_s=0.001)
VOICE = Segment("voice", Tier.REALTIME, Slo(ttft_s=0.3, tpot_s=0.2))
CHAT = Segment("chat", Tier.INTERACTIVE, Slo(ttft_s=2.0, tpot_s=0.5))
VIDEO = Segment("video", Tier.BATCH, Slo())


class Both:
    """A replica of text and a painter, on one device."""

    def __init__(self) -> None:
        self.device, clock = Device("test"), MonotonicClock()
        text = SharedTokenScheduler(TokenScheduler(TEXT))
        images = DenoiseScheduler(TABLE)
        self.image_engine = FakeDenoiseEngine(IMAGE, TABLE)
        engine = FakeEngine(TEXT, cost=StepCost(fixed_s=0.001))
        self.text = Replica(engine, text, NumberCodec(), self.device, clock, ReplicaMetrics(Metrics(), "fake"))
        self.painter = Painter(LoadedShelf({"ink": self.image_engine}), images, self.device, clock)
        self.shared = SharedDevice(Arbiter(), clock)
        self.text.sit(self.shared.seat("text", text, self.text.wake, text.allow))
        self.painter.sit(self.shared.seat("images", images, self.painter.wake))

    @property
    def num_passes(self) -> int:
        return sum(plan.stage is Stage.PASS for plan in self.image_engine.plans)


@asynccontextmanager
async def both() -> AsyncIterator[Both]:
    pair = Both()
    pair.text.start()
    pair.painter.start()
    try:
        yield pair
    finally:
        await pair.text.stop()
        await pair.painter.stop()
        await pair.device.close()


def words(prompt: tuple[int, ...], num: int, segment: Segment = VOICE) -> GenerateRequest:
    arrival_s = MonotonicClock().now_s()
    return GenerateRequest("t", "fake", prompt, segment, arrival_s, SamplingParams(), StopRules(num, ignore_eos=True))


def picture(num_steps: int, segment: Segment = VIDEO) -> PictureRequest:
    return PictureRequest("v", "ink", "a film", 32, 32, num_steps, 3, segment, MonotonicClock().now_s())


async def read(replica: Replica, request: GenerateRequest) -> tuple[int, ...]:
    tokens: list[int] = []
    async with aclosing(replica.generate(request)) as events:
        async for event in events:
            if not isinstance(event, Finish):
                tokens += event.token_ids
    return tuple(tokens)


async def paint(painter: Painter, request: PictureRequest) -> bytes:
    async with aclosing(painter.paint(request)) as events:
        return b"".join([event.picture.rgb async for event in events if isinstance(event, Painted)])


async def wait_for_passes(pair: Both, num: int) -> None:
    """The film has no reader of its own here, so its engine is asked."""
    for _ in range(1000):
        if pair.num_passes >= num:
            return
        await asyncio.sleep(0.005)
    raise AssertionError("the film does not get on")


async def test_both_come_out_whole() -> None:
    async with both() as pair:
        film, talk = picture(15), [words((5, 6, 7 + i), 20, CHAT) for i in range(4)]
        pixels, *texts = await asyncio.wait_for(
            asyncio.gather(paint(pair.painter, film), *(read(pair.text, one) for one in talk)), 60
        )
        assert pixels == expected_picture(IMAGE, spec_of(0, film)).rgb
        assert texts == [expected_tokens(one.prompt_tokens, 20, TEXT) for one in talk]
        assert pair.shared.busy_s["text"] > 0
        assert pair.shared.busy_s["images"] > 0
        pair.text.check()
        pair.painter.check()


async def test_a_voice_waits_for_one_pass_of_a_film_at_most() -> None:
    """Counted in passes, not in seconds: from its arrival to its first token at most the one under way, and one that
    may have begun before its arrival was seen."""
    async with both() as pair:
        filming = asyncio.ensure_future(paint(pair.painter, picture(400)))
        await wait_for_passes(pair, 3)
        for turn in range(5):
            before = pair.num_passes
            async with aclosing(pair.text.generate(words((9, 8, turn + 1), 3))) as events:
                await anext(events)
                assert pair.num_passes - before <= 2
        assert not filming.done()
        filming.cancel()
        await asyncio.gather(filming, return_exceptions=True)


async def test_a_film_goes_on_while_text_has_time() -> None:
    async with both() as pair:
        talking = [asyncio.ensure_future(read(pair.text, words((3, turn + 1), 150, CHAT))) for turn in range(3)]
        film = picture(400, Segment("film", Tier.INTERACTIVE, Slo(e2e_s=600.0)))
        async with aclosing(pair.painter.paint(film)) as events:
            async for event in events:
                if isinstance(event, Progress) and event.passes_done >= 2:
                    break
        assert not all(task.done() for task in talking)
        for task in talking:
            task.cancel()
        await asyncio.gather(*talking, return_exceptions=True)


async def test_one_that_stops_leaves_the_device_to_the_other() -> None:
    async with both() as pair:
        filming = asyncio.ensure_future(paint(pair.painter, picture(20)))
        await read(pair.text, words((5,), 3))
        await pair.text.stop()
        film = await asyncio.wait_for(filming, 60)
        assert len(film) == 32 * 32 * 3


class Sharer:
    """What a scheduler would answer, set by the test."""

    def __init__(self, wish: Wish) -> None:
        self.answer = wish

    def wish(self, now_s: float) -> Wish:
        return self.answer


async def test_whoever_a_guard_keeps_out_is_asked_again_when_it_is_down() -> None:
    """Nobody passed, nobody comes: time alone takes a guard down."""
    shared = SharedDevice(Arbiter(), MonotonicClock())
    voice = Sharer(Wish((), (DeviceGuard(Tier.REALTIME, 0.1),)))
    long_step = Sharer(Wish((DeviceClaim(Tier.INTERACTIVE, 5.0, 1.0),), ()))
    shared.seat("voice", voice, lambda: None)
    seat = shared.seat("long", long_step, lambda: None)
    taking = asyncio.create_task(seat.take())
    await asyncio.sleep(0.01)
    assert not taking.done()
    voice.answer = Wish((), ())
    async with asyncio.timeout(5):
        assert await taking >= 1.0
