"""One loop for the image and video models of a device: plan, step, commit, deliver; and loads beside it.

    take the device -> plan -> (worker thread: step, save) -> commit -> ...
                         `-> load, fetch: in the background

The scheduler is pure and single-threaded: everything here but the engine's methods runs on the event loop.
"""

import asyncio
import itertools
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from typing import Any

from msgspec import structs

from speciate.core.denoise import DenoiseEngine, DenoisePlan, Stage
from speciate.core.denoise_scheduler import (
    Asset,
    DenoiseDecision,
    DenoiseLoad,
    DenoiseScheduler,
    FetchDone,
    LoadDone,
    LoadPlan,
    StepDone,
)
from speciate.core.errors import (
    EngineFailed,
    InvalidRequest,
    InvariantError,
    LoadFailed,
    ShuttingDown,
    SpeciateError,
)
from speciate.core.picture import Checkpoints, PictureEvent, PictureFinish, PictureRequest
from speciate.core.ports import Clock
from speciate.core.segment import TIER_RANK
from speciate.runtime.device import Device
from speciate.runtime.model_shelf import ModelShelf
from speciate.runtime.painter_item import (
    NoWatch,
    PaintWatch,
    PictureStream,
    RunningPicture,
    expired,
    names_of,
    pack,
    spec_of,
    unpack,
    work_of,
)
from speciate.runtime.saver import Saver
from speciate.runtime.shared_device import OwnSeat, Seat
from speciate.runtime.step_run import StepRun, StepWork

log = logging.getLogger(__name__)

PROGRESS_EVERY_S = 0.1
"""Places in the queue are looked up at most so often: it costs as much as there are items."""
SAVE_EVERY_S = 1.0
"""An item's state is saved after a pass if the last time is so long ago: of videos, whose passes take seconds, every
pass."""
MAX_FAILED_STEPS = 3
"""After so many lost steps in a row the painter calls itself unhealthy (it goes on trying)."""
MAX_TRIES = 2
"""Lost steps that an item survives, less one."""


