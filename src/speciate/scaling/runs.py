"""How long zones stay up and down, learnt online: hazards by age of the run, as counters. Each look gives a new one.

Spot runs have heavy tails (median 20 to 84 minutes, mean up to ten hours): a zone that has been up for hours is likely
to stay. So the hazard is constant within an age class and learnt per class: events / exposure, with a prior of one
event. Survival by age is SkyNomad's idea (arXiv 2601.06520); piecewise constant hazards are a textbook estimator.
"""

from bisect import bisect_right
from math import log

from msgspec import Struct
from msgspec.structs import replace

AGE_EDGES_S = (1800.0, 7200.0, 28_800.0)
"""Ages at which a run enters the next class: half an hour, two hours, eight hours."""
NUM_AGES = len(AGE_EDGES_S) + 1
UP_PRIOR_PER_S = (1 / 3600, 1 / 7200, 1 / 18_000, 1 / 36_000)
"""Before anything was seen; the middle of the spot traces published with Can't Be Late (NSDI 2024)."""
DOWN_PRIOR_PER_S = (1 / 2700, 1 / 7200, 1 / 18_000, 1 / 36_000)
PRIOR_EVENTS = 1.0
FORGET = 0.9995
"""Weight of the past a minute: half of it is forgotten in a day."""
OTHER_UP_PRIOR = 0.5


class RunCounts(Struct, frozen=True):
    """Ends of runs, and time spent, by age class."""

    ends: tuple[float, ...] = (0.0,) * NUM_AGES
    exposure_s: tuple[float, ...] = (0.0,) * NUM_AGES

    def hazards_per_s(self, prior_per_s: tuple[float, ...]) -> tuple[float, ...]:
        """Chance a second that a run of each age class ends."""
        return tuple(
            (num + PRIOR_EVENTS) / (time_s + PRIOR_EVENTS / prior)
            for num, time_s, prior in zip(self.ends, self.exposure_s, prior_per_s, strict=True)
        )


class Weather(Struct, frozen=True):
    """One zone (or any zone at all) as seen so far: up or down, since when, and its runs."""

    is_up: bool
    since_s: float
    seen_s: float
    up: RunCounts = RunCounts()
    down: RunCounts = RunCounts()


class ZoneHistory(Struct, frozen=True):
    """A zone's weather, and two facts about the others."""

    weather: Weather
    deaths: float = 0.0
    """How often it went down ..."""
    deaths_with_others: float = 0.0
    """... while some other zone was up."""
    best_s: float = 0.0
    """Time in which it was the cheapest of those up."""

    @property
    def others_share(self) -> float:
        """Chance that another zone is up when this one goes."""
        return (self.deaths_with_others + OTHER_UP_PRIOR) / (self.deaths + 1.0)


class MarketHistory(Struct, frozen=True):
    """Everything learnt about a set of zones."""

    zones: dict[str, ZoneHistory] = {}
    any_zone: Weather | None = None


def age_class(age_s: float) -> int:
    return bisect_right(AGE_EDGES_S, age_s)


def length_s(hazards_per_s: tuple[float, ...], number: float, age_s: float) -> float:
    """Length of a run that has lasted `age_s`, by inverting its survival: of such runs the share `number` (above 0,
    below 1) lasts longer."""
    left = -log(number)
    at_s = age_s
    for edge_s, hazard in zip(AGE_EDGES_S, hazards_per_s, strict=False):
        stays = hazard * max(0.0, edge_s - at_s)
        if left <= stays:
            return at_s + left / hazard
        left -= stays
        at_s = max(at_s, edge_s)
    return at_s + left / hazards_per_s[-1]


def observed(history: MarketHistory, prices_usd_per_h: dict[str, float | None], now_s: float) -> MarketHistory:
    """The history with one more look: for each zone its price, or None when it is down. Call in order of time."""
    up = {name: price for name, price in prices_usd_per_h.items() if price is not None}
    best = min(up, key=lambda name: (up[name], name)) if up else None
    zones = {
        name: _zone(history.zones.get(name), price is not None, name == best, bool(up), now_s)
        for name, price in prices_usd_per_h.items()
    }
    return MarketHistory(zones, _weather(history.any_zone, bool(up), now_s))


def _zone(zone: ZoneHistory | None, is_up: bool, is_best: bool, any_up: bool, now_s: float) -> ZoneHistory:
    if zone is None:
        return ZoneHistory(_weather(None, is_up, now_s))
    has_died = zone.weather.is_up and not is_up
    return ZoneHistory(
        _weather(zone.weather, is_up, now_s),
        zone.deaths + has_died,
        zone.deaths_with_others + (has_died and any_up),
        zone.best_s + (now_s - zone.weather.seen_s) * is_best,
    )


def _weather(weather: Weather | None, is_up: bool, now_s: float) -> Weather:
    if weather is None:
        return Weather(is_up, now_s, now_s)
    has_changed = weather.is_up != is_up
    counts = _counted(weather.up if weather.is_up else weather.down, weather, has_changed, now_s)
    since_s = now_s if has_changed else weather.since_s
    if weather.is_up:
        return replace(weather, is_up=is_up, since_s=since_s, seen_s=now_s, up=counts)
    return replace(weather, is_up=is_up, since_s=since_s, seen_s=now_s, down=counts)


def _counted(counts: RunCounts, weather: Weather, has_ended: bool, now_s: float) -> RunCounts:
    """The time since the last look goes to the class that the run was in then."""
    at = age_class(weather.seen_s - weather.since_s)
    keep = FORGET ** ((now_s - weather.seen_s) / 60)
    ends = [keep * num for num in counts.ends]
    exposure_s = [keep * time_s for time_s in counts.exposure_s]
    ends[at] += has_ended
    exposure_s[at] += now_s - weather.seen_s
    return RunCounts(tuple(ends), tuple(exposure_s))
