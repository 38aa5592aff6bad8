"""What to do now: wait, spot in which zone, or on-demand. Reads a plan's table; the wall holds whatever the table says.

The wall: on-demand is started (or kept) as soon as anything else could cost the deadline. Another choice is open only
while the slack bears its worst case, one whole tick lost, the lines of a preemption too, and the on-demand start after
it. So a deadline holds as long as the work fits on on-demand when the job begins, whatever prices and zones do.
"""

# Shape suffixes follow STYLE; ruff knows them as mixed-case names.
# ruff: noqa: N803

from math import inf

import numpy as np

from speciate.scaling.market import (
    SECONDS_PER_HOUR,
    Choice,
    Decision,
    Hold,
    JobState,
    MarketKind,
    MarketOptions,
    MarketView,
    Reason,
    Run,
    hourly_usd,
    on_demand,
    slack_s,
)
from speciate.scaling.outlook import down_class, up_class
from speciate.scaling.plan import Array, Plan
from speciate.scaling.runs import MarketHistory


def decide(
    job: JobState, views: tuple[MarketView, ...], history: MarketHistory, plan: Plan, options: MarketOptions
) -> Decision:
    """The cheapest choice that the wall leaves open. `views` are of now, one on-demand market among them."""
    wall = on_demand(views)
    spare_s = slack_s(job, wall, options)
    if job.work_s <= 0:
        return Hold(Reason("done", spare_s))
    is_open = {view.name: bears(job, view, wall, options) for view in views}
    may_hold = bears(job, None, wall, options)
    if not may_hold and not any(is_open[view.name] for view in views if view.name != wall.name):
        return Run(wall.name, Reason("wall", spare_s), _replaced(job, wall.name))
    costs = _Costs(plan, job, wall, history, options, views)
    choices = [Choice(None, costs.of_hold())] if may_hold else []
    choices += [Choice(view.name, costs.of(view)) for view in views if is_open[view.name]]
    return _chosen(job, choices, spare_s, options)


def bears(job: JobState, choice: MarketView | None, wall: MarketView, options: MarketOptions) -> bool:
    """Whether the deadline survives the worst that a tick of this choice can do; None is to hold."""
    if choice is not None and choice.name == wall.name:
        return True
    if choice is not None and (not choice.is_available or not _is_spot(choice)):
        return False
    lost_s = 0.0 if choice is None else choice.lost_s / job.num_machines / wall.speed
    away_s = slack_s(job, wall, options) - (wall.start_s - job.starting_s if job.held == wall.name else 0.0)
    return away_s >= options.tick_s + lost_s


def _chosen(job: JobState, choices: list[Choice], spare_s: float, options: MarketOptions) -> Decision:
    """The cheapest; but what runs stays where it is, and what could run does not wait, for less than a trifle."""
    ranked = sorted(choices, key=lambda choice: (choice.cost_usd, choice.market or ""))
    enough_usd = ranked[0].cost_usd * (1 + options.reluctance)
    near = [choice for choice in ranked if choice.market is not None and choice.cost_usd <= enough_usd]
    kept = next((choice for choice in near if choice.market == job.held), None)
    best = kept or next(iter(near), ranked[0])
    reason = Reason("stay" if kept and kept is not ranked[0] else "cheapest", spare_s, tuple(ranked))
    return Hold(reason) if best.market is None else Run(best.market, reason, _replaced(job, best.market))


def _replaced(job: JobState, market: str) -> str | None:
    return job.held if job.held != market else None


def _is_spot(view: MarketView) -> bool:
    return view.kind is MarketKind.SPOT


class _Costs:
    """Expected cost of the rest after each choice: the plan's table read between its layers and columns."""

    def __init__(
        self,
        plan: Plan,
        job: JobState,
        wall: MarketView,
        history: MarketHistory,
        options: MarketOptions,
        views: tuple[MarketView, ...],
    ) -> None:
        self._plan = plan
        self._job = job
        self._wall = wall
        self._history = history
        self._options = options
        self._zones = {spot.name: z for z, spot in enumerate(plan.outlook.spots)}
        self._up = [view.name for view in views if view.is_available and view.name in self._zones]
        self._left_s = plan.deadline_s - job.now_s
        self._room_s = self._left_s - job.left_s / wall.speed
        """Slack on working on-demand machines; everything else needs their start on top."""

    def of_hold(self) -> float:
        plan = self._plan
        return self._least(plan.wait_KZBS, plan.wait_down_KBS, self._left_s, self._room_s - self._wall.start_s)

    def of(self, view: MarketView) -> float:
        start_s = self._job.starting_s if view.name == self._job.held else view.start_s
        usd = hourly_usd(view, self._options) * self._job.num_machines * start_s / SECONDS_PER_HOUR
        return usd + (self._of_wall(start_s) if view.name == self._wall.name else self._of_spot(view, start_s))

    def _of_wall(self, start_s: float) -> float:
        plan = self._plan
        return self._least(plan.wall_KZBS, plan.wall_down_KBS, self._left_s - start_s, self._room_s - start_s)

    def _least(self, up_KZBS: Array, down_KBS: Array, left_s: float, slack_s: float) -> float:
        """By the best of the zones that are up, else by how long none has been."""
        plan, now_s = self._plan, self._job.now_s
        if not self._up:
            return _read(plan, down_KBS[:, down_class(self._history, now_s)], left_s, slack_s)
        return min(
            _read(plan, up_KZBS[:, self._zones[name], up_class(self._history, name, now_s)], left_s, slack_s)
            for name in self._up
        )

    def _of_spot(self, view: MarketView, start_s: float) -> float:
        z = self._zones.get(view.name)
        if z is None:
            return inf
        table = self._plan.run_KZBS[:, z, up_class(self._history, view.name, self._job.now_s)]
        slack_s = self._room_s - self._wall.start_s - start_s
        return _read(self._plan, table, self._left_s - start_s, slack_s)


def _read(plan: Plan, table_KS: Array, left_s: float, slack_s: float) -> float:
    """Between two layers and two columns; held at the table's ends, infinite without slack."""
    if slack_s < 0:
        return inf
    at = min(max(left_s / plan.layer_s, 0.0), len(table_KS) - 1.0)
    low = min(int(at), len(table_KS) - 2)
    column = int(np.searchsorted(plan.slacks_S, slack_s, side="right")) - 1
    column = min(max(column, 0), len(plan.slacks_S) - 2)
    left, right = plan.slacks_S[column], plan.slacks_S[column + 1]
    share = min(1.0, (slack_s - left) / (right - left))
    rows = table_KS[low : low + 2, column] * (1 - share) + table_KS[low : low + 2, column + 1] * share
    return float(rows[0] + (at - low) * (rows[1] - rows[0]))
