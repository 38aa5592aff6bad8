"""Who decides in a replay: ours, and what it is compared with. One object serves one job."""

from collections.abc import Callable

from speciate.scaling.decide import bears, decide
from speciate.scaling.market import (
    Decision,
    Hold,
    JobState,
    MarketKind,
    MarketOptions,
    MarketView,
    Reason,
    Run,
    on_demand,
    slack_s,
)
from speciate.scaling.outlook import Forecast, outlook
from speciate.scaling.plan import DEFAULT_GRAIN, Plan, PlanOptions, plan
from speciate.scaling.runs import MarketHistory
from speciate.sim.market import MarketPolicy


class OnDemandOnly:
    """Starts at once and pays the list price."""

    name = "on-demand only"

    def decide(self, job: JobState, views: tuple[MarketView, ...], history: MarketHistory) -> Decision:
        return _run(job, on_demand(views), "cheapest")


class SpotGreedy:
    """Any spot there is, the cheapest first, and nothing else: it may be late."""

    name = "spot only, greedy"

    def decide(self, job: JobState, views: tuple[MarketView, ...], history: MarketHistory) -> Decision:
        spot = _spot(job, views)
        return _run(job, spot, "cheapest") if spot else Hold(Reason("cheapest", 0.0))


class SpotThenWall:
    """Spot while the wall allows, then on-demand to the end: the greedy policy of Can't Be Late."""

    name = "spot, then wall"

    def __init__(self, options: MarketOptions) -> None:
        self._options = options
        self._is_late = False

    def decide(self, job: JobState, views: tuple[MarketView, ...], history: MarketHistory) -> Decision:
        wall = on_demand(views)
        spot = _spot(job, views)
        self._is_late = self._is_late or not bears(job, spot, wall, self._options)
        if self._is_late:
            return _run(job, wall, "wall")
        return _run(job, spot, "cheapest") if spot else Hold(Reason("cheapest", slack_s(job, wall, self._options)))


class UniformProgress:
    """Can't Be Late (Wu et al., NSDI 2024), from the paper's four rules; zones: the cheapest that is up.

    Behind the line from start to deadline and idle: on-demand. Spot whenever there is any. From on-demand back only
    when ahead by two switches. A safety net when slack runs out.
    """

    name = "uniform progress"

    def __init__(self, options: MarketOptions) -> None:
        self._options = options
        self._start: JobState | None = None
        self._is_late = False

    def decide(self, job: JobState, views: tuple[MarketView, ...], history: MarketHistory) -> Decision:
        first = self._start = self._start or job
        wall, spot = on_demand(views), _spot(job, views)
        self._is_late = self._is_late or not bears(job, spot, wall, self._options)
        if self._is_late:
            return _run(job, wall, "wall")
        rate = first.work_s / (first.deadline_s - first.now_s)
        done_s = first.work_s - job.work_s
        margin_s = 2 * wall.start_s if job.held == wall.name else 0.0
        is_behind = done_s < (job.now_s - first.now_s + margin_s) * rate
        if job.held == wall.name and is_behind:
            return _run(job, wall, "cheapest")
        if spot is not None:
            return _run(job, spot, "cheapest")
        return _run(job, wall, "cheapest") if is_behind else Hold(Reason("cheapest", 0.0))


class Planned:
    """Ours: `scaling.decide` over a plan that is made anew as zones teach more."""

    name = "speciate"

    def __init__(
        self,
        options: MarketOptions,
        forecast: Forecast = lambda market, at_s: None,
        replan_s: float = 7200.0,
        grain: PlanOptions = DEFAULT_GRAIN,
    ) -> None:
        self._options = options
        self._forecast = forecast
        self._replan_s = replan_s
        self._grain = grain
        self._plan: Plan | None = None
        self._planned_s = 0.0

    def decide(self, job: JobState, views: tuple[MarketView, ...], history: MarketHistory) -> Decision:
        if self._plan is None or job.now_s >= self._planned_s + self._replan_s:
            ahead = outlook(views, history, self._options, self._forecast)
            self._plan = plan(ahead, job, self._options.safety_s, self._grain)
            self._planned_s = job.now_s
        return decide(job, views, history, self._plan, self._options)


def reference_policies(options: MarketOptions) -> tuple[Callable[[], MarketPolicy], ...]:
    """What ours is compared with; each call makes a fresh one."""
    return (
        OnDemandOnly,
        SpotGreedy,
        lambda: SpotThenWall(options),
        lambda: UniformProgress(options),
    )


def _spot(job: JobState, views: tuple[MarketView, ...]) -> MarketView | None:
    """The held one while it lasts, else the cheapest."""
    spots = [view for view in views if view.kind is MarketKind.SPOT and view.is_available]
    held = [view for view in spots if view.name == job.held]
    return held[0] if held else min(spots, key=lambda view: (view.price_usd_per_h, view.name), default=None)


def _run(job: JobState, view: MarketView, rule: str) -> Run:
    return Run(view.name, Reason(rule, 0.0), job.held if job.held != view.name else None)
