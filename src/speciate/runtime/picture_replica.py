"""One loop for image models on one device: plan, step, commit, deliver, as `replica` does for text.

    take in -> plan -> (worker thread: step, save) -> commit -> plan -> ...

The scheduler is pure and single-threaded: everything here but `engine.step`, `engine.save` and `engine.add` runs on the
event loop. Items whose work must outlive this process are put into `checkpoints` after each of their passes.
"""

import asyncio
import itertools
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Protocol, Self

from msgspec import structs

from speciate.admission.picture_limits import PictureLimits
from speciate.admission.pictures import PictureDemand, admit_picture
from speciate.core.admission import Refused, Verdict
from speciate.core.denoise import DenoiseEngine, DenoisePlan, DenoiseResult, DenoiseSpec, ItemFacts, Picture, Stage
from speciate.core.denoise_scheduler import (
    DenoiseDecision,
    DenoiseLoad,
    DenoiseScheduler,
    DenoiseWork,
    Forecaster,
    StepDone,
)
from speciate.core.errors import (
    DeadlineExceeded,
    EngineFailed,
    InvalidRequest,
    InvariantError,
    ShuttingDown,
    SpeciateError,
)
from speciate.core.picture import Checkpoints, Painted, PictureEvent, PictureRequest, Preview, Progress
from speciate.core.ports import Clock
from speciate.core.segment import TIER_RANK, Segment, Slo, Tier
from speciate.runtime.device import Device
from speciate.runtime.running_picture import RunningPicture, spec_of, work_of
from speciate.telemetry.picture_metrics import PictureMetrics

log = logging.getLogger(__name__)

MAX_FAILED_STEPS = 3
"""After so many lost steps in a row the replica calls itself unhealthy (it goes on trying)."""


class PictureStream:
    """The events of one picture, to be closed once: closing it early cancels the work."""

    def __init__(self, picture: RunningPicture, let_go: Callable[[RunningPicture], None]) -> None:
        self._picture = picture
        self._events = picture.mailbox.events()
        self._let_go = let_go

    @property
    def tier(self) -> Tier:
        """The tier that it entered."""
        return self._picture.request.segment.tier

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> PictureEvent:
        return await anext(self._events)

    async def aclose(self) -> None:
        try:
            await self._events.aclose()
        finally:
            self._let_go(self._picture)


class SchedulerWithForecast(DenoiseScheduler, Forecaster, Protocol):
    """What this loop asks of its scheduler."""


