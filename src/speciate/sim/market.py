"""Market decisions replayed over traces, tick by tick under a virtual clock: what a job paid, and when it ended.

A tick is the grain of everything: a zone counts as up in a tick only if it was up throughout it, and every policy, the
offline optimum too, decides once a tick. What happens in a tick is `scaling/course.py`'s.
"""

# Shape suffixes follow STYLE; ruff knows them as mixed-case names.
# ruff: noqa: N815

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
from msgspec import Struct
from msgspec.structs import replace

from speciate.core.errors import ConfigError
from speciate.scaling.course import Course
from speciate.scaling.market import Decision, JobState, MarketKind, MarketView
from speciate.scaling.runs import MarketHistory, observed

Bools = npt.NDArray[np.bool_]
Prices = npt.NDArray[np.float64]


class MarketTrace(Struct, frozen=True):
    """One market over time; arrays have one entry a tick."""

    view: MarketView
    """What does not change: name, kind, start, losses, speed."""
    is_up_N: Bools
    usd_per_h_N: Prices


class Scene(Struct, frozen=True):
    """Markets side by side. The first is on-demand, always up."""

    name: str
    tick_s: float
    markets: tuple[MarketTrace, ...]

    @property
    def num_ticks(self) -> int:
        return len(self.markets[0].is_up_N)

    def views(self, tick: int) -> tuple[MarketView, ...]:
        return tuple(
            replace(
                market.view,
                is_available=bool(market.is_up_N[tick]),
                price_usd_per_h=float(market.usd_per_h_N[tick]),
            )
            for market in self.markets
        )


class MarketJob(Struct, frozen=True):
    """Work to do on a scene. All seconds are whole ticks but the work."""

    first_tick: int
    num_ticks: int
    """Until its deadline."""
    work_s: float


class Outcome(Struct, frozen=True):
    """How a job went."""

    policy: str
    cost_usd: float
    ended_s: float | None
    """After the job's start; None: not within the deadline."""
    num_starts: int
    num_preempted: int
    spot_s: float
    wall_s: float
    """Paid time on on-demand machines."""

    @property
    def is_met(self) -> bool:
        return self.ended_s is not None


class MarketPolicy(Protocol):
    """Decides once a tick. One object serves one job."""

    @property
    def name(self) -> str: ...

    def decide(self, job: JobState, views: tuple[MarketView, ...], history: MarketHistory) -> Decision: ...


def check_scene(scene: Scene) -> None:
    """Raise ConfigError unless starts and losses fit in a tick, and the first market is on-demand and always up."""
    for market in scene.markets:
        if market.view.start_s + market.view.lost_s > scene.tick_s:
            raise ConfigError(
                f"{market.view.name}: a start of {market.view.start_s:g} s and a loss of {market.view.lost_s:g} s "
                f"do not fit in a tick of {scene.tick_s:g} s; use longer ticks"
            )
    first = scene.markets[0]
    if first.view.kind is not MarketKind.ON_DEMAND or not first.is_up_N.all():
        raise ConfigError(f"the first market of {scene.name} must be on-demand and always up")


def histories(scene: Scene, ticks: Sequence[int]) -> dict[int, MarketHistory]:
    """What a watcher who looks at every tick from the first has learnt before each of `ticks`."""
    found, history = {}, MarketHistory()
    wanted = set(ticks)
    for tick in range(max(ticks) + 1):
        if tick in wanted:
            found[tick] = history
        history = look(scene, history, tick)
    return found


def look(scene: Scene, history: MarketHistory, tick: int) -> MarketHistory:
    prices = {
        market.view.name: float(market.usd_per_h_N[tick]) if market.is_up_N[tick] else None
        for market in scene.markets
        if market.view.kind is MarketKind.SPOT
    }
    return observed(history, prices, tick * scene.tick_s)


def replay(scene: Scene, job: MarketJob, policy: MarketPolicy, history: MarketHistory) -> Outcome:
    """Run one job to its end or its deadline. `history` is what is known before its first tick."""
    check_scene(scene)
    tick_s, last = scene.tick_s, job.first_tick + job.num_ticks
    course = Course(JobState(job.work_s, last * tick_s, job.first_tick * tick_s))
    for tick in range(job.first_tick, last):
        now_s, views = tick * tick_s, scene.views(tick)
        history = look(scene, history, tick)
        course.preempt(views)
        course.advance(policy.decide(course.state(now_s), views, history), views, now_s, tick_s)
        if course.ended_s is not None:
            break
    return _outcome(policy.name, course, scene, job)


def _outcome(policy: str, course: Course, scene: Scene, job: MarketJob) -> Outcome:
    wall = scene.markets[0].view.name
    return Outcome(
        policy=policy,
        cost_usd=course.cost_usd,
        ended_s=None if course.ended_s is None else course.ended_s - job.first_tick * scene.tick_s,
        num_starts=course.num_starts,
        num_preempted=course.num_preempted,
        spot_s=sum(s.to_s - s.from_s for s in course.stretches if s.market not in (None, wall)),
        wall_s=sum(s.to_s - s.from_s for s in course.stretches if s.market == wall),
    )
