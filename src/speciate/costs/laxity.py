"""Laxity of jobs that share a machine: earliest deadline first, on a fluid machine. An estimate; decides nothing."""

from collections.abc import Iterable

from msgspec import Struct

from speciate.core.window import OpenJob, Supply


class Place(Struct, frozen=True):
    """A job where earliest deadline first would put it."""

    job: OpenJob
    work_s: float
    """Of this job and of all before it, device-seconds."""
    laxity_s: float
    """Seconds that the machine may do something else before this job's deadline, were all before it done first.
    Negative: it will be late."""


def places(jobs: Iterable[OpenJob], supply: Supply, now_s: float) -> tuple[Place, ...]:
    """In order of deadline (then id). Needs a rate above 0; O(n log n)."""
    found: list[Place] = []
    work_s = 0.0
    for job in sorted(jobs, key=lambda job: (job.deadline_s, job.job_id)):
        work_s += job.work_s
        laxity_s = job.deadline_s - supply.tail_s - now_s - work_s / supply.sure_rate
        found.append(Place(job, work_s, laxity_s))
    return tuple(found)
