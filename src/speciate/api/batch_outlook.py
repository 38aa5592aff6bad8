"""What the market decisions say of a batch, as JSON: ways to do it before it is filed, its outlook while it runs. Ours:
OpenAI's API has neither.
"""

from msgspec import Struct

from speciate.batch.holding import JobOutlook
from speciate.scaling.course import Stretch
from speciate.scaling.estimate import Quantiles
from speciate.scaling.spec import HERE
from speciate.scaling.ways import Way


class StretchAnswer(Struct, frozen=True):
    """A time in which one thing is done. `market` is `here`, an offer's name, or null for waiting."""

    market: str | None
    from_at: int
    to_at: int
    usd: float
    rule: str


class WayAnswer(Struct, frozen=True):
    """One way to do a job. Times are Unix seconds; `stretches` are of the scenario of median cost."""

    name: str
    cost_usd: Quantiles
    ends_at: Quantiles
    co2_kg: float
    is_in_time: bool
    is_done_here: bool
    num_machines: int
    stretches: list[StretchAnswer]


class RentAnswer(Struct, frozen=True):
    """What would be rented for it, were there a fleet."""

    market: str | None
    """Null: nothing."""
    num_machines: int
    starts_at: int | None
    cost_usd: float
    ends_at: int


class OutlookAnswer(Struct, frozen=True):
    """Whether its lines may run now, and why."""

    decided_at: int
    may_run: bool
    rule: str | None
    """Null while its pace is not known."""
    slack_seconds: float | None
    cheaper_at: int | None
    """When this machine's next cheaper hour begins; null where it does not wait."""
    rented: RentAnswer | None
    """Null where no market is offered."""


def way_answer(way: Way) -> WayAnswer:
    return WayAnswer(
        name=way.name,
        cost_usd=way.cost_usd,
        ends_at=way.ends_s,
        co2_kg=way.co2_kg,
        is_in_time=way.is_in_time,
        is_done_here=way.is_done_here,
        num_machines=way.num_machines,
        stretches=[_stretch(stretch) for stretch in way.stretches],
    )


def outlook_answer(outlook: JobOutlook) -> OutlookAnswer:
    stance = outlook.stance
    return OutlookAnswer(
        decided_at=int(outlook.decided_s),
        may_run=stance is None or stance.may_run,
        rule=None if stance is None else stance.rule,
        slack_seconds=None if stance is None else stance.slack_s,
        cheaper_at=None if stance is None or stance.cheaper_s is None else int(stance.cheaper_s),
        rented=None if outlook.rented is None else _rent(outlook.rented),
    )


def _rent(way: Way) -> RentAnswer:
    first = next((stretch for stretch in way.stretches if stretch.market not in (None, HERE)), None)
    return RentAnswer(
        market=None if first is None else first.market,
        num_machines=way.num_machines,
        starts_at=None if first is None else int(first.from_s),
        cost_usd=way.cost_usd.p50,
        ends_at=int(way.ends_s.p50),
    )


def _stretch(stretch: Stretch) -> StretchAnswer:
    return StretchAnswer(stretch.market, int(stretch.from_s), int(stretch.to_s), stretch.usd, stretch.rule)
