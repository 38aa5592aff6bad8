"""One loop on one device: plan, step, commit, deliver. The only place where a scheduler meets an engine.

    take in -> plan -> (worker thread: step) -> commit -> plan -> ...
                          meanwhile: deliver the tokens of the step before

The scheduler is pure and single-threaded: everything here but `engine.step` and `engine.add` runs on the event loop.
"""

import asyncio
import itertools
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing

from speciate.core.engine import SampledToken, SequenceSpec, StepEngine, StepPlan, StepResult
from speciate.core.errors import (
    ContextLengthExceeded,
    DeadlineExceeded,
    EngineFailed,
    InvalidRequest,
    InvariantError,
    ShuttingDown,
    SpeciateError,
)
from speciate.core.output import Delta, Finish, OutputEvent, Whole
from speciate.core.ports import Clock
from speciate.core.replica import ReplicaLoad
from speciate.core.request import GenerateRequest
from speciate.core.scheduler import Decision, StepOutcome, StepScheduler, TokenWork
from speciate.core.segment import TIER_RANK
from speciate.runtime.device import Device
from speciate.runtime.sequence import RunningSequence, TextCodec, end_tokens, spec_of
from speciate.telemetry.metrics import ReplicaMetrics

log = logging.getLogger(__name__)

MAX_FAILED_STEPS = 3
"""After so many lost steps in a row the replica calls itself unhealthy (it goes on trying)."""


