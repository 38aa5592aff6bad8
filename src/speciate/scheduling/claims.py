"""Which jobs' lines to claim next: urgent jobs by deadline, then tenants by service, then lines with equal prefixes.

While every deadline can bear it, tenants share; the jobs that cannot bear it any more go first, in order of deadline.

    jobs by deadline      A ---- B ---- C ---------- D
    laxity (with all before)  900    40    700       5000       horizon 60: B is tight, so A and B are urgent
    urgent:               A, B            (the work before a tight deadline, A's too, must come first)
    by service:           C, D

Work on an urgent job costs a tight deadline nothing (time passes, its work shrinks as fast), so laxity falls no
further: what was feasible stays feasible, as long as less than a horizon of work is claimed at once.
"""

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from speciate.core.window import OpenJob, Supply
from speciate.costs.laxity import places


class ClaimOptions(Struct, frozen=True):
    """What an operator may turn."""

    horizon_s: float = 600.0
    """A job becomes urgent when its laxity falls below this; more than the work that is claimed at once takes."""


class Claim(Struct, frozen=True):
    """Claim this many lines of this job."""

    job_id: str
    num_lines: int


class Urgency(Struct, frozen=True):
    """How much a job presses."""

    job: OpenJob
    laxity_s: float
    """The least of its own and of all jobs due after it: what it may wait for without making anyone late."""
    urgency: float
    """0: at least a horizon of laxity is left; 1: none is, it must run now; in between it rises linearly."""


class Line(Struct, frozen=True):
    """A line of a job, as far as order is concerned."""

    index: int
    prefix: str
    """Equal for lines whose prompts begin alike; empty when unknown."""


def urgencies(jobs: Iterable[OpenJob], supply: Supply, options: ClaimOptions, now_s: float) -> tuple[Urgency, ...]:
    """In order of deadline; along it urgency never rises. At a rate of 0 all are urgent."""
    if supply.sure_rate <= 0:
        ordered = sorted(jobs, key=lambda job: (job.deadline_s, job.job_id))
        return tuple(Urgency(job, 0.0, 1.0) for job in ordered)
    found: list[Urgency] = []
    least_s = float("inf")
    for place in reversed(places(jobs, supply, now_s)):
        least_s = min(least_s, place.laxity_s)
        found.append(Urgency(place.job, least_s, min(1.0, max(0.0, 1.0 - least_s / options.horizon_s))))
    return tuple(reversed(found))


def claims(
    jobs: Iterable[OpenJob],
    served: Mapping[str, float],
    num_lines: int,
    supply: Supply,
    options: ClaimOptions,
    now_s: float,
) -> tuple[Claim, ...]:
    """Up to `num_lines` lines: all of the urgent jobs by deadline, then a line at a time of the least served tenant.

    `served` holds weighted tokens by tenant so far (virtual token counters, VTC, OSDI 2024); one that is missing
    starts level with the least served. Jobs of one tenant go by deadline. One claim a job; order is order of claiming.
    """
    ranked = urgencies(jobs, supply, options, now_s)
    urgent = [rank.job for rank in ranked if rank.urgency > 0]
    patient = [rank.job for rank in ranked if rank.urgency == 0]
    first = _in_turn(urgent, num_lines)
    left = num_lines - sum(claim.num_lines for claim in first)
    return first + _shared(patient, served, left)


def grouped(lines: Sequence[Line], warm: frozenset[str] = frozenset()) -> tuple[Line, ...]:
    """Lines with equal prefixes side by side, so that a prefix cache computes each once.

    Warm prefixes (in the cache now) go first; then groups by their first line; inside a group by index.
    """
    first: dict[str, int] = {}
    for line in sorted(lines, key=lambda line: line.index):
        first.setdefault(line.prefix, line.index)

    def place(line: Line) -> tuple[bool, int, int]:
        return line.prefix not in warm, first[line.prefix] if line.prefix else line.index, line.index

    return tuple(sorted(lines, key=place))


def _in_turn(jobs: list[OpenJob], num_lines: int) -> tuple[Claim, ...]:
    found: list[Claim] = []
    for job in jobs:
        take = min(job.num_lines, num_lines)
        num_lines -= take
        if take:
            found.append(Claim(job.job_id, take))
    return tuple(found)


def _shared(jobs: list[OpenJob], served: Mapping[str, float], num_lines: int) -> tuple[Claim, ...]:
    """Water-filling, a line at a time: O(lines x tenants)."""
    queues: dict[str, list[OpenJob]] = {}
    for job in reversed(jobs):
        if job.num_lines:
            queues.setdefault(job.tenant, []).append(job)
    level = min((served[tenant] for tenant in queues if tenant in served), default=0.0)
    counters = {tenant: served.get(tenant, level) for tenant in queues}
    taken: dict[str, int] = {}
    while num_lines > 0 and queues:
        tenant = min(queues, key=lambda name: (counters[name], name))
        job = queues[tenant][-1]
        taken[job.job_id] = taken.get(job.job_id, 0) + 1
        counters[tenant] += job.line_tokens
        num_lines -= 1
        if taken[job.job_id] == job.num_lines:
            queues[tenant].pop()
            if not queues[tenant]:
                del queues[tenant]
    return tuple(Claim(job_id, num) for job_id, num in taken.items())
