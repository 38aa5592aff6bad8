"""Asks the market decisions for the worker: which jobs wait for cheaper hours of this machine, and what a fleet would
rent for them. Decides anew every tick, and when jobs come or go; looks at prices and zones meanwhile.
"""

import asyncio
import logging
from collections.abc import Callable

from msgspec import Struct

from speciate.batch.market_sources import MarketBoard
from speciate.batch.order import OWN_PACE
from speciate.batch.pace import UNKNOWN_RATE
from speciate.batch.records import JobFacts
from speciate.core.errors import SpeciateError
from speciate.core.ports import Clock
from speciate.core.window import OpenJob
from speciate.scaling.outlook import unknown
from speciate.scaling.spec import here_view
from speciate.scaling.waiting import Stance, stances
from speciate.scaling.ways import LocalWork, Way, rented, varying_here

log = logging.getLogger(__name__)

CHANGED_S = 2.0
"""After jobs came or went it is decided anew so much later at the soonest."""
MOST_ADVISED = 8
"""Jobs of the earliest deadlines for which it is worked out what a fleet would rent: a tenth of a second each."""
SCENARIOS = 8


class JobOutlook(Struct, frozen=True):
    """What was decided for a job, and when."""

    decided_s: float
    stance: Stance | None
    """None: nothing is known of its pace yet, so it runs."""
    rented: Way | None
    """What would be cheapest with the offered machines; None where none is offered, or it was not worked out."""


class Holding:
    """`start` on the event loop, `stop` once. `may_run` is asked before lines are claimed."""

    def __init__(self, board: MarketBoard, rate_of: Callable[[str], float], clock: Clock) -> None:
        """`rate_of` is the pace of a model, lines a second, infinite where it is not known."""
        self._board = board
        self._rate_of = rate_of
        self._clock = clock
        self._outlooks: dict[int, JobOutlook] = {}
        self._known: frozenset[tuple[int, bool]] = frozenset()
        self._decided_s = float("-inf")
        self._task: asyncio.Task[None] | None = None

    @property
    def decides(self) -> bool:
        """Whether there is anything to decide or to tell."""
        return _waits(self._board) or bool(self._board.spec.offers)

    def start(self) -> None:
        if self.decides:
            self._task = asyncio.create_task(self._look())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def outlook_of(self, batch_key: int) -> JobOutlook | None:
        return self._outlooks.get(batch_key)

    async def may_run(self, jobs: list[JobFacts]) -> list[JobFacts]:
        """Those that wait for nothing. A job that came a moment ago waits until it is decided on."""
        if not self.decides:
            return jobs
        await self._decide(jobs)
        return [job for job in jobs if self._is_free(job)]

    def _is_free(self, job: JobFacts) -> bool:
        outlook = self._outlooks.get(job.key)
        if outlook is None:
            return not _waits(self._board)
        return outlook.stance is None or outlook.stance.may_run

    async def _decide(self, jobs: list[JobFacts]) -> None:
        now_s = self._clock.now_s()
        known = frozenset((job.key, self._rate_of(job.model) != UNKNOWN_RATE) for job in jobs)
        age_s = now_s - self._decided_s
        if age_s < (CHANGED_S if known != self._known else self._board.spec.options.tick_s):
            return
        self._known, self._decided_s = known, now_s
        if jobs:
            open_jobs = [self._open_job(job) for job in jobs]
            self._outlooks = await asyncio.to_thread(_outlooks, self._board, open_jobs, now_s)

    def _open_job(self, job: JobFacts) -> OpenJob:
        """At an unknown pace its work counts as nothing."""
        work_s = job.num_open / self._rate_of(job.model)
        return OpenJob(str(job.key), work_s, job.deadline_s, job.tenant, job.num_open)

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(self._board.spec.refresh_s)
            try:
                await asyncio.to_thread(self._board.refresh, self._clock.now_s())
            except SpeciateError as error:
                log.warning("looking at markets failed: %s; trying again", error)


def _waits(board: MarketBoard) -> bool:
    return board.spec.here.waits and varying_here(board.spec)


def _outlooks(board: MarketBoard, jobs: list[OpenJob], now_s: float) -> dict[int, JobOutlook]:
    """Blocks for some ten to some hundred milliseconds."""
    paced = [job for job in jobs if job.work_s > 0]
    signals, spec = board.signals, board.spec
    here = here_view(spec, signals, now_s)
    prices = signals.prices.usd_per_h if _waits(board) else unknown
    grams = signals.carbon.gco2_per_kwh if _waits(board) else unknown
    said = stances(paced, here, spec.options, now_s, prices, grams, OWN_PACE.safety)
    found = {stance.job_id: stance for stance in said}
    ways = _rented(board, paced, now_s)
    return {int(job.job_id): JobOutlook(now_s, found.get(job.job_id), ways.get(job.job_id)) for job in jobs}


def _rented(board: MarketBoard, jobs: list[OpenJob], now_s: float) -> dict[str, Way]:
    if not board.spec.offers:
        return {}
    ordered = sorted(jobs, key=lambda job: (job.deadline_s, job.job_id))[:MOST_ADVISED]
    found, ahead_s = {}, 0.0
    for job in ordered:
        work = LocalWork(job.work_s, ahead_s, job.deadline_s, now_s, OWN_PACE.safety)
        found[job.job_id] = rented(board.spec, board.signals, work, board.history, SCENARIOS)[0]
        ahead_s += job.work_s
    return found
