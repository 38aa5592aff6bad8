"""Market decisions replayed over traces, tick by tick under a virtual clock: what a job paid, and when it ended.

A tick is the grain of everything: a zone counts as up in a tick only if it was up throughout it, so preemptions happen
between ticks, and every policy, the offline optimum too, decides once a tick. Billing is by the second.

    tick:   preemption?  ->  look  ->  decide  ->  start (paid, no work)  ->  work
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
from msgspec import Struct
from msgspec.structs import replace

from speciate.core.errors import ConfigError
from speciate.scaling.market import SECONDS_PER_HOUR, Decision, JobState, MarketKind, MarketView, Run
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
    run = _Run(scene, job)
    for tick in range(job.first_tick, job.first_tick + job.num_ticks):
        history = look(scene, history, tick)
        run.preempt(tick)
        run.switch(policy.decide(run.state(tick), scene.views(tick), history), tick)
        if run.work(tick):
            break
    return run.outcome(policy.name)


class _Run:
    """Owns what one job holds, has left and has paid."""

    def __init__(self, scene: Scene, job: MarketJob) -> None:
        self._scene = scene
        self._job = job
        self._markets = {market.view.name: market for market in scene.markets}
        self._held: MarketTrace | None = None
        self._starting_s = 0.0
        self._left_s = job.work_s
        self._cost_usd = 0.0
        self._ended_s: float | None = None
        self._num_starts = 0
        self._num_preempted = 0
        self._paid_s = dict.fromkeys(MarketKind, 0.0)

    def state(self, tick: int) -> JobState:
        job, tick_s = self._job, self._scene.tick_s
        return JobState(
            work_s=self._left_s,
            deadline_s=(job.first_tick + job.num_ticks) * tick_s,
            now_s=tick * tick_s,
            held=self._held.view.name if self._held else None,
            starting_s=self._starting_s,
        )

    def preempt(self, tick: int) -> None:
        """A held zone that is down in this tick was taken; lines that ran and were not parked are lost."""
        if self._held is not None and not self._held.is_up_N[tick]:
            self._left_s += self._held.view.lost_s
            self._num_preempted += 1
            self._held = None

    def switch(self, decision: Decision, tick: int) -> None:
        if not isinstance(decision, Run):
            self._held = None
        elif self._held is None or self._held.view.name != decision.market:
            market = self._markets[decision.market]
            if market.is_up_N[tick]:
                self._held, self._starting_s = market, market.view.start_s
                self._num_starts += 1
            else:
                self._held = None

    def work(self, tick: int) -> bool:
        """One tick of what is held; true when the work is done."""
        if self._held is None:
            return False
        view, tick_s = self._held.view, self._scene.tick_s
        busy_s = min(tick_s, self._starting_s + self._left_s / view.speed)
        self._left_s -= max(0.0, busy_s - self._starting_s) * view.speed
        self._starting_s = 0.0
        self._cost_usd += float(self._held.usd_per_h_N[tick]) * busy_s / SECONDS_PER_HOUR
        self._paid_s[view.kind] += busy_s
        if self._left_s > 1e-6:
            return False
        self._ended_s = (tick - self._job.first_tick) * tick_s + busy_s
        return True

    def outcome(self, policy: str) -> Outcome:
        return Outcome(
            policy=policy,
            cost_usd=self._cost_usd,
            ended_s=self._ended_s,
            num_starts=self._num_starts,
            num_preempted=self._num_preempted,
            spot_s=self._paid_s[MarketKind.SPOT],
            wall_s=self._paid_s[MarketKind.ON_DEMAND],
        )
