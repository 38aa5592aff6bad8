"""A dry run: what a job will cost, when it will end, and why. Pure; drives `decide` over foreseen scenarios.

Where a signal knows the future (a schedule, a trace) it is used. Otherwise zones come and go by the learnt hazards, in
scenarios that are spread evenly instead of drawn: quasi-random (Richtmyer) numbers, so that equal inputs give equal
estimates. Example:

    views = (
        MarketView("on-demand", MarketKind.ON_DEMAND, True, 2.29),
        MarketView("zone-a", MarketKind.SPOT, True, 0.80),
    )
    job = JobState(work_s=6 * 3600.0, deadline_s=12 * 3600.0, now_s=0.0)
    found = estimate(job, views, MarketHistory(), MarketOptions())
    found.cost_usd.p50, found.ends_s.p90, found.on_demand_usd, explained(found)
"""

from collections.abc import Iterator
from math import sqrt

from msgspec import Struct
from msgspec.structs import replace

from speciate.core.ports import AvailabilitySignal
from speciate.scaling.course import Course, Stretch
from speciate.scaling.decide import decide
from speciate.scaling.market import (
    SECONDS_PER_HOUR,
    JobState,
    MarketKind,
    MarketOptions,
    MarketView,
    on_demand,
    slack_s,
)
from speciate.scaling.outlook import Forecast, Outlook, foreseen, outlook, unknown
from speciate.scaling.plan import Plan, plan
from speciate.scaling.runs import MarketHistory, length_s, observed

MAX_TICKS = 192
PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53)


class Quantiles(Struct, frozen=True):
    """Over the scenarios."""

    p10: float
    p50: float
    p90: float
    mean: float


class Estimate(Struct, frozen=True):
    """What to expect."""

    is_feasible: bool
    """Whether the deadline holds whatever spot does: the work fits on on-demand from now on."""
    slack_s: float
    cost_usd: Quantiles
    ends_s: Quantiles
    """Absolute, on the job's clock."""
    on_demand_usd: float
    """What on-demand alone would cost from now on."""
    co2_kg: float
    """Mean over the scenarios, of what was paid for; idle steps are not counted."""
    met_share: float
    """Of the scenarios."""
    stretches: tuple[Stretch, ...]
    """The scenario with the median cost: which market when."""


