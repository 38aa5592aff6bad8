"""The replica with the production scheduler and the fake engine, which checks every KV read."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager

import pytest

from speciate.core.engine import SequenceSpec, TokenEngineShape
from speciate.core.errors import (
    ContextLengthExceeded,
    DeadlineExceeded,
    EngineFailed,
    InvalidGrammar,
    InvalidRequest,
    InvariantError,
    ShuttingDown,
)
from speciate.core.output import Delta, Finish, FinishReason
from speciate.core.request import GenerateRequest, Grammar, SamplingParams, StopRules
from speciate.core.scheduler import Decision
from speciate.core.segment import Segment, Slo, Tier
from speciate.engines.fake import FakeEngine, StepCost, expected_tokens
from speciate.runtime.clock import MonotonicClock
from speciate.runtime.device import Device
from speciate.runtime.replica import Replica
from speciate.runtime.sequence import TextStream
from speciate.scheduling.token import TokenScheduler
from speciate.telemetry.metrics import Metrics, ReplicaMetrics

SHAPE = TokenEngineShape("fake", 1000, 256, 8, 64, 1, (0,))
SEGMENTS = {
    Tier.REALTIME: Segment("rt", Tier.REALTIME, Slo(ttft_s=0.5, tpot_s=0.5), preemptible=False),
    Tier.INTERACTIVE: Segment("nrt", Tier.INTERACTIVE, Slo(ttft_s=1.0, tpot_s=0.5)),
    Tier.BATCH: Segment("batch", Tier.BATCH, Slo(e2e_s=3600.0)),
}


class NumberText:
    """Text of a token is its number and a space."""

    def __init__(self, stop: tuple[str, ...]) -> None:
        self._stop = stop
        self._text = ""

    def push(self, token_id: int) -> "NumberStep":
        before = self._text
        self._text += f"{token_id} "
        hit = next((s for s in self._stop if s in self._text), None)
        return NumberStep("" if hit else self._text[len(before) :], hit)

    def flush(self) -> str:
        return ""


class NumberStep:
    def __init__(self, text: str, stopped_by: str | None) -> None:
        self.text = text
        self.stopped_by = stopped_by


class NumberCodec:
    def stream(self, stop: tuple[str, ...], include_stop: bool, skip_special: bool) -> TextStream:
        return NumberText(stop)

    def token_bytes(self, token_id: int) -> bytes:
        return f"{token_id} ".encode()


class RefusingEngine(FakeEngine):
    """Refuses every grammar, as the real one refuses a bad one."""

    def add(self, sequence: SequenceSpec) -> None:
        if sequence.grammar is not None:
            raise InvalidGrammar("cannot be compiled")
        super().add(sequence)


class FailingScheduler(TokenScheduler):
    """Has a bug in its third plan."""

    def plan(self, now_s: float) -> Decision:
        self.num_plans = getattr(self, "num_plans", 0) + 1
        if self.num_plans == 3:
            raise InvariantError("three")
        return super().plan(now_s)


class FailingCodec(NumberCodec):
    """Cannot show token 13."""

    def stream(self, stop: tuple[str, ...], include_stop: bool, skip_special: bool) -> TextStream:
        return FailingText(stop)


class FailingText(NumberText):
    def push(self, token_id: int) -> "NumberStep":
        if token_id == 13:
            raise ValueError("unlucky")
        return super().push(token_id)


@asynccontextmanager
async def running(
    engine: FakeEngine, scheduler: TokenScheduler | None = None, codec: NumberCodec | None = None
) -> AsyncIterator[Replica]:
    device = Device("test")
    metrics = ReplicaMetrics(Metrics(), "fake")
    scheduler, codec = scheduler or TokenScheduler(engine.shape), codec or NumberCodec()
    replica = Replica(engine, scheduler, codec, device, MonotonicClock(), metrics)
    replica.start()
    yield replica
    await replica.stop()
    await device.close()


def request(
    prompt: tuple[int, ...], max_tokens: int = 10, tier: Tier = Tier.INTERACTIVE, **more: object
) -> GenerateRequest:
    stopping = StopRules(max_tokens=max_tokens, **{k: more.pop(k) for k in ("stop", "ignore_eos") if k in more})  # type: ignore[arg-type]
    arrival_s = MonotonicClock().now_s()
    return GenerateRequest("r", "fake", prompt, SEGMENTS[tier], arrival_s, SamplingParams(), stopping, **more)  # type: ignore[arg-type]


async def collect(replica: Replica, wanted: GenerateRequest) -> tuple[tuple[int, ...], Finish]:
    tokens: list[int] = []
    async with aclosing(replica.generate(wanted)) as events:
        async for event in events:
            if isinstance(event, Finish):
                return tuple(tokens), event
            tokens += event.token_ids
    raise AssertionError("no finish")


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 -- nothing tells when a step is over
            await asyncio.sleep(0.001)


def assert_is_empty(replica: Replica) -> None:
    replica.check()
    load = replica.load()
    assert load.free_blocks == load.total_blocks == SHAPE.num_blocks


async def test_many_mixed_sequences_get_exactly_their_tokens() -> None:
    rng = random.Random(5)
    common = tuple(rng.randrange(1, 1000) for _ in range(40))
    async with running(FakeEngine(SHAPE, cost=StepCost(fixed_s=0.0002))) as replica:
        wanted = [
            request(
                common[: rng.randrange(0, 40)] + tuple(rng.randrange(1, 1000) for _ in range(rng.randrange(1, 60))),
                rng.randrange(1, 60),
                rng.choice(list(Tier)),
            )
            for _ in range(60)
        ]
        results = await asyncio.gather(*(collect(replica, w) for w in wanted))
        for asked, (tokens, finish) in zip(wanted, results, strict=True):
            assert tokens == expected_tokens(asked.prompt_tokens, asked.stopping.max_tokens, SHAPE)
            assert finish.reason is FinishReason.LENGTH
            assert finish.usage.prompt_tokens == len(asked.prompt_tokens)
        assert_is_empty(replica)


async def test_in_one_piece_it_is_what_the_stream_says() -> None:
    async with running(FakeEngine(SHAPE)) as replica:
        for tier in Tier:
            wanted = request((1, 2, 3), 20, tier)
            tokens, finish = await collect(replica, wanted)
            whole = await replica.complete(wanted)
            assert (whole.token_ids, whole.finish.reason) == (tokens, finish.reason)
            assert whole.text == "".join(f"{token} " for token in tokens)
        assert_is_empty(replica)


async def test_cancelling_it_ends_its_work() -> None:
    async with running(FakeEngine(SHAPE, cost=StepCost(fixed_s=0.005))) as replica:
        running_call = asyncio.create_task(replica.complete(request((1, 2), 200)))
        await until(lambda: replica.load().tiers[Tier.INTERACTIVE].num_running == 1)
        running_call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running_call
        await until(lambda: replica.load().free_blocks == SHAPE.num_blocks)  # the step that runs keeps its blocks
        assert_is_empty(replica)


async def test_end_token_and_stop_string_end_a_sequence() -> None:
    engine = FakeEngine(SHAPE, script=lambda prompt: (11, 12, 13))
    async with running(engine) as replica:
        tokens, finish = await collect(replica, request((1, 2)))
        assert (tokens, finish.reason, finish.stop_sequence) == ((11, 12, 13, 0), FinishReason.STOP, None)
        tokens, finish = await collect(replica, request((1, 2), stop=("12",)))
        assert (tokens, finish.stop_sequence) == ((11, 12), "12")
        tokens, finish = await collect(replica, request((1, 2), ignore_eos=True))
        assert (tokens, finish.reason) == ((11, 12, 13, *(0,) * 7), FinishReason.LENGTH)


async def test_leaving_readers_free_everything_and_disturb_nobody() -> None:
    async with running(FakeEngine(SHAPE, cost=StepCost(fixed_s=0.0005))) as replica:

        async def leave(wanted: GenerateRequest, after: int) -> None:
            async with aclosing(replica.generate(wanted)) as events:
                async for _ in events:
                    after -= 1
                    if after <= 0:
                        return

        stays = request(tuple(range(1, 30)), 40)
        leavers = [leave(request((7, n + 1, 3), 50), n % 5) for n in range(100)]
        (tokens, _), *_ = await asyncio.gather(collect(replica, stays), *leavers)
        assert tokens == expected_tokens(stays.prompt_tokens, 40, SHAPE)
        await asyncio.sleep(0.05)
        assert_is_empty(replica)


async def test_a_lost_step_fails_its_sequences_and_the_replica_goes_on() -> None:
    engine = FakeEngine(SHAPE, cost=StepCost(fixed_s=0.001))
    async with running(engine) as replica:
        engine.fail_next_step = True
        with pytest.raises(EngineFailed, match="told to fail"):
            await collect(replica, request(tuple(range(1, 40))))
        tokens, _ = await collect(replica, request(tuple(range(1, 40))))
        assert tokens == expected_tokens(tuple(range(1, 40)), 10, SHAPE), "a lost step's blocks must not be reused"
        assert replica.is_healthy
        assert_is_empty(replica)


async def test_bad_requests_are_refused_with_the_numbers() -> None:
    async with running(RefusingEngine(SHAPE)) as replica:
        with pytest.raises(ContextLengthExceeded, match=r"256 tokens.*250.*10 more"):
            await collect(replica, request(tuple(range(1, 251))))
        with pytest.raises(InvalidRequest, match="no tokens"):
            await collect(replica, request(()))
        with pytest.raises(InvalidGrammar):
            await collect(replica, request((1,), grammar=Grammar("regex", "x")))
        assert_is_empty(replica)


async def test_a_passed_deadline_ends_the_stream_with_an_error() -> None:
    async with running(FakeEngine(SHAPE, cost=StepCost(fixed_s=0.01))) as replica:
        with pytest.raises(DeadlineExceeded, match="deadline passed"):
            await collect(replica, request((1, 2, 3), 200, deadline_s=MonotonicClock().now_s() + 0.1))
        assert_is_empty(replica)


async def test_stopping_ends_open_streams() -> None:
    async with running(FakeEngine(SHAPE, cost=StepCost(fixed_s=0.01))) as replica:
        open_stream = asyncio.create_task(collect(replica, request((1,), 200)))
        await asyncio.sleep(0.05)
        await replica.stop()
        with pytest.raises(ShuttingDown):
            await open_stream
        with pytest.raises(ShuttingDown):
            await collect(replica, request((1,)))


async def test_an_unread_stream_holds_nobody_up() -> None:
    async with running(FakeEngine(SHAPE, cost=StepCost(fixed_s=0.0005))) as replica:
        unread = replica.generate(request((5,), 100))
        first = await anext(unread)
        assert isinstance(first, Delta)
        for _ in range(5):
            await collect(replica, request((6,), 20))
        rest = [event async for event in unread]
        assert sum(len(e.token_ids) for e in rest if isinstance(e, Delta)) == 99
        assert len(rest) < 50, "what came while nobody read must come merged"


async def test_the_device_does_not_wait_for_a_busy_event_loop() -> None:
    engine = FakeEngine(SHAPE, cost=StepCost(fixed_s=0.001))
    async with running(engine) as replica:
        reader = asyncio.create_task(collect(replica, request((5,), 200)))
        await asyncio.sleep(0.01)
        before = engine.num_steps
        deadline_s = time.monotonic() + 10
        while engine.num_steps < before + 20 and time.monotonic() < deadline_s:
            time.sleep(0.001)  # noqa: ASYNC251 -- the point: the loop can hand nothing out meanwhile
        assert engine.num_steps >= before + 20
        tokens, _ = await reader
        assert tokens == expected_tokens((5,), 200, SHAPE)


async def test_a_bug_in_the_scheduler_ends_every_stream() -> None:
    async with running(FakeEngine(SHAPE, cost=StepCost(fixed_s=0.001)), FailingScheduler(SHAPE)) as replica:
        with pytest.raises(InvariantError, match="bug"):
            await collect(replica, request((1, 2, 3), 20))
        assert not replica.is_healthy


async def test_a_bug_while_showing_a_token_ends_every_stream() -> None:
    engine = FakeEngine(SHAPE, cost=StepCost(fixed_s=0.001), script=lambda prompt: (11,) * prompt[0] + (13,) * 100)
    async with running(engine, codec=FailingCodec()) as replica:
        streams = [collect(replica, request((num,), 60)) for num in (3, 40)]
        ends = await asyncio.gather(*streams, return_exceptions=True)
        assert [type(end) for end in ends] == [InvariantError, InvariantError]
        with pytest.raises(ShuttingDown):
            await collect(replica, request((1,)))


async def test_who_leaves_between_its_last_token_and_its_delivery_is_gone() -> None:
    engine = FakeEngine(SHAPE, cost=StepCost(fixed_s=0.002))
    async with running(engine) as replica:
        for num_tokens in (1, 2, 3):
            leaver = asyncio.create_task(collect(replica, request((7,), num_tokens)))
            steps = engine.num_steps
            for _ in range(3):
                await asyncio.sleep(0)
            deadline_s = time.monotonic() + 10
            while engine.num_steps < steps + num_tokens and time.monotonic() < deadline_s:
                time.sleep(0.0005)  # noqa: ASYNC251 -- the last token is taken and cannot be handed out yet
            assert engine.num_steps == steps + num_tokens
            leaver.cancel()
            with pytest.raises(asyncio.CancelledError):
                await leaver
        tokens, _ = await collect(replica, request((9,), 5))
        assert tokens == expected_tokens((9,), 5, SHAPE)
        assert_is_empty(replica)
