"""Which job's lines run next, and how many at once. Pure: facts and `now_s` in, wants out.

Fairness between tenants, unless a job is short of time: then laxity decides (`scheduling/claims.py`). Suspects run
alone, in ever smaller groups.
"""

from collections.abc import Callable, Mapping

from msgspec import Struct

from speciate.batch.records import JobFacts, LineState, Want
from speciate.core.window import OpenJob, Supply
from speciate.scheduling.claims import ClaimOptions, claims

OWN_PACE = Supply(rate=1.0)
"""Work is counted in seconds at the pace that was observed, so a second of work takes one."""
CLAIMS = ClaimOptions()
SUSPECT_GROUPS = (16, 4, 1)
"""Suspects that may run at once after one, two, and more deaths. Whoever dies with one alone has convicted it."""


class Credit(Struct, frozen=True):
    """How many lines may be in flight."""

    least: int = 16
    most: int = 512
    ahead: int = 32
    """Lines beside those that run, so that a step never lacks work."""

    @property
    def most_held(self) -> int:
        """With those that were answered and wait for the disk: while they do, the engine goes on."""
        return 2 * self.most

    def allowed(self, num_running: int) -> int:
        """Twice what runs and a few more: grows while the engine takes more, stops growing when it does not."""
        return max(self.least, min(self.most, 2 * num_running + self.ahead))


def suspects_first(jobs: list[JobFacts]) -> Want | None:
    """The next group of suspects, if any waits: those with fewest deaths first, so that the innocent are soon cleared
    and whoever stops the process again and again from outside hits ever others."""
    first = min((job for job in jobs if job.suspect_deaths), key=lambda job: job.suspect_deaths, default=None)
    if first is None:
        return None
    size = SUSPECT_GROUPS[min(first.suspect_deaths, len(SUSPECT_GROUPS)) - 1]
    return Want(first.key, size, LineState.SUSPECT)


def choose(
    jobs: list[JobFacts],
    served: Mapping[str, float],
    in_flight: Mapping[int, int],
    rate_of: Callable[[str], float],
    num_lines: int,
    now_s: float,
) -> tuple[Want, ...]:
    """Up to so many lines: urgent jobs by deadline, then tenants by service (`scheduling.claims`, by which deadlines
    that can be kept are kept).

    `rate_of` is the pace of a model, lines a second.
    """
    found = claims((_open_job(job, in_flight, rate_of) for job in jobs), served, num_lines, OWN_PACE, CLAIMS, now_s)
    return tuple(Want(int(claim.job_id), claim.num_lines) for claim in found)


def _open_job(job: JobFacts, in_flight: Mapping[int, int], rate_of: Callable[[str], float]) -> OpenJob:
    return OpenJob(
        job_id=str(job.key),
        work_s=job.num_open / rate_of(job.model),
        deadline_s=job.deadline_s,
        tenant=job.tenant,
        num_lines=max(0, job.num_open - in_flight.get(job.key, 0)),
    )
