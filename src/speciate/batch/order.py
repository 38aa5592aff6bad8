"""Which job's lines run next, and how many at once. Pure: facts and `now_s` in, wants out.

Fairness between tenants, unless a job is short of time: then laxity decides. Suspects run alone, in ever smaller
groups.
"""

from collections.abc import Callable, Mapping

from msgspec import Struct

from speciate.batch.records import JobFacts, LineState, Want

URGENT = 0.5
"""A job goes before all others when less than this share of its time is spare."""
SUSPECT_GROUPS = (16, 4, 1)
"""Suspects that may run at once after one, two, and more deaths. Whoever dies with one alone has convicted it."""


class Credit(Struct, frozen=True):
    """How many lines may be in flight."""

    least: int = 16
    most: int = 512
    ahead: int = 32
    """Lines beside those that run, so that a step never lacks work."""

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
    """Up to so many lines: those short of time by deadline, then tenants by least served, within one by deadline.

    `rate_of` is the pace of a model, lines a second.
    """
    wants: list[Want] = []
    left = num_lines
    for job in sorted(jobs, key=lambda job: _order(job, served, rate_of(job.model), now_s)):
        waiting = job.num_open - in_flight.get(job.key, 0)
        take = min(left, waiting)
        if take > 0:
            wants.append(Want(job.key, take))
            left -= take
    return tuple(wants)


def laxity_s(job: JobFacts, rate_per_s: float, now_s: float) -> float:
    """Time to the deadline that the job's own work, at the observed rate of lines, does not need."""
    return job.deadline_s - now_s - job.num_open / rate_per_s


def is_urgent(job: JobFacts, rate_per_s: float, now_s: float) -> bool:
    return laxity_s(job, rate_per_s, now_s) < URGENT * max(0.0, job.deadline_s - now_s)


def _order(
    job: JobFacts, served: Mapping[str, float], rate_per_s: float, now_s: float
) -> tuple[int, float, float, int]:
    if is_urgent(job, rate_per_s, now_s):
        return 0, job.deadline_s, 0.0, job.key
    return 1, served.get(job.tenant, 0.0), job.deadline_s, job.key
