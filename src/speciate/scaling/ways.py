"""The ways in which one batch job could be done, side by side: here at once, here when it is cheap, on idle steps here
beside rented machines, on rented on-demand machines alone. What each costs, when it ends, and why. Pure.

What is due before the job is done first; the job bears its share of what a way costs.
"""

from collections.abc import Callable
from math import ceil

from msgspec import Struct
from msgspec.structs import replace

from speciate.scaling.course import Stretch
from speciate.scaling.estimate import Estimate, Quantiles, estimate
from speciate.scaling.market import (
    SECONDS_PER_HOUR,
    JobState,
    MarketView,
    on_demand,
)
from speciate.scaling.outlook import foreseen
from speciate.scaling.runs import MarketHistory
from speciate.scaling.signals import MarketSignals
from speciate.scaling.spec import HERE, MarketsSpec, here_view, offer_views

STEP_S = 300.0
MAX_STEPS = 4000
Hourly = Callable[[MarketView], float]
AT_ONCE = "here, at once"
CHEAP = "here, when it is cheap"
RENTED = "with rented machines"
ON_DEMAND = "on-demand alone"


class LocalWork(Struct, frozen=True):
    """A job as this machine sees it."""

    work_s: float
    """Seconds that this machine needs for it."""
    ahead_s: float
    """Seconds that it needs before that for jobs of earlier deadlines."""
    deadline_s: float
    now_s: float
    sure_share: float = 1.0
    """Of this machine's pace, what promises count on."""

    @property
    def share(self) -> float:
        """Of all the work until it is done, the job's own."""
        return self.work_s / (self.work_s + self.ahead_s)


class Way(Struct, frozen=True):
    """One way, and what is expected of it."""

    name: str
    cost_usd: Quantiles
    ends_s: Quantiles
    co2_kg: float
    is_in_time: bool
    """Its deadline holds, whatever spot does."""
    is_done_here: bool
    """This server does it so; other ways need a fleet, or are for comparison."""
    stretches: tuple[Stretch, ...] = ()
    """The scenario of median cost: which market when, `here` for this machine, None for waiting."""
    num_machines: int = 0
    """Rented at once, at most."""


def ways(
    spec: MarketsSpec, signals: MarketSignals, work: LocalWork, history: MarketHistory, num_scenarios: int = 32
) -> tuple[Way, ...]:
    """One to four. Costs about half a second for each that has to be foreseen."""
    here = here_view(spec, signals, work.now_s)
    varies = _varies(here, work, signals)
    found = [_at_once(here, work, signals, is_done_here=not (varies and spec.here.waits))]
    if varies:
        found.append(_when_cheap(spec, here, work, signals))
    if spec.offers:
        found += rented(spec, signals, work, history, num_scenarios)
    return tuple(found)


def rented(
    spec: MarketsSpec, signals: MarketSignals, work: LocalWork, history: MarketHistory, num_scenarios: int = 32
) -> tuple[Way, Way]:
    """Rented machines, beside idle steps here where those are no dearer; and rented on-demand machines alone."""
    job, views = _rentable(spec, signals, work)
    said = estimate(
        job,
        views,
        history,
        spec.options,
        signals.prices.usd_per_h,
        signals.machines,
        num_scenarios,
        grams=signals.carbon.gco2_per_kwh,
    )
    here = here_view(spec, signals, work.now_s)
    until_s = said.ends_s.p50 if job.idle_rate else work.now_s
    here_usd = _total(here, work.now_s, until_s, signals, _hourly_usd) * work.share
    here_kg = _total(here, work.now_s, until_s, signals, _hourly_kg) * work.share
    beside = Way(
        name=RENTED,
        cost_usd=_plus(said.cost_usd, here_usd),
        ends_s=said.ends_s,
        co2_kg=said.co2_kg + here_kg,
        is_in_time=said.is_feasible and said.met_share == 1.0,
        is_done_here=False,
        stretches=said.stretches,
        num_machines=job.num_machines,
    )
    return beside, _on_demand_alone(spec, signals, job, views, said)


def varying_here(spec: MarketsSpec) -> bool:
    """Whether price or carbon of this machine may differ by time at all."""
    here = spec.here
    return bool(here.hourly) or here.price is not None or (here.carbon is not None and here.power_kw > 0)


def _at_once(here: MarketView, work: LocalWork, signals: MarketSignals, *, is_done_here: bool) -> Way:
    begin_s = work.now_s + work.ahead_s
    end_s = begin_s + work.work_s
    usd = _total(here, begin_s, end_s, signals, _hourly_usd)
    stretch = Stretch(HERE, begin_s, end_s, usd, "cheapest")
    return Way(
        name=AT_ONCE,
        cost_usd=_certain(usd),
        ends_s=_certain(end_s),
        co2_kg=_total(here, begin_s, end_s, signals, _hourly_kg),
        is_in_time=work.now_s + (work.ahead_s + work.work_s) / work.sure_share <= work.deadline_s,
        is_done_here=is_done_here,
        stretches=(stretch,),
    )


