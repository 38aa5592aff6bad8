"""The words of market decisions: what a job still needs, what each market offers now, and what was decided and why.

Work is counted in machine-seconds at the on-demand machine's speed. Money is USD; times are absolute seconds on the
caller's clock.
"""

from enum import StrEnum

from msgspec import Struct

SECONDS_PER_HOUR = 3600.0


class MarketKind(StrEnum):
    """How capacity is held."""

    ON_DEMAND = "on_demand"
    """Always there after its start time; the wall behind every promise."""
    SPOT = "spot"
    """Cheap, and taken away with little notice."""


class MarketView(Struct, frozen=True):
    """One market, in one zone, as it looks now."""

    name: str
    kind: MarketKind
    is_available: bool
    price_usd_per_h: float
    """Of one machine."""
    start_s: float = 180.0
    """Paid time from asking for a machine until it works."""
    lost_s: float = 0.0
    """Work that a preemption undoes: running lines that could be neither finished nor parked within the notice."""
    notice_s: float = 30.0
    speed: float = 1.0
    """Work done a second, relative to the on-demand machine."""
    gco2_per_kwh: float = 0.0
    power_kw: float = 0.0


class JobState(Struct, frozen=True):
    """A job at a moment of deciding."""

    work_s: float
    """Machine-seconds left."""
    deadline_s: float
    now_s: float
    held: str | None = None
    """The market whose machines it holds; None: local idle steps at most."""
    starting_s: float = 0.0
    """How long the held machines still need until they work."""
    num_machines: int = 1
    """Machines it uses at once, all in one market."""
    idle_rate: float = 0.0
    """Machine-seconds a second that idle local steps are expected to do meanwhile, for nothing. Plans count on it, the
    wall does not."""

    @property
    def left_s(self) -> float:
        """Time that the work takes on working on-demand machines."""
        return self.work_s / self.num_machines


class MarketOptions(Struct, frozen=True):
    """What an operator may turn."""

    price_weight: float = 1.0
    carbon_usd_per_kg: float = 0.0
    """What a kilogram of CO2 counts for beside the price."""
    safety_s: float = 0.0
    """Kept free before every deadline, for what is not modelled."""
    tick_s: float = 300.0
    """At most this long between two decisions; the wall counts on losing one whole tick."""
    reluctance: float = 0.0005
    """A change must promise to save more than this share of the expected cost."""


class Choice(Struct, frozen=True):
    """One thing that could be done now, and what the whole rest of the job is expected to cost after it."""

    market: str | None
    """None: hold, wait on idle local steps."""
    cost_usd: float


class Reason(Struct, frozen=True):
    """Why: the rule that decided, the slack, and what the choices were expected to cost (cheapest first)."""

    rule: str
    """`done`, `wall` (slack ran out: on-demand, whatever it costs), `cheapest` (of the choices below), or `stay`
    (nothing is better by enough)."""
    slack_s: float
    choices: tuple[Choice, ...] = ()


class Hold(Struct, frozen=True, tag="hold"):
    """Hold no paid machine: wait, on idle local steps."""

    reason: Reason


class Run(Struct, frozen=True, tag="run"):
    """Run in this market."""

    market: str
    reason: Reason
    replaces: str | None = None
    """The market to leave, its lines parked first; None when nothing is held, or when it stays."""


Decision = Hold | Run


def on_demand(views: tuple[MarketView, ...]) -> MarketView:
    """The cheapest on-demand market, a second of work counted. Raises ValueError when there is none."""
    offers = [view for view in views if view.kind is MarketKind.ON_DEMAND]
    if not offers:
        raise ValueError("no on-demand market is given; deadlines need one: add a view of kind on_demand")
    return min(offers, key=lambda view: (view.price_usd_per_h / view.speed, view.name))


def slack_s(job: JobState, wall: MarketView, options: MarketOptions) -> float:
    """The one number: deadline - now - work left at the on-demand rate - switch cost - safety.

    The switch cost is the on-demand start, or what is left of it when on-demand is held already. Negative: late.
    """
    start_s = job.starting_s if job.held == wall.name else wall.start_s
    return job.deadline_s - job.now_s - job.left_s / wall.speed - start_s - options.safety_s


def hourly_usd(view: MarketView, options: MarketOptions) -> float:
    """What an hour of one machine counts for: price and carbon by their weights."""
    carbon_usd = view.gco2_per_kwh * view.power_kw / 1000 * options.carbon_usd_per_kg
    return options.price_weight * view.price_usd_per_h + carbon_usd