class Replica:
    """Implements `Engine` by stepping a `StepEngine`. `start` before use, `stop` once; the caller closes the device."""

    def __init__(
        self,
        engine: StepEngine,
        scheduler: StepScheduler,
        codec: TextCodec,
        device: Device,
        clock: Clock,
        metrics: ReplicaMetrics,
    ) -> None:
        self._engine = engine
        self._scheduler = scheduler
        self._codec = codec
        self._device = device
        self._clock = clock
        self._metrics = metrics
        self._seq_ids = itertools.count(1)
        self._sequences: dict[int, RunningSequence] = {}
        self._removed: list[int] = []
        self._deliveries: list[tuple[RunningSequence, Delta]] = []
        self._work_arrived = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None
        self._num_failed_steps = 0
        self._is_stopping = False

    @property
    def engine(self) -> StepEngine:
        return self._engine

    @property
    def is_healthy(self) -> bool:
        return self._loop is not None and not self._loop.done() and self._num_failed_steps < MAX_FAILED_STEPS

    def start(self) -> None:
        """Begin stepping on the running event loop."""
        self._loop = asyncio.get_running_loop().create_task(self._run(), name=f"replica-{self._engine.shape.model}")

    async def stop(self) -> None:
        """End after the running step. Open streams raise ShuttingDown; the engine is closed."""
        self._is_stopping = True
        self._work_arrived.set()
        if self._loop is not None:
            await self._loop
        for sequence in list(self._sequences.values()):
            self._end(sequence, ShuttingDown("The server is shutting down; send the request again elsewhere."))
        self._engine.close()

    def load(self) -> ReplicaLoad:
        return self._scheduler.load(self._clock.now_s())

    def check(self) -> None:
        """Raise InvariantError if the scheduler's accounting does not add up."""
        self._scheduler.check()

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[OutputEvent, None]:
        """Stream one sequence. Raises InvalidRequest, ShuttingDown, EngineFailed, DeadlineExceeded."""
        sequence = await self._take_in(request)
        try:
            async with aclosing(sequence.mailbox.events()) as events:
                async for event in events:
                    yield event
        finally:
            self._let_go(sequence)

    async def complete(self, request: GenerateRequest) -> Whole:
        """One sequence to its end. Raises as `generate`."""
        sequence = await self._take_in(request)
        try:
            return await sequence.mailbox.whole()
        finally:
            self._let_go(sequence)

    # ---- in and out ------------------------------------------------------------------------------------------------

    async def _take_in(self, request: GenerateRequest) -> RunningSequence:
        if self._is_stopping:
            raise ShuttingDown("The server is shutting down; send the request again elsewhere.")
        self._validate(request)
        sequence = self._make_sequence(request)
        await self._add_to_engine(spec_of(sequence.seq_id, request, sequence.end_token_ids))
        try:
            self._scheduler.add(_work_of(sequence.seq_id, request), self._clock.now_s())
        except InvalidRequest:
            self._removed.append(sequence.seq_id)
            raise
        self._sequences[sequence.seq_id] = sequence
        self._work_arrived.set()
        return sequence

    async def _add_to_engine(self, spec: SequenceSpec) -> None:
        """Grammars compile on another thread; if the caller leaves meanwhile, the state is removed when it is done."""
        if spec.grammar is None:
            self._engine.add(spec)
            return
        adding = asyncio.ensure_future(asyncio.to_thread(self._engine.add, spec))
        try:
            await asyncio.shield(adding)
        except asyncio.CancelledError:
            adding.add_done_callback(lambda done: self._removed.append(spec.seq_id) if not done.exception() else None)
            raise

    def _validate(self, request: GenerateRequest) -> None:
        num_prompt, context = len(request.prompt_tokens), self._engine.shape.context_tokens
        if num_prompt == 0:
            raise InvalidRequest("The prompt has no tokens; send at least one.", param="prompt")
        if num_prompt + request.stopping.max_tokens > context:
            raise ContextLengthExceeded(
                f"This model's context is {context} tokens; the prompt has {num_prompt} and max_tokens asks for "
                f"{request.stopping.max_tokens} more. Shorten the prompt or lower max_tokens.",
                param="messages",
            )

    def _make_sequence(self, request: GenerateRequest) -> RunningSequence:
        stopping = request.stopping
        return RunningSequence(
            seq_id=next(self._seq_ids),
            request=request,
            end_token_ids=end_tokens(request, self._engine.shape.eos_token_ids),
            text=self._codec.stream(stopping.stop, stopping.include_stop, request.skip_special_tokens),
            token_bytes=self._codec.token_bytes,
            tier=request.segment.tier,
        )

    def _let_go(self, sequence: RunningSequence) -> None:
        """The reader is gone or served: whatever still runs for it leaves at this step boundary."""
        if self._sequences.pop(sequence.seq_id, None) is not None:
            self._scheduler.abort(sequence.seq_id, self._clock.now_s())
            self._removed.append(sequence.seq_id)
            self._metrics.observe_cancelled(sequence.request, self._clock.now_s())
            self._work_arrived.set()

    def _end(self, sequence: RunningSequence, end: Finish | SpeciateError) -> None:
        """Producer's side of the end: the sequence is over, whoever reads or not."""
        if self._sequences.pop(sequence.seq_id, None) is not None:
            self._removed.append(sequence.seq_id)
            sequence.mailbox.finish(end)
            if isinstance(end, SpeciateError):
                self._metrics.observe_failed(sequence.request, end.code, self._clock.now_s())

    # ---- the loop --------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            await self._run_steps()
        except Exception:  # the loop's own boundary: a bug here must end every stream loudly, not hang it
            log.exception("the replica of %s stopped", self._engine.shape.model)
            self._is_stopping = True
            for sequence in list(self._sequences.values()):
                self._end(sequence, InvariantError("The server hit a bug in its scheduler; its log has the trace."))

    async def _run_steps(self) -> None:
        while not self._is_stopping:
            decision = self._scheduler.plan(self._clock.now_s())
            self._announce(decision)
            if decision.plan is None:
                self._deliver()
                await self._wait(decision.wake_s)
                continue
            await self._step(decision, decision.plan)

    async def _step(self, decision: Decision, plan: StepPlan) -> None:
        rank = min(self._rank_of(s.seq_id) for s in plan.sequences)
        removed, self._removed = self._removed, []  # none of them is in the plan; whoever leaves from now on may be
        running = self._device.submit(rank, lambda: self._timed_step(plan, removed))
        self._deliver()
        try:
            result, observed_s = await running
        except EngineFailed as error:
            self._fail_step(plan, error)
            return
        self._num_failed_steps = 0
        self._commit(plan, result, observed_s)
        self._metrics.observe_step(decision, observed_s)

    def _timed_step(self, plan: StepPlan, removed: list[int]) -> tuple[StepResult, float]:
        """Runs on the worker thread."""
        for seq_id in removed:
            self._engine.remove(seq_id)
        started_s = self._clock.now_s()
        try:
            result = self._engine.step(plan)
        except EngineFailed:
            raise
        except Exception as error:  # the boundary to model runtimes: whatever they raise, only this step is lost
            log.exception("step %d failed", plan.step_id)
            raise EngineFailed(f"The engine failed in step {plan.step_id}: {error}. Send the request again.") from error
        return result, self._clock.now_s() - started_s

    def _commit(self, plan: StepPlan, result: StepResult, observed_s: float) -> None:
        now_s = self._clock.now_s()
        finished = frozenset(s.seq_id for s in result.samples if self._push(s, now_s))
        tokens = tuple((s.seq_id, s.token_id) for s in result.samples)
        lost = frozenset(seq_id for seq_id, _ in result.failed)
        self._scheduler.commit(StepOutcome(plan, observed_s, tokens, finished, lost), now_s)
        for seq_id, reason in result.failed:
            self._fail(seq_id, EngineFailed(f"This sequence could not go on: {reason}"))

    def _push(self, sample: SampledToken, now_s: float) -> bool:
        """Give the token to its sequence; True when that ends it (also when nobody wants it any more)."""
        sequence = self._sequences.get(sample.seq_id)
        if sequence is None:
            return False
        gap_s = None if sequence.last_token_s is None else now_s - sequence.last_token_s
        delta = sequence.push(sample, now_s)
        self._metrics.observe_token(sequence.request, gap_s, now_s)
        self._deliveries.append((sequence, delta))
        return sequence.end is not None

    def _deliver(self) -> None:
        """Hand out what the last step made; runs while the next one computes."""
        deliveries, self._deliveries = self._deliveries, []
        for sequence, delta in deliveries:
            sequence.mailbox.put(delta)
            if sequence.end is not None:
                finish = sequence.finish(sequence.last_token_s or 0.0)
                self._metrics.observe_finish(sequence.request, finish)
                self._end(sequence, finish)

    def _announce(self, decision: Decision) -> None:
        now_s = self._clock.now_s()
        for started in decision.started:
            if sequence := self._sequences.get(started.seq_id):
                sequence.scheduled_s = now_s if sequence.scheduled_s is None else sequence.scheduled_s
                sequence.cached_tokens = started.cached_tokens
        for seq_id, tier in decision.relegated:
            if sequence := self._sequences.get(seq_id):
                sequence.tier = tier
        for seq_id in decision.evicted:
            if sequence := self._sequences.get(seq_id):
                sequence.num_evictions += 1
        for seq_id in decision.expired:
            self._expire(seq_id, now_s)

    def _expire(self, seq_id: int, now_s: float) -> None:
        if sequence := self._sequences.get(seq_id):
            waited_s = now_s - sequence.request.arrival_s
            self._end(
                sequence,
                DeadlineExceeded(
                    f"The request's deadline passed after {waited_s:.3f} s with {sequence.num_tokens} tokens done. "
                    "Allow more time, or send it when the server is less busy."
                ),
            )

    def _fail_step(self, plan: StepPlan, error: EngineFailed) -> None:
        self._num_failed_steps += 1
        lost = frozenset(s.seq_id for s in plan.sequences)
        self._scheduler.commit(StepOutcome(plan, 0.0, (), lost=lost), self._clock.now_s())
        for seq_id in sorted(lost):
            self._fail(seq_id, error)

    def _fail(self, seq_id: int, error: EngineFailed) -> None:
        if sequence := self._sequences.get(seq_id):
            self._end(sequence, error)

    async def _wait(self, wake_s: float | None) -> None:
        """Until work arrives, or the clock reaches `wake_s`."""
        self._work_arrived.clear()
        if self._is_stopping:
            return
        if wake_s is None:
            await self._work_arrived.wait()
            return
        try:
            async with asyncio.timeout(max(0.0, wake_s - self._clock.now_s())):
                await self._work_arrived.wait()
        except TimeoutError:
            return

    def _rank_of(self, seq_id: int) -> int:
        sequence = self._sequences.get(seq_id)
        return 0 if sequence is None else TIER_RANK[sequence.tier]


def _work_of(seq_id: int, request: GenerateRequest) -> TokenWork:
    return TokenWork(
        seq_id=seq_id,
        prompt_tokens=request.prompt_tokens,
        segment=request.segment,
        arrival_s=request.arrival_s,
        max_tokens=request.stopping.max_tokens,
        tenant=request.tenant,
        deadline_s=request.deadline_s,
        cache_salt=request.adapter or "",
        may_downgrade=request.may_downgrade,
    )
