"""Markets as an operator writes them down: names, kinds, prices by hour; and a dry run over them. Does no I/O.

markets:
  - {name: on-demand, kind: on_demand, usd_per_h: 2.29}
  - {name: zone-a, kind: spot, usd_per_h: 0.80, lost_s: 30}
  - {name: night, kind: on_demand, hourly: [{hour: 7, value: 3.0}, {hour: 22, value: 1.1}]}
options: {carbon_usd_per_kg: 0.1}
"""

from typing import Any

import msgspec
from msgspec import Struct

from speciate.core.errors import ConfigError
from speciate.scaling.estimate import Estimate, estimate
from speciate.scaling.market import JobState, MarketKind, MarketOptions, MarketView
from speciate.scaling.runs import MarketHistory
from speciate.scaling.signals import HOUR_S, HourlyRow, HourlySchedule, PriceTable


class MarketSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """One market. Its price is a constant or a schedule of hours."""

    name: str
    kind: MarketKind
    usd_per_h: float | None = None
    hourly: tuple[HourlyRow, ...] = ()
    is_available: bool = True
    """Whether machines can be had now."""
    start_s: float = 180.0
    lost_s: float = 0.0
    notice_s: float = 30.0
    speed: float = 1.0
    gco2_per_kwh: float = 0.0
    power_kw: float = 0.0


class MarketsSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """All markets that a job may use; at least one is on-demand."""

    markets: tuple[MarketSpec, ...]
    options: MarketOptions = MarketOptions()
    utc_offset_h: float = 0.0
    """Of the schedules' hours, when times are seconds since 1970 in UTC."""


def parse_markets(tree: Any) -> MarketsSpec:
    """Check plain values (from YAML or JSON). Raises ConfigError with the place."""
    try:
        spec = msgspec.convert(tree, MarketsSpec)
    except msgspec.ValidationError as error:
        raise ConfigError(f"markets: {error}") from error
    names = [market.name for market in spec.markets]
    if len(set(names)) < len(names):
        raise ConfigError(f"markets: a name is used twice: {', '.join(names)}; make names unique")
    if all(market.kind is not MarketKind.ON_DEMAND for market in spec.markets):
        raise ConfigError("markets: none is of kind on_demand, and no deadline can be kept without one; add it")
    for market in spec.markets:
        if (market.usd_per_h is None) == (not market.hourly):
            raise ConfigError(f"markets: {market.name} needs either usd_per_h or hourly, not both")
    prices_of(spec)
    return spec


def prices_of(spec: MarketsSpec) -> PriceTable:
    """The schedules; constant prices are left to the views."""
    offset_s = spec.utc_offset_h * HOUR_S
    return PriceTable({m.name: HourlySchedule(m.hourly, offset_s) for m in spec.markets if m.hourly})


def views_of(spec: MarketsSpec, now_s: float) -> tuple[MarketView, ...]:
    prices = prices_of(spec)
    return tuple(
        MarketView(
            name=market.name,
            kind=market.kind,
            is_available=market.is_available,
            price_usd_per_h=prices.usd_per_h(market.name, now_s) or market.usd_per_h or 0.0,
            start_s=market.start_s,
            lost_s=market.lost_s,
            notice_s=market.notice_s,
            speed=market.speed,
            gco2_per_kwh=market.gco2_per_kwh,
            power_kw=market.power_kw,
        )
        for market in spec.markets
    )


def dry_run(spec: MarketsSpec, job: JobState, history: MarketHistory | None = None) -> Estimate:
    """What `job` will cost on these markets, when it ends, and why; `explained` puts it into words."""
    views = views_of(spec, job.now_s)
    return estimate(job, views, history or MarketHistory(), spec.options, prices_of(spec).usd_per_h)