def estimate(
    job: JobState,
    views: tuple[MarketView, ...],
    history: MarketHistory,
    options: MarketOptions,
    forecast: Forecast = unknown,
    machines: AvailabilitySignal | None = None,
    num_scenarios: int = 32,
    grams: Forecast = unknown,
) -> Estimate:
    """Costs `num_scenarios` runs of at most 192 ticks; about half a second. `views` are of now."""
    tick_s = max(options.tick_s, (job.deadline_s - job.now_s) / MAX_TICKS)
    ticked = replace(options, tick_s=tick_s)
    ahead = outlook(views, history, ticked, forecast, grams)
    table = plan(ahead, job, options.safety_s)
    runs = [
        _run(job, _Scenario(i, views, history, ahead, forecast, machines, grams), history, table, ticked)
        for i in range(num_scenarios)
    ]
    wall = on_demand(views)
    spare_s = slack_s(job, wall, options)
    ranked = sorted(runs, key=lambda run: run.cost_usd)
    ends_s = [job.deadline_s if run.ended_s is None else run.ended_s for run in runs]
    return Estimate(
        is_feasible=spare_s >= 0,
        slack_s=spare_s,
        cost_usd=_quantiles([run.cost_usd for run in runs]),
        ends_s=_quantiles(ends_s),
        on_demand_usd=_on_demand_usd(job, wall, forecast),
        co2_kg=sum(run.co2_kg for run in runs) / len(runs),
        met_share=sum(run.ended_s is not None for run in runs) / len(runs),
        stretches=tuple(ranked[len(ranked) // 2].stretches),
    )


def explained(found: Estimate) -> tuple[str, ...]:
    """The median scenario in words, a line a stretch."""
    start_s = found.stretches[0].from_s if found.stretches else 0.0
    return tuple(_told(stretch, start_s) for stretch in found.stretches)


def _told(stretch: Stretch, start_s: float) -> str:
    hours = f"{(stretch.from_s - start_s) / 3600:5.1f} h to {(stretch.to_s - start_s) / 3600:5.1f} h"
    what = "waits on idle local steps" if stretch.market is None else f"runs on {stretch.market}"
    why = {
        "wall": "no slack is left to wait for anything cheaper",
        "cheapest": "the cheapest way on",
        "stay": "a change would not pay",
        "done": "the work is done",
    }[stretch.rule]
    return f"{hours}: {what}, {stretch.usd:.2f} USD ({why})"


class _Scenario:
    """How the zones go in one run: foretold where a signal knows, by quasi-random run lengths elsewhere."""

    def __init__(
        self,
        index: int,
        views: tuple[MarketView, ...],
        history: MarketHistory,
        ahead: Outlook,
        forecast: Forecast,
        machines: AvailabilitySignal | None,
        grams: Forecast,
    ) -> None:
        self._views = views
        self._forecast = forecast
        self._grams = grams
        self._machines = machines
        self._zones = {
            spot.name: _Runs(index, z, history, spot.name, spot.hazards_per_s, ahead.down_hazards_per_s)
            for z, spot in enumerate(ahead.spots)
        }

    def views(self, now_s: float) -> tuple[MarketView, ...]:
        return tuple(self._seen(view, now_s) for view in self._views)

    def _seen(self, view: MarketView, now_s: float) -> MarketView:
        is_up = view.is_available
        if view.kind is MarketKind.SPOT:
            room = self._machines.num_machines(view.name, now_s) if self._machines else None
            is_up = room > 0 if room is not None else self._zones[view.name].is_up(now_s, view.is_available)
        return replace(foreseen(view, now_s, self._forecast, self._grams), is_available=is_up)


class _Runs:
    """A zone's runs from now on, made as time goes; ask in order of time."""

    def __init__(
        self,
        scenario: int,
        zone: int,
        history: MarketHistory,
        name: str,
        up_per_s: tuple[float, ...],
        down_per_s: tuple[float, ...],
    ) -> None:
        self._numbers = _numbers(scenario, zone)
        self._hazards = {True: up_per_s, False: down_per_s}
        seen = history.zones.get(name)
        self._weather = seen.weather if seen else None
        self._is_up = False
        self._until_s: float | None = None

    def is_up(self, now_s: float, is_up_now: bool) -> bool:
        if self._until_s is None:
            is_known = self._weather is not None and self._weather.is_up == is_up_now
            age_s = now_s - self._weather.since_s if self._weather is not None and is_known else 0.0
            self._is_up = is_up_now
            self._until_s = now_s + length_s(self._hazards[is_up_now], next(self._numbers), age_s) - age_s
        while now_s >= self._until_s:
            self._is_up = not self._is_up
            self._until_s += length_s(self._hazards[self._is_up], next(self._numbers), 0.0)
        return self._is_up


def _run(job: JobState, scenario: _Scenario, history: MarketHistory, table: Plan, options: MarketOptions) -> Course:
    now_s = job.now_s
    course = Course(job, next((view for view in scenario.views(now_s) if view.name == job.held), None))
    while course.ended_s is None and now_s < job.deadline_s - 1e-6:
        views = scenario.views(now_s)
        prices = {
            view.name: view.price_usd_per_h if view.is_available else None
            for view in views
            if view.kind is MarketKind.SPOT
        }
        history = observed(history, prices, now_s)
        course.preempt(views)
        tick_s = min(options.tick_s, job.deadline_s - now_s)
        course.advance(decide(course.state(now_s), views, history, table, options), views, now_s, tick_s)
        now_s += tick_s
    return course


def _numbers(scenario: int, zone: int) -> Iterator[float]:
    """Evenly spread over scenarios for each run in turn: multiples of square roots of primes, modulo 1."""
    run = 0
    while True:
        root = sqrt(PRIMES[(zone * 5 + run) % len(PRIMES)]) * (1 + run // len(PRIMES))
        yield min(1 - 1e-9, max(1e-9, (scenario + 0.5) * root % 1.0))
        run += 1


def _on_demand_usd(job: JobState, wall: MarketView, forecast: Forecast) -> float:
    """At the prices of the hours that it would run in, a start included."""
    end_s = job.now_s + wall.start_s + job.left_s / wall.speed
    usd, at_s = 0.0, job.now_s
    while at_s < end_s:
        step_s = min(300.0, end_s - at_s)
        price = forecast(wall.name, at_s)
        usd += (wall.price_usd_per_h if price is None else price) * step_s / SECONDS_PER_HOUR * job.num_machines
        at_s += step_s
    return usd


def _quantiles(values: list[float]) -> Quantiles:
    ranked = sorted(values)

    def at(share: float) -> float:
        return ranked[min(len(ranked) - 1, int(share * len(ranked)))]

    return Quantiles(at(0.1), at(0.5), at(0.9), sum(values) / len(values))
