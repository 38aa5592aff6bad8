"""What a plan assumes of the future: prices by time, how spot runs end. From views, history and forecasts."""

from collections.abc import Callable
from math import exp

from msgspec import Struct
from msgspec.structs import replace

from speciate.scaling.market import MarketKind, MarketOptions, MarketView, hourly_usd, on_demand
from speciate.scaling.runs import (
    AGE_EDGES_S,
    DOWN_PRIOR_PER_S,
    NUM_AGES,
    OTHER_UP_PRIOR,
    UP_PRIOR_PER_S,
    MarketHistory,
    RunCounts,
    ZoneHistory,
    age_class,
)

Forecast = Callable[[str, float], float | None]
"""(market, time) to USD a machine-hour then (or to gCO2 a kWh); None where nobody knows: what is now is assumed."""


def unknown(market: str, at_s: float) -> None:
    """Nobody knows the future."""


class SpotOutlook(Struct, frozen=True):
    """One spot zone."""

    name: str
    start_s: float
    lost_s: float
    speed: float
    hazards_per_s: tuple[float, ...]
    """Chance a second of being taken, by age class of its up-run."""
    age_shares: tuple[float, ...]
    """Of the time that it is up, by age class."""
    others_share: float
    """Chance that another zone is up when it goes."""
    best_share: float
    """Of the time that any zone is up, how much this one is the cheapest."""


class Outlook(Struct, frozen=True):
    """All that a plan needs to know about markets."""

    wall: str
    wall_start_s: float
    wall_speed: float
    spots: tuple[SpotOutlook, ...]
    up_hazard_per_s: float
    """That all zones go."""
    down_hazards_per_s: tuple[float, ...]
    """That some zone comes back, by how long all have been gone."""
    hourly_usd: Callable[[str, float], float]
    """(market, time) to what a machine-hour counts for then, carbon included; of on-demand, what the cheapest on-demand
    market does then."""


def outlook(
    views: tuple[MarketView, ...],
    history: MarketHistory,
    options: MarketOptions,
    forecast: Forecast = unknown,
    grams: Forecast = unknown,
) -> Outlook:
    """From what was learnt; zones without history get the prior."""
    wall = on_demand(views)
    spots = [view for view in views if view.kind is MarketKind.SPOT]
    best_s = {view.name: history.zones[view.name].best_s if view.name in history.zones else 0.0 for view in spots}
    total_s = sum(best_s.values()) + 3600.0
    found = tuple(
        _spot(view, history.zones.get(view.name), (best_s[view.name] + 3600.0 / len(spots)) / total_s) for view in spots
    )
    weather = history.any_zone
    up_per_s = (weather.up if weather else RunCounts()).hazards_per_s(UP_PRIOR_PER_S)
    up_shares = _age_shares(up_per_s)
    return Outlook(
        wall=wall.name,
        wall_start_s=wall.start_s,
        wall_speed=wall.speed,
        spots=found,
        up_hazard_per_s=sum(h * share for h, share in zip(up_per_s, up_shares, strict=True)),
        down_hazards_per_s=(weather.down if weather else RunCounts()).hazards_per_s(DOWN_PRIOR_PER_S),
        hourly_usd=_prices(views, options, forecast, grams),
    )


def down_class(history: MarketHistory, now_s: float) -> int:
    """Age class of the time since which no zone has been up; 0 when one is, or nothing is known."""
    weather = history.any_zone
    return age_class(now_s - weather.since_s) if weather and not weather.is_up else 0


def up_class(history: MarketHistory, name: str, now_s: float) -> int:
    zone = history.zones.get(name)
    return age_class(now_s - zone.weather.since_s) if zone and zone.weather.is_up else 0


def _spot(view: MarketView, zone: ZoneHistory | None, best_share: float) -> SpotOutlook:
    per_s = (zone.weather.up if zone else RunCounts()).hazards_per_s(UP_PRIOR_PER_S)
    return SpotOutlook(
        name=view.name,
        start_s=view.start_s,
        lost_s=view.lost_s,
        speed=view.speed,
        hazards_per_s=per_s,
        age_shares=_age_shares(per_s),
        others_share=zone.others_share if zone else OTHER_UP_PRIOR,
        best_share=best_share,
    )


def _age_shares(hazards_per_s: tuple[float, ...]) -> tuple[float, ...]:
    """Share of a run's time in each class: the integral of survival over it."""
    edges = (0.0, *AGE_EDGES_S)
    survival, spent = 1.0, []
    for at in range(NUM_AGES):
        if at + 1 < NUM_AGES:
            stays = exp(-hazards_per_s[at] * (edges[at + 1] - edges[at]))
            spent.append(survival * (1 - stays) / hazards_per_s[at])
            survival *= stays
        else:
            spent.append(survival / hazards_per_s[at])
    return tuple(time_s / sum(spent) for time_s in spent)


def _prices(
    views: tuple[MarketView, ...], options: MarketOptions, forecast: Forecast, grams: Forecast
) -> Callable[[str, float], float]:
    by_name = {view.name: view for view in views}
    walls = [view for view in views if view.kind is MarketKind.ON_DEMAND]

    def at(name: str, at_s: float) -> float:
        view = by_name[name]
        if view.kind is not MarketKind.ON_DEMAND:
            return hourly_usd(foreseen(view, at_s, forecast, grams), options)
        return min(hourly_usd(foreseen(w, at_s, forecast, grams), options) * view.speed / w.speed for w in walls)

    return at


def foreseen(view: MarketView, at_s: float, forecast: Forecast, grams: Forecast) -> MarketView:
    """`view` with the price and the carbon of then, as far as they are known."""
    price, carbon = forecast(view.name, at_s), grams(view.name, at_s)
    return replace(
        view,
        price_usd_per_h=view.price_usd_per_h if price is None else price,
        gco2_per_kwh=view.gco2_per_kwh if carbon is None else carbon,
    )
