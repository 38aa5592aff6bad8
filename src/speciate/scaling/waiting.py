"""Which jobs run on this machine now, and which wait for its cheaper hours. Pure; one machine, many jobs.

Work due by each deadline, all jobs before it included, is decided on like one job (`decide`): it waits, or it runs.
When what is due by some deadline runs, every job due until then may.

    jobs by deadline     A  ----  B  ----------------  C
    work due by it       2 h      2 + 3 h              2 + 3 + 1 h
    decided              wait     run (no slack)       wait
    may run              A        B                    -

Earliest deadline first keeps every deadline that the work due before it leaves feasible (Liu and Layland 1973), so the
wall that holds for each of these sums holds for each job.
"""

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from speciate.core.window import OpenJob
from speciate.scaling.decide import decide
from speciate.scaling.market import Decision, JobState, MarketOptions, MarketView, Run, hourly_usd
from speciate.scaling.outlook import Forecast, foreseen, outlook, unknown
from speciate.scaling.plan import PlanOptions, plan
from speciate.scaling.runs import MarketHistory

MAX_PLANS = 12
"""Deadlines that are planned for one by one; more are planned for in groups, each by its earliest."""
GRAIN = PlanOptions(num_layers=192)
AHEAD_S = 7 * 86_400.0
AHEAD_OF_WORK = 3.0
"""It is planned for a week ahead at most, or three times the work if that is longer: what is due later is taken to be
due then. Hours are seen in a plan of so long; in one of a year they are not."""
STEP_S = 900.0
"""How finely prices ahead are looked at to see whether they differ at all."""
MAX_STEPS = 4000


class Stance(Struct, frozen=True):
    """What a job does on this machine now."""

    job_id: str
    may_run: bool
    rule: str
    """`flat` (no hour before its deadline is cheaper than this one), `cheapest`, `stay`, `wall` (slack ran out), or
    `before` (it waits for nothing, as what is due after it must run)."""
    slack_s: float
    """Of all that is due by its deadline."""
    cheaper_s: float | None = None
    """When a cheaper hour begins; None where it runs."""


def stances(
    jobs: Sequence[OpenJob],
    here: MarketView,
    options: MarketOptions,
    now_s: float,
    forecast: Forecast = unknown,
    grams: Forecast = unknown,
    sure_share: float = 1.0,
) -> tuple[Stance, ...]:
    """In order of deadline. `work_s` of the jobs is at the pace of this machine, of which `sure_share` is counted on;
    `here` is on-demand without a start. Costs up to 12 plans, some ten milliseconds each, none where prices are flat.
    """
    ordered = sorted(jobs, key=lambda job: (job.deadline_s, job.job_id))
    if not ordered:
        return ()
    cheaper_s = _cheaper_s(here, options, now_s, ordered[-1].deadline_s, forecast, grams)
    groups = _groups(ordered, now_s, sure_share)
    decided: list[tuple[_Group, Decision | None]] = [
        (group, None if cheaper_s is None else _decided(group, here, options, forecast, grams)) for group in groups
    ]
    last_s = max((group.until_s for group, said in decided if said is None or isinstance(said, Run)), default=now_s)
    return tuple(_stance(job, group, said, last_s, cheaper_s) for group, said in decided for job in group.jobs)


class _Group(Struct, frozen=True):
    """Jobs with near deadlines, and all the work that is due by then."""

    jobs: tuple[OpenJob, ...]
    state: JobState

    @property
    def until_s(self) -> float:
        return self.jobs[-1].deadline_s

    @property
    def slack_s(self) -> float:
        return self.jobs[0].deadline_s - self.state.now_s - self.state.work_s


def _groups(ordered: list[OpenJob], now_s: float, sure_share: float) -> list[_Group]:
    size = -(-len(ordered) // MAX_PLANS)
    found, due_s = [], 0.0
    for first in range(0, len(ordered), size):
        jobs = tuple(ordered[first : first + size])
        due_s += sum(job.work_s for job in jobs) / sure_share
        most_s = now_s + max(AHEAD_S, AHEAD_OF_WORK * due_s)
        found.append(_Group(jobs, JobState(due_s, min(jobs[0].deadline_s, most_s), now_s)))
    return found


def _decided(group: _Group, here: MarketView, options: MarketOptions, forecast: Forecast, grams: Forecast) -> Decision:
    """`here` does a second of its own work a second: its speed beside rented machines does not matter."""
    views, history = (replace(here, speed=1.0),), MarketHistory()
    table = plan(outlook(views, history, options, forecast, grams), group.state, options.safety_s, GRAIN)
    return decide(group.state, views, history, table, options)


def _stance(job: OpenJob, group: _Group, said: Decision | None, last_s: float, cheaper_s: float | None) -> Stance:
    slack_s = group.slack_s
    if said is None:
        return Stance(job.job_id, True, "flat", slack_s)
    if isinstance(said, Run):
        return Stance(job.job_id, True, said.reason.rule, slack_s)
    if job.deadline_s <= last_s:
        return Stance(job.job_id, True, "before", slack_s)
    return Stance(job.job_id, False, said.reason.rule, slack_s, cheaper_s)


def _cheaper_s(
    here: MarketView, options: MarketOptions, now_s: float, until_s: float, forecast: Forecast, grams: Forecast
) -> float | None:
    """When the first hour begins that is cheaper than this one, by more than a trifle; None where none is."""

    def usd(at_s: float) -> float:
        return hourly_usd(foreseen(here, at_s, forecast, grams), options)

    now_usd = usd(now_s) * (1 - options.reluctance)
    step_s = max(STEP_S, (until_s - now_s) / MAX_STEPS)
    num_steps = int((until_s - now_s) / step_s)
    times_s = (now_s + step * step_s for step in range(1, num_steps + 1))
    return next((at_s for at_s in times_s if usd(at_s) < now_usd), None)
