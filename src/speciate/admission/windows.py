"""May a job with a completion window enter? Refused with the earliest deadline that can be kept. Reads no clock.

Earliest deadline first meets every deadline that any order can meet (Liu and Layland 1973), so it is the test: a job
may enter if, with it, every open job still has its work done at the sure rate by its deadline.

    laxity of what is due at d  =  d - tail - now - (work due by d) / sure rate

A new job costs every later deadline `work / sure rate` of laxity, and none before it.
"""

from collections.abc import Iterable
from math import inf

from msgspec import Struct

from speciate.core.window import OpenJob, Supply
from speciate.costs.laxity import places


class WindowAccepted(Struct, frozen=True, tag="accepted"):
    """All deadlines hold, the new one included."""

    laxity_s: float
    """Seconds to spare before the new deadline."""


class WindowRefused(Struct, frozen=True, tag="refused"):
    """The window cannot be kept beside what was promised already."""

    reason: str
    """What is missing, the value, and what to do."""
    earliest_deadline_s: float
    """The earliest deadline that would be accepted now; inf while no work gets done at all."""


WindowVerdict = WindowAccepted | WindowRefused


def feasible_window(
    jobs: Iterable[OpenJob], work_s: float, deadline_s: float, supply: Supply, now_s: float
) -> WindowVerdict:
    """Whether `work_s` more device-seconds can be done by `deadline_s` beside the open jobs. O(n log n).

    A job that is late already also refuses deadlines before its own: another one would make it later still.
    """
    earliest_s = earliest_deadline_s(jobs, work_s, supply, now_s)
    if deadline_s >= earliest_s:
        due_s = sum(job.work_s for job in jobs if job.deadline_s <= deadline_s) + work_s
        return WindowAccepted(deadline_s - supply.tail_s - now_s - due_s / supply.sure_rate)
    return WindowRefused(_reason(work_s, deadline_s, earliest_s, supply, now_s), earliest_s)


def earliest_deadline_s(jobs: Iterable[OpenJob], work_s: float, supply: Supply, now_s: float) -> float:
    """The first moment by which `work_s` more can be promised; inf at a rate of 0.

    Behind the last open job that could not bear the wait, and then only as long as the work due by then takes.
    """
    if supply.sure_rate <= 0:
        return inf
    takes_s = work_s / supply.sure_rate
    before_s = 0.0
    for place in places(jobs, supply, now_s):
        if place.laxity_s < takes_s:
            before_s = place.work_s
    return now_s + supply.tail_s + (before_s + work_s) / supply.sure_rate


def _reason(work_s: float, deadline_s: float, earliest_s: float, supply: Supply, now_s: float) -> str:
    if earliest_s == inf:
        return "Nothing is being computed for batch work now, so no window can be promised; try again later."
    return (
        f"{work_s:.0f} s of work cannot be done within {deadline_s - now_s:.0f} s beside what is promised already "
        f"(rate {supply.rate:.2f}, of which {supply.safety:.0%} is counted on); "
        f"ask for a window of {earliest_s - now_s:.0f} s or more"
    )