def _when_cheap(spec: MarketsSpec, here: MarketView, work: LocalWork, signals: MarketSignals) -> Way:
    all_s = work.work_s + work.ahead_s
    unsure_s = all_s / work.sure_share - all_s
    options = replace(spec.options, safety_s=spec.options.safety_s + unsure_s)
    job = JobState(all_s, work.deadline_s, work.now_s)
    view = replace(here, speed=1.0)
    said = estimate(
        job,
        (view,),
        MarketHistory(),
        options,
        signals.prices.usd_per_h,
        num_scenarios=1,
        grams=signals.carbon.gco2_per_kwh,
    )
    return Way(
        name=CHEAP,
        cost_usd=_certain(said.cost_usd.mean * work.share),
        ends_s=said.ends_s,
        co2_kg=said.co2_kg * work.share,
        is_in_time=said.is_feasible and said.met_share == 1.0,
        is_done_here=spec.here.waits,
        stretches=said.stretches,
    )


def _rentable(spec: MarketsSpec, signals: MarketSignals, work: LocalWork) -> tuple[JobState, tuple[MarketView, ...]]:
    """The job in machine-seconds of the on-demand machine, on as few machines as keep its deadline."""
    work_s = work.work_s * spec.here.speed
    views = offer_views(spec, signals, work.now_s)
    wall, here = on_demand(views), here_view(spec, signals, work.now_s)
    is_worth_it = here.price_usd_per_h / here.speed <= wall.price_usd_per_h / wall.speed
    idle_rate = spec.here.speed * work.share if is_worth_it else 0.0
    room_s = work.deadline_s - work.now_s - wall.start_s - spec.options.safety_s - spec.options.tick_s
    needed = ceil(work_s / wall.speed / room_s) if room_s > 0 else spec.max_machines
    num_machines = max(1, min(spec.max_machines, needed))
    job = JobState(work_s, work.deadline_s, work.now_s, num_machines=num_machines, idle_rate=idle_rate)
    return job, offer_views(spec, signals, work.now_s, num_machines)


def _on_demand_alone(
    spec: MarketsSpec, signals: MarketSignals, job: JobState, views: tuple[MarketView, ...], said: Estimate
) -> Way:
    wall = on_demand(views)
    end_s = job.now_s + wall.start_s + job.left_s / wall.speed
    kg = _total(wall, job.now_s, end_s, signals, _hourly_kg) * job.num_machines
    return Way(
        name=ON_DEMAND,
        cost_usd=_certain(said.on_demand_usd),
        ends_s=_certain(end_s),
        co2_kg=kg,
        is_in_time=end_s <= job.deadline_s,
        is_done_here=False,
        stretches=(Stretch(wall.name, job.now_s, end_s, said.on_demand_usd, "cheapest"),),
        num_machines=job.num_machines,
    )


def _varies(here: MarketView, work: LocalWork, signals: MarketSignals) -> bool:
    """Whether price or carbon of this machine change before the deadline."""
    step_s = max(STEP_S, (work.deadline_s - work.now_s) / MAX_STEPS)
    times_s = [work.now_s + i * step_s for i in range(int((work.deadline_s - work.now_s) / step_s) + 1)]
    seen = {(view.price_usd_per_h, view.gco2_per_kwh * view.power_kw) for view in _over(here, times_s, signals)}
    return len(seen) > 1


def _over(view: MarketView, times_s: list[float], signals: MarketSignals) -> list[MarketView]:
    return [foreseen(view, at_s, signals.prices.usd_per_h, signals.carbon.gco2_per_kwh) for at_s in times_s]


def _hourly_usd(view: MarketView) -> float:
    return view.price_usd_per_h


def _hourly_kg(view: MarketView) -> float:
    return view.gco2_per_kwh * view.power_kw / 1000


def _total(view: MarketView, from_s: float, to_s: float, signals: MarketSignals, hourly: Hourly) -> float:
    """Of one machine of this market, at the prices (or carbon) of each moment."""
    step_s = max(STEP_S, (to_s - from_s) / MAX_STEPS)
    total, at_s = 0.0, from_s
    while at_s < to_s:
        span_s = min(step_s, to_s - at_s)
        total += hourly(_over(view, [at_s], signals)[0]) * span_s / SECONDS_PER_HOUR
        at_s += span_s
    return total


def _certain(value: float) -> Quantiles:
    return Quantiles(value, value, value, value)


def _plus(found: Quantiles, more: float) -> Quantiles:
    return Quantiles(found.p10 + more, found.p50 + more, found.p90 + more, found.mean + more)