class PictureReplica:
    """Implements `PictureEngine` by stepping a `DenoiseEngine`. `start` before use, `stop` once; the caller closes the
    device."""

    def __init__(
        self,
        engine: DenoiseEngine,
        scheduler: SchedulerWithForecast,
        device: Device,
        clock: Clock,
        metrics: PictureMetrics,
        checkpoints: Checkpoints | None = None,
    ) -> None:
        self._engine = engine
        self._scheduler = scheduler
        self._device = device
        self._clock = clock
        self._metrics = metrics
        self._checkpoints = checkpoints
        self._item_ids = itertools.count(1)
        self._pictures: dict[int, RunningPicture] = {}
        self._removed: list[int] = []
        self._work_arrived = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None
        self._num_failed_steps = 0
        self._is_stopping = False

    @property
    def engine(self) -> DenoiseEngine:
        return self._engine

    @property
    def is_healthy(self) -> bool:
        return self._loop is not None and not self._loop.done() and self._num_failed_steps < MAX_FAILED_STEPS

    def start(self) -> None:
        """Begin stepping on the running event loop."""
        self._loop = asyncio.get_running_loop().create_task(self._run(), name=f"pictures-{self._engine.shape.model}")

    async def stop(self) -> None:
        """End after the running step. Open streams raise ShuttingDown; the engine is closed; checkpoints stay."""
        self._is_stopping = True
        self._work_arrived.set()
        if self._loop is not None:
            await self._loop
        for picture in list(self._pictures.values()):
            self._end(picture, ShuttingDown("The server is shutting down; send the request again elsewhere."))
        self._engine.close()

    def load(self) -> DenoiseLoad:
        return self._scheduler.load(self._clock.now_s())

    def check(self) -> None:
        """Raise InvariantError if the scheduler's accounting does not add up."""
        self._scheduler.check()

    async def submit(self, request: PictureRequest, limits: PictureLimits) -> "PictureStream | Refused":
        """Admit it and start it, both or neither; the tier that it entered is the stream's. Work that was kept by an
        earlier process is taken up. Raises InvalidRequest for what this model cannot draw, ShuttingDown."""
        item_id, facts = await self._prepare(request, self._kept(request))
        verdict = self._verdict(self._work(item_id, request, facts), limits)
        if isinstance(verdict, Refused):
            self._forget(item_id)
            return verdict
        if verdict.tier is not request.segment.tier:
            request = structs.replace(request, segment=_as_batch(request.segment))
        return PictureStream(self._start_item(item_id, request, facts), self._let_go)

    async def paint(
        self, request: PictureRequest, checkpoint: bytes | None = None
    ) -> AsyncGenerator[PictureEvent, None]:
        """Stream one picture, admission or not. Raises InvalidRequest, ShuttingDown, EngineFailed, DeadlineExceeded."""
        item_id, facts = await self._prepare(request, checkpoint)
        async with aclosing(PictureStream(self._start_item(item_id, request, facts), self._let_go)) as events:
            async for event in events:
                yield event

    # ---- in and out ------------------------------------------------------------------------------------------------

    async def _prepare(self, request: PictureRequest, checkpoint: bytes | None) -> tuple[int, ItemFacts]:
        """The engine has it, the scheduler not yet."""
        if self._is_stopping:
            raise ShuttingDown("The server is shutting down; send the request again elsewhere.")
        item_id = next(self._item_ids)
        return item_id, await self._add_to_engine(spec_of(item_id, request), checkpoint)

    def _start_item(self, item_id: int, request: PictureRequest, facts: ItemFacts) -> RunningPicture:
        try:
            self._scheduler.add(self._work(item_id, request, facts), self._clock.now_s())
        except InvalidRequest:
            self._forget(item_id)
            raise
        picture = RunningPicture(item_id, request, facts, request.segment.tier, passes_done=facts.passes_done)
        self._pictures[item_id] = picture
        self._work_arrived.set()
        return picture

    def _work(self, item_id: int, request: PictureRequest, facts: ItemFacts) -> DenoiseWork:
        return work_of(item_id, self._engine.shape.model, request, facts)

    def _verdict(self, work: DenoiseWork, limits: PictureLimits) -> Verdict:
        now_s = self._clock.now_s()
        slower = structs.replace(work, segment=_as_batch(work.segment), deadline_s=None)
        demand = PictureDemand(
            work.segment.tier,
            self._scheduler.forecast(work, now_s),
            self._scheduler.forecast(slower, now_s) if work.may_downgrade else None,
        )
        return admit_picture(demand, self._scheduler.load(now_s), limits, now_s)

    def _kept(self, request: PictureRequest) -> bytes | None:
        if self._checkpoints is None or not is_durable(request):
            return None
        return self._checkpoints.get(request.request_id)

    async def _add_to_engine(self, spec: DenoiseSpec, checkpoint: bytes | None) -> ItemFacts:
        """In a thread: first latents take milliseconds. If the reader leaves meanwhile, the engine forgets the item."""
        adding = asyncio.get_running_loop().run_in_executor(None, self._engine.add, spec, checkpoint)
        try:
            return await asyncio.shield(adding)
        except asyncio.CancelledError:
            adding.add_done_callback(lambda done: self._forget_added(spec.item_id, done))
            raise

    def _forget_added(self, item_id: int, done: "asyncio.Future[ItemFacts]") -> None:
        if not done.cancelled() and done.exception() is None:
            self._forget(item_id)

    def _forget(self, item_id: int) -> None:
        self._removed.append(item_id)
        self._work_arrived.set()

    def _let_go(self, picture: RunningPicture) -> None:
        """The reader is gone or served: whatever still runs for it leaves at this step boundary."""
        if self._pictures.pop(picture.item_id, None) is not None:
            self._scheduler.abort(picture.item_id, self._clock.now_s())
            self._removed.append(picture.item_id)
            self._metrics.observe_cancelled(picture.request)
            self._work_arrived.set()

    def _end(self, picture: RunningPicture, end: SpeciateError) -> None:
        """Producer's side of an end before the picture."""
        if self._pictures.pop(picture.item_id, None) is not None:
            self._removed.append(picture.item_id)
            picture.mailbox.finish(end)
            self._metrics.observe_failed(picture.request, end.code)

    # ---- the loop --------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            await self._run_steps()
        except Exception:  # the loop's own boundary: a bug here must end every stream loudly, not hang it
            log.exception("the replica of %s stopped", self._engine.shape.model)
            self._is_stopping = True
            for picture in list(self._pictures.values()):
                self._end(picture, InvariantError("The server hit a bug in its scheduler; its log has the trace."))

    async def _run_steps(self) -> None:
        while not self._is_stopping:
            self._work_arrived.clear()
            decision = self._scheduler.plan(self._clock.now_s())
            self._announce(decision)
            if decision.plan is None:
                await self._forget_removed()
                await self._wait(decision.wake_s)
            else:
                await self._step(decision.plan)

    async def _forget_removed(self) -> None:
        """Where no step follows that would do it."""
        if self._removed:
            removed, self._removed = self._removed, []
            await self._device.submit(max(TIER_RANK.values()), lambda: self._remove(removed))

    async def _step(self, plan: DenoisePlan) -> None:
        removed, self._removed = self._removed, []  # none of them is in the plan; whoever leaves from now on may be
        rank = min(self._rank_of(share.item_id) for share in plan.items)
        kept = self._kept_after(plan)
        try:
            result, observed_s = await self._device.submit(rank, lambda: self._timed_step(plan, removed, kept))
        except EngineFailed as error:
            self._fail_step(plan, error)
            return
        self._num_failed_steps = 0
        self._commit(plan, result, observed_s)

    def _timed_step(
        self, plan: DenoisePlan, removed: list[int], kept: list[tuple[int, str]]
    ) -> tuple[DenoiseResult, float]:
        """Runs on the worker thread."""
        self._remove(removed)
        started_s = self._clock.now_s()
        try:
            result = self._engine.step(plan)
        except EngineFailed:
            raise
        except Exception as error:  # the boundary to model runtimes: whatever they raise, only this step is lost
            log.exception("step %d failed", plan.step_id)
            raise EngineFailed(f"The engine failed in step {plan.step_id}: {error}. Send the request again.") from error
        observed_s = self._clock.now_s() - started_s
        self._keep(kept, {item_id for item_id, _ in result.failed})
        return result, observed_s

    def _remove(self, removed: list[int]) -> None:
        """Runs on the worker thread."""
        for item_id in removed:
            self._engine.remove(item_id)

    def _keep(self, kept: list[tuple[int, str]], lost: set[int]) -> None:
        """A checkpoint that cannot be written costs the ability to resume, not the picture."""
        if self._checkpoints is None:
            return
        for item_id, request_id in kept:
            if item_id not in lost:
                try:
                    self._checkpoints.put(request_id, self._engine.save(item_id))
                except OSError as error:
                    log.warning("the checkpoint of %s was not written: %s", request_id, error)

    def _kept_after(self, plan: DenoisePlan) -> list[tuple[int, str]]:
        """Items whose work must outlive the process, where this step gets them on."""
        if self._checkpoints is None or plan.stage is not Stage.PASS:
            return []
        running = [self._pictures.get(share.item_id) for share in plan.items]
        return [(p.item_id, p.request.request_id) for p in running if p is not None and is_durable(p.request)]

    def _commit(self, plan: DenoisePlan, result: DenoiseResult, observed_s: float) -> None:
        now_s = self._clock.now_s()
        self._metrics.observe_step(plan.stage, len(plan.items), observed_s)
        lost = frozenset(item_id for item_id, _ in result.failed)
        self._scheduler.commit(StepDone(plan, observed_s, lost), now_s)
        for share in plan.items:
            picture = self._pictures.get(share.item_id)
            if picture is not None and share.item_id not in lost:
                picture.scheduled_s = now_s - observed_s if picture.scheduled_s is None else picture.scheduled_s
                picture.passes_done += plan.stage is Stage.PASS
        for drawn in result.pictures:
            self._deliver(drawn, now_s)
        for item_id, reason in result.failed:
            self._fail(item_id, EngineFailed(f"This picture could not go on: {reason}. Try another seed or size."))
        self._tell_progress(now_s)

    def _deliver(self, drawn: Picture, now_s: float) -> None:
        picture = self._pictures.get(drawn.item_id)
        if picture is None:
            return
        if drawn.is_preview:
            picture.mailbox.put(Preview(picture.num_previews, drawn))
            picture.num_previews += 1
            return
        picture.mailbox.put(Painted(drawn))
        if drawn.first_frame + drawn.num_frames < picture.request.num_frames:
            return
        finish = picture.finish(now_s)
        self._pictures.pop(drawn.item_id)
        self._removed.append(drawn.item_id)
        if self._checkpoints is not None and is_durable(picture.request):
            self._checkpoints.forget(picture.request.request_id)
        self._metrics.observe_finish(picture.request, finish)
        picture.mailbox.finish(finish)

    def _tell_progress(self, now_s: float) -> None:
        for position, pending in enumerate(self._scheduler.load(now_s).pending):
            if picture := self._pictures.get(pending.item_id):
                picture.mailbox.put(Progress(picture.passes_done, picture.facts.num_passes, position, pending.eta_s))

    def _announce(self, decision: DenoiseDecision) -> None:
        for item_id in decision.paused:
            if picture := self._pictures.get(item_id):
                picture.num_pauses += 1
        for item_id, tier in decision.relegated:
            if picture := self._pictures.get(item_id):
                picture.tier = tier
        for item_id in decision.expired:
            if picture := self._pictures.get(item_id):
                self._end(picture, self._too_late(picture))

    def _too_late(self, picture: RunningPicture) -> DeadlineExceeded:
        waited_s = self._clock.now_s() - picture.request.arrival_s
        return DeadlineExceeded(
            f"The request's deadline passed after {waited_s:.3f} s with {picture.passes_done} of "
            f"{picture.facts.num_passes} passes done. Allow more time, ask for fewer steps, or come when it is quieter."
        )

    def _fail_step(self, plan: DenoisePlan, error: EngineFailed) -> None:
        """Nobody advanced; whoever was in the step is told."""
        self._num_failed_steps += 1
        lost = frozenset(share.item_id for share in plan.items)
        self._scheduler.commit(StepDone(plan, 0.0, lost), self._clock.now_s())
        for item_id in sorted(lost):
            self._fail(item_id, error)

    def _fail(self, item_id: int, error: EngineFailed) -> None:
        if picture := self._pictures.get(item_id):
            self._end(picture, error)

    async def _wait(self, wake_s: float | None) -> None:
        """Until something happened since the last plan, or the clock reaches `wake_s`."""
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

    def _rank_of(self, item_id: int) -> int:
        picture = self._pictures.get(item_id)
        return 0 if picture is None else TIER_RANK[picture.tier]


def _as_batch(segment: Segment) -> Segment:
    """What a caller who accepts a slower tier is served as; without a promise of its own."""
    return structs.replace(segment, name=segment.name.replace(segment.tier, Tier.BATCH), tier=Tier.BATCH, slo=Slo())


def is_durable(request: PictureRequest) -> bool:
    """Videos, and whatever a batch asked for: their callers come again after a crash."""
    return request.operation == "video" or request.segment.tier is Tier.BATCH
