"""One loop on one device: plan, step, commit, plan, ... The only place where a scheduler meets an engine.

    device's thread    step | commit, plan | step            | commit, plan | step ...
    event loop                             | hand out tokens                | hand out tokens ...

The device waits for a commit and a plan and for nothing else: text, log-probabilities, metrics and mailboxes are made
while the next step computes. Who may do what, and why:

- The scheduler is single-threaded and called from two threads: `add`, `abort` and `load` from the event loop, when a
  request comes, leaves or is judged; `commit` and `plan` from the device's thread, because a hop to the event loop and
  back would wait for whatever the loop is busy with. One lock stands around every call. It is held for a decision at
  most (under a millisecond: benchmarks/scheduler), never while a step computes, and nothing is awaited under it, so the
  event loop never waits for a step.
- `_sequences` (who is served) and `_removed` (what the engine may forget) change under that lock too, together with
  the scheduler's books: no plan names a sequence that has left.
- The engine's `step` and `remove` are called from the device's thread alone.
- Mailboxes, metrics and the times of a sequence belong to the event loop. What a step gave crosses over in one callback
  a step, in order; how much may wait there is bounded by what the running sequences may still write.

Either nothing can run, then the event loop plans and waits for work or for the clock; or one chain of turns is on the
device, each of which plans the next. Never both.
"""

import asyncio
import itertools
import logging
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from speciate.core.engine import SequenceSpec, StepEngine, StepPlan, StepResult
from speciate.core.errors import (
    DeadlineExceeded,
    EngineFailed,
    InvalidRequest,
    InvariantError,
    ShuttingDown,
    SpeciateError,
)
from speciate.core.output import Finish, OutputEvent, Whole
from speciate.core.ports import Clock
from speciate.core.replica import ReplicaLoad
from speciate.core.request import GenerateRequest
from speciate.core.scheduler import Decision, StepOutcome, StepScheduler
from speciate.core.segment import TIER_RANK
from speciate.runtime.device import Device, Turn
from speciate.runtime.intake import end_tokens, spec_of, validate, work_of
from speciate.runtime.sequence import RunningSequence, Taken, TextCodec
from speciate.runtime.shared_device import OwnSeat, Seat
from speciate.telemetry.metrics import ReplicaMetrics

log = logging.getLogger(__name__)

MAX_FAILED_STEPS = 3
"""After so many lost steps in a row the replica calls itself unhealthy (it goes on trying)."""


