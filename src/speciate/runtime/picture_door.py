"""The way into a painter: what is asked is checked, foreseen and admitted before anything is queued."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from speciate.admission.admit_picture import PictureDemand, PictureLimits, admit_picture
from speciate.core.admission import Verdict
from speciate.core.arbiter import Sharer
from speciate.core.denoise import ForesightedEngine
from speciate.core.denoise_scheduler import DenoiseScheduler, DenoiseWork, Forecaster
from speciate.core.picture import PictureRequest
from speciate.core.ports import Clock
from speciate.runtime.painter import Painter
from speciate.runtime.painter_item import PictureStream, RunningPicture, spec_of, work_of

_UNQUEUED = 0
"""Painters number their items from 1."""


class ForecastingScheduler(DenoiseScheduler, Forecaster, Sharer, Protocol):
    """What admission and the arbiter ask of a scheduler beside what a painter does."""


class PictureDoor:
    """Of one device: its painter, and the engines that are loaded there. Owns the painter."""

    def __init__(
        self,
        engines: Mapping[str, ForesightedEngine],
        painter: Painter,
        scheduler: ForecastingScheduler,
        limits: PictureLimits,
        clock: Clock,
    ) -> None:
        self.engines = engines
        self.painter = painter
        self.scheduler = scheduler
        self._limits = limits
        self._clock = clock

    def admit(self, requests: Sequence[PictureRequest]) -> Verdict:
        """Whether all of them may enter; they are alike but for their seeds. Raises InvalidRequest for what the model
        cannot draw."""
        now_s = self._clock.now_s()
        demand = PictureDemand(
            tier=requests[0].segment.tier,
            forecast=self.scheduler.forecast(self._work(requests[0]), now_s, len(requests)),
            num_items=len(requests),
            may_downgrade=requests[0].may_downgrade,
        )
        return admit_picture(demand, self.scheduler.load(now_s), self._limits, now_s)

    def open(self, request: PictureRequest) -> PictureStream:
        """Queue one that was admitted. Raises ShuttingDown."""
        return self.painter.open(request)

    def _work(self, request: PictureRequest) -> DenoiseWork:
        spec = spec_of(_UNQUEUED, request)
        facts = self.engines[request.model].facts(spec)
        return work_of(RunningPicture(spec, request, facts, request.segment.tier))