class Painter:
    """Implements `PictureEngine`. `start` before use, `stop` once; the caller closes the device."""

    def __init__(
        self,
        shelf: ModelShelf,
        scheduler: DenoiseScheduler,
        device: Device,
        clock: Clock,
        checkpoints: Checkpoints | None = None,
        watch: PaintWatch | None = None,
    ) -> None:
        self._shelf = shelf
        self._scheduler = scheduler
        self._device = device
        self._clock = clock
        self._seat: Seat = OwnSeat()
        self._watch: PaintWatch = watch or NoWatch()
        self._saver = None if checkpoints is None else Saver(checkpoints)
        self._item_ids = itertools.count(1)
        self._pictures: dict[int, RunningPicture] = {}
        self._removed: list[tuple[int, str]] = []
        self._moves: set[asyncio.Task[None]] = set()
        self._work_arrived = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None
        self._told_at_s = -PROGRESS_EVERY_S
        self._num_failed_steps = 0
        self._is_stopping = False

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
        self._loop = asyncio.get_running_loop().create_task(self._run(), name="painter")

    async def stop(self) -> None:
        """End after the running step. Open streams raise ShuttingDown; what was saved stays; engines are closed."""
        self._is_stopping = True
        self._work_arrived.set()
        self._seat.leave()
        if self._loop is not None:
            await self._loop
        for move in list(self._moves):
            await asyncio.wait([move])
        for picture in list(self._pictures.values()):
            self._end(picture, ShuttingDown("The server is shutting down; send the request again elsewhere."))
        if self._saver is not None:
            await self._saver.close()
        self._shelf.close()

    def load(self) -> DenoiseLoad:
        return self._scheduler.load(self._clock.now_s())

    def check(self) -> None:
        """Raise InvariantError if the scheduler's accounting does not add up."""
        self._scheduler.check()

    async def paint(
        self, request: PictureRequest, checkpoint: bytes | None = None
    ) -> AsyncGenerator[PictureEvent, None]:
        """Stream one picture; `checkpoint` is what a `Checkpoints` kept of it. Raises InvalidRequest, ModelNotFound,
        ShuttingDown, EngineFailed, DeadlineExceeded, LoadFailed."""
        async with aclosing(self.open(request, checkpoint)) as events:
            async for event in events:
                yield event

    def open(self, request: PictureRequest, checkpoint: bytes | None = None) -> PictureStream:
        """As `paint`, begun at once."""
        picture = self._take_in(request, checkpoint)
        return PictureStream(picture.mailbox.events(), lambda: self._let_go(picture))

    # ---- in and out ------------------------------------------------------------------------------------------------

    def _take_in(self, request: PictureRequest, kept: bytes | None) -> RunningPicture:
        if self._is_stopping:
            raise ShuttingDown("The server is shutting down; send the request again elsewhere.")
        saved = None if kept is None else unpack(kept)
        state = None if saved is None else saved.state
        spec = spec_of(next(self._item_ids), request)
        facts, is_added = self._shelf.admit(request.model, spec, state)
        if saved is not None:
            facts = structs.replace(facts, passes_done=saved.passes_done)
        picture = RunningPicture(spec, request, facts, request.segment.tier, state, is_added)
        picture.passes_done, picture.saved_s = facts.passes_done, self._clock.now_s()
        try:
            self._scheduler.add(work_of(picture), self._clock.now_s())
        except InvalidRequest:
            self._remove(picture)
            raise
        self._pictures[spec.item_id] = picture
        self._work_arrived.set()
        return picture

    def _let_go(self, picture: RunningPicture) -> None:
        """The reader is gone or served: whatever still runs for it leaves at this step boundary."""
        if self._pictures.pop(picture.spec.item_id, None) is not None:
            self._scheduler.abort(picture.spec.item_id, self._clock.now_s())
            self._remove(picture)
            self._watch.left(picture.request)
            self._work_arrived.set()

    def _remove(self, picture: RunningPicture) -> None:
        """The engine forgets it before the next step."""
        if picture.is_added:
            self._removed.append((picture.spec.item_id, picture.request.model))
            picture.is_added = False

    def _end(self, picture: RunningPicture, end: PictureFinish | SpeciateError) -> None:
        """Producer's side of the end: it is over, whoever reads or not."""
        if self._pictures.pop(picture.spec.item_id, None) is None:
            return
        self._remove(picture)
        self._watch.ended(picture.request, end)
        if self._saver is None:
            picture.mailbox.finish(end)
        else:
            self._saver.settle(picture.request.request_id, lambda: picture.mailbox.finish(end))

    # ---- the loop --------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            await self._run_steps()
        except Exception:  # the loop's own boundary: a bug here must end every stream loudly, not hang it
            log.exception("the painter stopped")
            self._is_stopping = True
            for picture in list(self._pictures.values()):
                self._end(picture, InvariantError("The server hit a bug in its scheduler; its log has the trace."))

    async def _run_steps(self) -> None:
        while not self._is_stopping:
            self._work_arrived.clear()
            within_s = await self._seat.take()
            decision = self._scheduler.plan(self._clock.now_s(), within_s)
            self._announce(decision)
            if decision.plan is None:
                self._seat.pass_on()
                await self._wait(decision.wake_s)
            else:
                self._seat.release(await self._step(decision.plan))

    async def _step(self, plan: DenoisePlan) -> float:
        """Returns the seconds that the device was taken."""
        pictures = {step.item_id: self._pictures[step.item_id] for step in plan.items}
        rank = min(TIER_RANK[picture.tier] for picture in pictures.values())
        work = StepWork(plan, self._engine_of(plan.model), pictures, self._clock, self._take_removed())
        work.save = frozenset(i for i, picture in pictures.items() if self._wants_saving(plan, picture))
        try:
            done = await self._device.submit(rank, work.run)
        except EngineFailed as error:
            self._fail_step(plan, pictures, error)
        else:
            self._num_failed_steps = 0
            self._commit(plan, pictures, done)
        for item_id, picture in pictures.items():
            if item_id not in self._pictures:
                self._remove(picture)  # whoever left while the engine took it in
        return work.taken_s

    def _engine_of(self, model: str) -> DenoiseEngine:
        engine = self._shelf.engine(model)
        if engine is None:
            raise InvariantError(f"a step of {model} was planned, which is not on the device")
        return engine

    def _take_removed(self) -> list[tuple[DenoiseEngine, int]]:
        removed, self._removed = self._removed, []
        found = ((self._shelf.engine(model), item_id) for item_id, model in removed)
        return [(engine, item_id) for engine, item_id in found if engine is not None]

    def _wants_saving(self, plan: DenoisePlan, picture: RunningPicture) -> bool:
        if self._saver is None or plan.stage is not Stage.PASS:
            return False
        return self._clock.now_s() - picture.saved_s >= SAVE_EVERY_S

    def _commit(self, plan: DenoisePlan, pictures: dict[int, RunningPicture], done: StepRun) -> None:
        now_s = self._clock.now_s()
        self._watch.stepped(plan, done.observed_s)
        failed = (*done.refused, *done.result.failed)
        lost = frozenset(item_id for item_id, _ in failed)
        self._scheduler.commit(StepDone(plan, done.observed_s, lost), now_s)
        for item_id, reason in failed:
            self._end(pictures[item_id], EngineFailed(f"This picture could not go on: {reason}."))
        for item_id, state in done.saved:
            self._keep(pictures[item_id], state, now_s)
        if plan.stage is Stage.PASS:
            self._count_passes(pictures, lost)
        for pixels in done.result.pictures:
            pictures[pixels.item_id].take(pixels)
        if plan.stage is Stage.DECODE:
            self._finish_decoded(plan, pictures, now_s)
        self._tell_places(now_s)

    def _count_passes(self, pictures: dict[int, RunningPicture], lost: frozenset[int]) -> None:
        for item_id, picture in pictures.items():
            if item_id not in lost:
                picture.passes_done += 1
                picture.stand()

    def _finish_decoded(self, plan: DenoisePlan, pictures: dict[int, RunningPicture], now_s: float) -> None:
        for step in plan.items:
            picture = pictures[step.item_id]
            if step.index + 1 == picture.facts.num_decode_slices:
                self._end(picture, picture.finish(now_s))

    def _keep(self, picture: RunningPicture, state: bytes, now_s: float) -> None:
        """The state was taken after the pass that is being committed."""
        picture.saved_s = now_s
        if self._saver is not None and picture.spec.item_id in self._pictures:
            self._saver.put(picture.request.request_id, pack(picture.passes_done + 1, state))

    def _tell_places(self, now_s: float) -> None:
        if now_s - self._told_at_s < PROGRESS_EVERY_S:
            return
        self._told_at_s = now_s
        for place, pending in enumerate(self._scheduler.load(now_s).pending):
            if picture := self._pictures.get(pending.item_id):
                picture.queue_position, picture.eta_s = place, pending.eta_s
                picture.stand()

    def _fail_step(self, plan: DenoisePlan, pictures: dict[int, RunningPicture], error: EngineFailed) -> None:
        """Items stand where they stood: each may try once more."""
        self._num_failed_steps += 1
        for picture in pictures.values():
            picture.num_failed_steps += 1
        lost = frozenset(item_id for item_id, picture in pictures.items() if picture.num_failed_steps >= MAX_TRIES)
        now_s = self._clock.now_s()
        self._scheduler.commit(StepDone(plan, 0.0, frozenset(), is_failed=True), now_s)
        for item_id in lost:
            self._scheduler.abort(item_id, now_s)
            self._end(pictures[item_id], error)

    def _announce(self, decision: DenoiseDecision) -> None:
        now_s = self._clock.now_s()
        for item_id in decision.paused:
            if picture := self._pictures.get(item_id):
                picture.num_pauses += 1
        for item_id, tier in decision.relegated:
            if picture := self._pictures.get(item_id):
                picture.tier = tier
        for item_id in decision.expired:
            if picture := self._pictures.get(item_id):
                self._end(picture, expired(picture, now_s))
        for step in decision.plan.items if decision.plan is not None else ():
            picture = self._pictures[step.item_id]
            picture.scheduled_s = now_s if picture.scheduled_s is None else picture.scheduled_s
        self._move(decision)

    # ---- loads and fetches -----------------------------------------------------------------------------------------

    def _move(self, decision: DenoiseDecision) -> None:
        for asset in decision.drop:
            self._shelf.drop(asset)
        if decision.load is not None:
            self._begin(self._load(decision.load))
        for asset in decision.fetch:
            self._begin(self._fetch(asset))

    def _begin(self, move: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(move)
        self._moves.add(task)
        task.add_done_callback(self._moves.discard)

    async def _load(self, plan: LoadPlan) -> None:
        began_s = self._clock.now_s()
        error: SpeciateError | None = None
        try:
            await self._on_device(lambda: self._put_aside(plan.unload))
            await self._shelf.load(plan, self._on_device)
        except SpeciateError as raised:
            error = raised
        except Exception as raised:  # the boundary to model runtimes: whatever they raise, only this load is lost
            log.exception("loading %s failed", plan.asset)
            error = LoadFailed(f"{plan.asset.model} could not be loaded: {raised}. See the server's log.")
        now_s = self._clock.now_s()
        self._scheduler.commit(LoadDone(plan, now_s - began_s, error is not None), now_s)
        if error is not None:
            self._fail_asset(plan.asset, error)
        self._work_arrived.set()

    async def _fetch(self, asset: Asset) -> None:
        began_s = self._clock.now_s()
        is_failed = False
        try:
            await self._shelf.fetch(asset)
        except Exception:  # the boundary to model runtimes: its load will say what is wrong
            log.exception("fetching %s failed", asset)
            is_failed = True
        now_s = self._clock.now_s()
        self._scheduler.commit(FetchDone(asset, now_s - began_s, is_failed), now_s)
        self._work_arrived.set()

    def _on_device(self, run: Callable[[], None]) -> "asyncio.Future[None]":
        return self._device.submit(0, run)

    def _put_aside(self, assets: tuple[Asset, ...]) -> None:
        """Runs on the device's thread: the items of models that leave keep their state here."""
        for asset in assets:
            engine = None if asset.adapter else self._shelf.engine(asset.model)
            for picture in list(self._pictures.values()) if engine is not None else ():
                if picture.is_added and picture.request.model == asset.model and engine is not None:
                    picture.checkpoint, picture.is_added = engine.save(picture.spec.item_id), False
                    engine.remove(picture.spec.item_id)

    def _fail_asset(self, asset: Asset, error: SpeciateError) -> None:
        for picture in list(self._pictures.values()):
            request = picture.request
            if request.model == asset.model and (not asset.adapter or asset.adapter in names_of(request)):
                self._scheduler.abort(picture.spec.item_id, self._clock.now_s())
                self._end(picture, error)

    async def _wait(self, wake_s: float | None) -> None:
        """Until work arrives, or the clock reaches `wake_s`."""
        if self._is_stopping:
            return
        timeout_s = None if wake_s is None else max(0.0, wake_s - self._clock.now_s())
        try:
            async with asyncio.timeout(timeout_s):
                await self._work_arrived.wait()
        except TimeoutError:
            return
