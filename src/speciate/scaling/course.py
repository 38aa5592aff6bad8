"""One job under market decisions, tick by tick: what it holds, has left and has paid. Knows no clock and no trace.

    tick:   preemption?  ->  look  ->  decide  ->  start (paid, no work)  ->  work

A view that is not available in a tick is gone throughout it, so preemptions happen between ticks. Billing is by the
second. The replay and the estimate drive the same course.
"""

from collections.abc import Sequence

from msgspec import Struct

from speciate.scaling.market import SECONDS_PER_HOUR, Decision, JobState, MarketView, Run


class Stretch(Struct, frozen=True):
    """A time in which one thing was done for one reason."""

    market: str | None
    """None: nothing paid was held."""
    from_s: float
    to_s: float
    usd: float
    rule: str


class Course:
    """Owns one job's state. Each tick: `preempt`, then `advance` with the decision for it."""

    def __init__(self, job: JobState, held: MarketView | None = None) -> None:
        """`held` is the market of `job.held`, as it was last seen."""
        self._job = job
        self._held = held
        self._starting_s = job.starting_s
        self._left_s = job.work_s
        self.cost_usd = 0.0
        self.co2_kg = 0.0
        self.ended_s: float | None = None
        """Absolute; None while work is left."""
        self.num_starts = 0
        self.num_preempted = 0
        self.stretches: list[Stretch] = []

    def preempt(self, views: Sequence[MarketView]) -> None:
        """A held market that is not available was taken; lines that ran and were not parked are lost."""
        if self._held is None:
            return
        view = next((view for view in views if view.name == self._held.name), None)
        if view is None or not view.is_available:
            self._left_s += self._held.lost_s
            self.num_preempted += 1
        self._held = view if view is not None and view.is_available else None

    def state(self, now_s: float) -> JobState:
        return JobState(
            work_s=self._left_s,
            deadline_s=self._job.deadline_s,
            now_s=now_s,
            held=self._held.name if self._held else None,
            starting_s=self._starting_s,
            num_machines=self._job.num_machines,
            idle_rate=self._job.idle_rate,
        )

    def advance(self, decision: Decision, views: Sequence[MarketView], now_s: float, tick_s: float) -> None:
        """Carry out `decision` and go one tick on. A market that is not available cannot be started."""
        self._switch(decision, views)
        rate = self._job.idle_rate + (self._held.speed * self._job.num_machines if self._held else 0.0)
        starting_s = min(self._starting_s, tick_s) if self._held else 0.0
        busy_s = self._busy_s(starting_s, rate, tick_s)
        self._left_s -= self._job.idle_rate * min(busy_s, starting_s) + rate * max(0.0, busy_s - starting_s)
        self._starting_s = max(0.0, self._starting_s - tick_s)
        hourly_usd = self._held.price_usd_per_h * self._job.num_machines if self._held else 0.0
        usd = hourly_usd * busy_s / SECONDS_PER_HOUR
        self.cost_usd += usd
        self.co2_kg += self._co2_kg(busy_s)
        self._note(decision.reason.rule, now_s, now_s + busy_s, usd)
        if self._left_s <= 1e-6:
            self.ended_s = now_s + busy_s

    def _co2_kg(self, busy_s: float) -> float:
        if self._held is None:
            return 0.0
        kwh = self._held.power_kw * self._job.num_machines * busy_s / SECONDS_PER_HOUR
        return self._held.gco2_per_kwh * kwh / 1000

    def _busy_s(self, starting_s: float, rate: float, tick_s: float) -> float:
        """Until the work is done, at most a tick."""
        idle = self._job.idle_rate
        if idle > 0 and self._left_s <= idle * starting_s:
            return self._left_s / idle
        if rate <= 0:
            return tick_s
        return min(tick_s, starting_s + (self._left_s - idle * starting_s) / rate)

    def _switch(self, decision: Decision, views: Sequence[MarketView]) -> None:
        if not isinstance(decision, Run):
            self._held = None
        elif self._held is None or self._held.name != decision.market:
            view = next(view for view in views if view.name == decision.market)
            self._held = view if view.is_available else None
            self._starting_s = view.start_s
            self.num_starts += self._held is not None

    def _note(self, rule: str, from_s: float, to_s: float, usd: float) -> None:
        market = self._held.name if self._held else None
        last = self.stretches[-1] if self.stretches else None
        if last is not None and last.market == market:
            self.stretches[-1] = Stretch(market, last.from_s, to_s, last.usd + usd, last.rule)
        else:
            self.stretches.append(Stretch(market, from_s, to_s, usd, rule))
