"""What the device's thread does for one denoise step: forget, add, compute, save. Knows no scheduler."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from msgspec import Struct, structs

from speciate.core.denoise import DenoiseEngine, DenoisePlan, DenoiseResult
from speciate.core.errors import EngineFailed, SpeciateError
from speciate.core.ports import Clock
from speciate.runtime.painter_item import RunningPicture

log = logging.getLogger(__name__)


class StepRun(Struct, frozen=True):
    """What came out."""

    result: DenoiseResult
    observed_s: float
    """Of the engine's step alone."""
    refused: tuple[tuple[int, str], ...] = ()
    """(item_id, why): the engine would not take these; they were left out."""
    saved: tuple[tuple[int, bytes], ...] = ()
    """(item_id, state after the step)."""


@dataclass(slots=True)
class StepWork:
    """Made on the event loop, run once on the device's thread."""

    plan: DenoisePlan
    engine: DenoiseEngine
    pictures: Mapping[int, RunningPicture]
    clock: Clock
    removed: list[tuple[DenoiseEngine, int]]
    save: frozenset[int] = frozenset()
    taken_s: float = 0.0
    """How long the device was taken, once it is over."""
    _refused: list[tuple[int, str]] = field(default_factory=list)

    def run(self) -> StepRun:
        """Raises EngineFailed when the whole step is lost."""
        began_s = self.clock.now_s()
        try:
            return self._run()
        finally:
            self.taken_s = self.clock.now_s() - began_s

    def _run(self) -> StepRun:
        for engine, item_id in self.removed:
            engine.remove(item_id)
        for item_id, picture in self.pictures.items():
            if not picture.is_added:
                self._add(item_id, picture)
        refused = {item_id for item_id, _ in self._refused}
        plan = structs.replace(self.plan, items=tuple(s for s in self.plan.items if s.item_id not in refused))
        if not plan.items:
            return StepRun(DenoiseResult(), 0.0, tuple(self._refused))
        started_s = self.clock.now_s()
        result = self._compute(plan)
        observed_s = self.clock.now_s() - started_s
        failed = {item_id for item_id, _ in result.failed}
        saved = tuple((i, self.engine.save(i)) for i in sorted(self.save - refused - failed))
        return StepRun(result, observed_s, tuple(self._refused), saved)

    def _add(self, item_id: int, picture: RunningPicture) -> None:
        try:
            self.engine.add(picture.spec, picture.checkpoint)
            picture.is_added, picture.checkpoint = True, None
        except SpeciateError as error:
            self._refused.append((item_id, error.message))

    def _compute(self, plan: DenoisePlan) -> DenoiseResult:
        try:
            return self.engine.step(plan)
        except EngineFailed:
            raise
        except Exception as error:  # the boundary to model runtimes: whatever they raise, only this step is lost
            log.exception("step %d failed", plan.step_id)
            raise EngineFailed(f"The engine failed in step {plan.step_id}: {error}. Send the request again.") from error