@dataclass(slots=True)
class _Done:
    """What a step leaves for the event loop."""

    decision: Decision
    observed_s: float
    """0 if the step was lost."""
    taken: list[Taken] = field(default_factory=list)
    failed: list[tuple[int, SpeciateError]] = field(default_factory=list)
    """(seq_id, what its stream raises)."""
    following: Decision | None = None


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
        self._seat: Seat = OwnSeat()
        self._taken_s = 0.0
        """How long the last step that was handed out took."""
        self._removed: list[int] = []
        self._lock = threading.Lock()
        self._work_arrived = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None
        self._chain: asyncio.Future[None] | None = None
        self._post: Callable[..., Any] | None = None
        """Calls a function on the event loop, from the device's thread."""
        self._num_failed_steps = 0
        self._is_stopping = False

    @property
    def engine(self) -> StepEngine:
        return self._engine

    @property
    def is_healthy(self) -> bool:
        return self._loop is not None and not self._loop.done() and self._num_failed_steps < MAX_FAILED_STEPS

    def sit(self, seat: Seat) -> None:
        """Share the device from now on; before `start`."""
        self._seat = seat

    def wake(self) -> None:
        """Something changed outside: look again."""
        self._work_arrived.set()

    def start(self) -> None:
        """Begin stepping on the running event loop."""
        loop = asyncio.get_running_loop()
        self._post = loop.call_soon_threadsafe
        self._loop = loop.create_task(self._run(), name=f"replica-{self._engine.shape.model}")

    async def stop(self) -> None:
        """End after the running step. Open streams raise ShuttingDown; the engine is closed."""
        self._is_stopping = True
        self._work_arrived.set()
        self._seat.leave()
        if self._loop is not None:
            await self._loop
        self._end_all(ShuttingDown("The server is shutting down; send the request again elsewhere."))
        self._engine.close()

    def load(self) -> ReplicaLoad:
        with self._lock:
            return self._scheduler.load(self._clock.now_s())

    def check(self) -> None:
        """Raise InvariantError if the scheduler's accounting does not add up."""
        with self._lock:
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
        validate(request, self._engine.shape.context_tokens)
        sequence = self._make_sequence(request)
        await self._add_to_engine(spec_of(sequence.seq_id, request, sequence.end_token_ids))
        with self._lock:
            try:
                self._scheduler.add(work_of(sequence.seq_id, request), self._clock.now_s())
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
            adding.add_done_callback(lambda done: self._remove(spec.seq_id) if not done.exception() else None)
            raise

    def _remove(self, seq_id: int) -> None:
        with self._lock:
            self._removed.append(seq_id)

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
        with self._lock:
            if self._sequences.pop(sequence.seq_id, None) is None:
                return
            self._scheduler.abort(sequence.seq_id, self._clock.now_s())
            self._removed.append(sequence.seq_id)
        self._metrics.observe_cancelled(sequence.request, self._clock.now_s())
        self._work_arrived.set()

    def _end(self, sequence: RunningSequence, end: Finish | SpeciateError) -> None:
        """Producer's side of the end: the sequence is over, whoever reads or not."""
        with self._lock:
            if self._sequences.pop(sequence.seq_id, None) is None:
                return
            self._removed.append(sequence.seq_id)
        sequence.mailbox.finish(end)
        if isinstance(end, SpeciateError):
            self._metrics.observe_failed(sequence.request, end.code, self._clock.now_s())

    def _end_all(self, error: SpeciateError) -> None:
        for sequence in list(self._sequences.values()):
            self._end(sequence, error)

    # ---- on the event loop -----------------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            await self._run_chains()
        except Exception:  # the loop's own boundary: a bug here must end every stream loudly, not hang it
            log.exception("the replica of %s stopped", self._engine.shape.model)
            self._break()

    def _break(self) -> None:
        self._is_stopping = True
        self._end_all(InvariantError("The server hit a bug in its scheduler; its log has the trace."))

    async def _run_chains(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._is_stopping:
            await self._seat.take()
            with self._lock:
                decision, turn = self._plan()
            self._expire(decision)
            if turn is None:
                self._seat.pass_on()
                await self._wait(decision.wake_s)
                continue
            self._chain = loop.create_future()
            self._device.run(turn)
            await self._chain
            self._seat.release(self._taken_s)

    def _end_chain(self, error: BaseException | None) -> None:
        if self._chain is None or self._chain.done():
            return
        if error is None:
            self._chain.set_result(None)
        else:
            self._chain.set_exception(error)

    def _hand_out(self, done: _Done) -> None:
        """Give readers what a step made; the next one is computing."""
        self._taken_s = done.observed_s
        try:
            for taken in done.taken:
                self._show(taken)
            for seq_id, error in done.failed:
                self._fail(seq_id, error)
            if done.following is not None:
                self._expire(done.following)
            if done.observed_s > 0:
                self._metrics.observe_step(done.decision, done.observed_s)
        except Exception:  # the boundary of a callback: nobody else would hear of it
            log.exception("the replica of %s cannot hand out tokens", self._engine.shape.model)
            self._break()

    def _show(self, taken: Taken) -> None:
        sequence, before_s = taken.sequence, taken.sequence.last_token_s
        delta = sequence.show(taken)
        self._metrics.observe_token(sequence.request, None if before_s is None else taken.at_s - before_s, taken.at_s)
        sequence.mailbox.put(delta)
        if taken.end is not None:
            finish = sequence.finish()
            self._metrics.observe_finish(sequence.request, finish)
            self._end(sequence, finish)

    def _expire(self, decision: Decision) -> None:
        for seq_id in decision.expired:
            if sequence := self._sequences.get(seq_id):
                waited_s = self._clock.now_s() - sequence.request.arrival_s
                self._end(
                    sequence,
                    DeadlineExceeded(
                        f"The request's deadline passed after {waited_s:.3f} s with {sequence.num_tokens} tokens done. "
                        "Allow more time, or send it when the server is less busy."
                    ),
                )

    def _fail(self, seq_id: int, error: SpeciateError) -> None:
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

    # ---- on the device's thread ------------------------------------------------------------------------------------

    def _turn(self, decision: Decision, plan: StepPlan, removed: list[int]) -> Turn | None:
        """One step, and the turn of the next. Never raises: what goes wrong ends the chain and is raised there."""
        if self._post is None:
            raise AssertionError("a turn before start()")
        try:
            done, turn = self._step(decision, plan, removed)
        except BaseException as error:  # noqa: BLE001 -- the boundary of the thread: the replica's own loop raises it
            self._post(self._end_chain, error)
            return None
        self._post(self._hand_out, done)
        if turn is None:
            self._post(self._end_chain, None)
        return turn

    def _step(self, decision: Decision, plan: StepPlan, removed: list[int]) -> tuple[_Done, Turn | None]:
        try:
            result, observed_s = self._compute(plan, removed)
        except EngineFailed as error:
            with self._lock:
                return self._follow(self._lose(decision, plan, error))
        with self._lock:
            return self._follow(self._commit(decision, plan, result, observed_s))

    def _compute(self, plan: StepPlan, removed: list[int]) -> tuple[StepResult, float]:
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

    # ---- under the lock, on either thread --------------------------------------------------------------------------

    def _follow(self, done: _Done) -> tuple[_Done, Turn | None]:
        if self._is_stopping or not self._seat.is_own:
            return done, None
        done.following, turn = self._plan()
        return done, turn

    def _plan(self) -> tuple[Decision, Turn | None]:
        """While no step is under way."""
        now_s = self._clock.now_s()
        decision = self._scheduler.plan(now_s)
        self._note(decision, now_s)
        if decision.plan is None:
            return decision, None
        rank = min(self._rank_of(s.seq_id) for s in decision.plan.sequences)
        removed, self._removed = self._removed, []  # none of them is in the plan; whoever leaves from now on may be
        return decision, Turn(rank, partial(self._turn, decision, decision.plan, removed))

    def _note(self, decision: Decision, now_s: float) -> None:
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

    def _rank_of(self, seq_id: int) -> int:
        sequence = self._sequences.get(seq_id)
        return 0 if sequence is None else TIER_RANK[sequence.tier]

    def _commit(self, decision: Decision, plan: StepPlan, result: StepResult, observed_s: float) -> _Done:
        """Samples of sequences that nobody wants any more count for the scheduler only, which forgets them."""
        now_s = self._clock.now_s()
        self._num_failed_steps = 0
        done = _Done(decision, observed_s)
        for sample in result.samples:
            if sequence := self._sequences.get(sample.seq_id):
                done.taken.append(sequence.take(sample, now_s))
        finished = frozenset(taken.sample.seq_id for taken in done.taken if taken.end is not None)
        tokens = tuple((s.seq_id, s.token_id) for s in result.samples)
        lost = frozenset(seq_id for seq_id, _ in result.failed)
        self._scheduler.commit(StepOutcome(plan, observed_s, tokens, finished, lost), now_s)
        done.failed += [
            (seq_id, EngineFailed(f"This sequence could not go on: {why}")) for seq_id, why in result.failed
        ]
        return done

    def _lose(self, decision: Decision, plan: StepPlan, error: EngineFailed) -> _Done:
        self._num_failed_steps += 1
        lost = frozenset(s.seq_id for s in plan.sequences)
        self._scheduler.commit(StepOutcome(plan, 0.0, (), lost=lost), self._clock.now_s())
        return _Done(decision, 0.0, failed=[(seq_id, error) for seq_id in sorted(lost)])
