"""Spot markets over time: Bamboo's step functions of group sizes, and zones drawn from a seed."""

# Shape suffixes follow STYLE; ruff knows them as mixed-case names.
# ruff: noqa: N806

import re
from collections.abc import Callable, Iterable
from datetime import datetime
from itertools import pairwise
from math import exp, log, sqrt
from pathlib import Path
from random import Random

import numpy as np
from msgspec import Struct

from speciate.core.errors import ConfigError
from speciate.scaling.market import MarketKind, MarketView
from speciate.sim.market import Bools, MarketTrace, Scene

ON_DEMAND_USD_PER_H = 1.0
SPOT_SHARE = 0.33
"""Spot price over on-demand price where the trace has none: the middle of what clouds listed for GPUs in 2023."""


Draw = Callable[[Random], float]
"""Length of the next run, seconds."""


class ZoneStatistics(Struct, frozen=True):
    """What a drawn zone is fitted to; runs are lognormal with these medians and means."""

    name: str
    region: str
    availability: float
    up_median_s: float
    up_mean_s: float
    down_median_s: float = 1000.0
    longest_s: float = 80 * 3600.0
    """Runs are cut at this length when down."""
    usd_per_h: float = SPOT_SHARE


MINUTE_S = 60.0
PUBLISHED_ZONES = (
    ZoneStatistics("us-east-1a", "us-east-1", 0.21, 15 * MINUTE_S, 45 * MINUTE_S, usd_per_h=0.30),
    ZoneStatistics("us-east-1c", "us-east-1", 0.38, 18 * MINUTE_S, 80 * MINUTE_S, usd_per_h=0.31),
    ZoneStatistics("us-east-1d", "us-east-1", 0.48, 18 * MINUTE_S, 100 * MINUTE_S, usd_per_h=0.33),
    ZoneStatistics("us-east-2a", "us-east-2", 0.42, 20 * MINUTE_S, 100 * MINUTE_S, usd_per_h=0.30),
    ZoneStatistics("us-east-2b", "us-east-2", 0.54, 22 * MINUTE_S, 140 * MINUTE_S, usd_per_h=0.32),
    ZoneStatistics("us-east-2c", "us-east-2", 0.58, 25 * MINUTE_S, 170 * MINUTE_S, usd_per_h=0.34),
    ZoneStatistics("us-west-2a", "us-west-2", 0.70, 28 * MINUTE_S, 260 * MINUTE_S, usd_per_h=0.33),
    ZoneStatistics("us-west-2b", "us-west-2", 0.84, 32 * MINUTE_S, 420 * MINUTE_S, usd_per_h=0.35),
    ZoneStatistics("us-west-2c", "us-west-2", 0.95, 36 * MINUTE_S, 900 * MINUTE_S, usd_per_h=0.36),
)
"""Nine zones of the spread measured on the V100 traces of skypilot-org/spot-traces (2023): availability 0.17 to 0.90,
up-runs of median 20 to 84 min and mean 43 to 624 min, down-runs of median 23 to 42 min. A region's shocks, drawn on
top, take one part in fifteen of the time."""
REGION_SHOCK_UP_S = 72 * 3600.0
REGION_SHOCK_S = 5 * 3600.0


def drawn_scene(
    zones: Iterable[ZoneStatistics],
    days: float,
    seed: int,
    tick_s: float = 300.0,
    start_s: float = 180.0,
    lost_s: float = 60.0,
    name: str = "drawn",
) -> Scene:
    """Zones with their own runs, and shocks that take a whole region. Equal seeds give equal scenes."""
    num_ticks = round(days * 86_400 / tick_s)
    random = Random(seed)
    shocks: dict[str, Bools] = {}
    markets = [_on_demand(num_ticks, start_s)]
    for zone in zones:
        if zone.region not in shocks:
            shocks[zone.region] = region_runs(random, num_ticks, tick_s)
        is_up_N = zone_runs(random, zone, num_ticks, tick_s)
        view = MarketView(zone.name, MarketKind.SPOT, False, zone.usd_per_h, start_s=start_s, lost_s=lost_s)
        markets.append(MarketTrace(view, is_up_N & shocks[zone.region], np.full(num_ticks, zone.usd_per_h)))
    return Scene(name, tick_s, tuple(markets))


def region_runs(random: Random, num_ticks: int, tick_s: float) -> Bools:
    """False in the ticks in which a shock takes the whole region."""
    return _runs(random, num_ticks, tick_s, _exponential(REGION_SHOCK_UP_S), _exponential(REGION_SHOCK_S))


def zone_runs(random: Random, zone: ZoneStatistics, num_ticks: int, tick_s: float) -> Bools:
    """The zone's own runs, were there no shocks."""
    up = _lognormal(zone.up_median_s, zone.up_mean_s)
    down_mean_s = zone.up_mean_s * (1 - zone.availability) / zone.availability
    down = _capped(_lognormal(min(zone.down_median_s, 0.9 * down_mean_s), down_mean_s), zone.longest_s)
    return _runs(random, num_ticks, tick_s, up, down)


def read_group_sizes(path: Path, until_s: float | None = None) -> tuple[tuple[float, int], ...]:
    """(time, machines) steps of Bamboo's `time,instances` files, in order. Raises ConfigError.

    The times are read as seconds: the files' names span 14 to 27 hours, their last rows say 45,668 to 88,194.
    """
    rows = []
    try:
        for line in path.read_text(encoding="ascii").split():
            at, _, size = line.partition(",")
            rows.append((float(at), int(size)))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} is not rows of time,instances: {error}") from error
    if not rows or any(a > b for (a, _), (b, _) in pairwise(rows)):
        raise ConfigError(f"{path}: no rows, or times that go back")
    return tuple(rows)


def span_s(path: Path) -> float:
    """How long the file's name says that was watched; 0 where it does not say."""
    found = re.search(r"(\d{4}-\d\d-\d\d-\d{4})-to-(\d{4}-\d\d-\d\d-\d{4})", path.name)
    if found is None:
        return 0.0
    start, end = (datetime.strptime(text, "%Y-%m-%d-%H%M") for text in found.groups())
    return (end - start).total_seconds()


def traced_scene(
    path: Path, num_machines: int, tick_s: float = 300.0, start_s: float = 180.0, lost_s: float = 60.0
) -> Scene:
    """One zone that is up in a tick if its group held at least `num_machines` machines throughout it.

    Lasts as long as the file's name says, or to its last row if that is later; the last size holds to the end.
    """
    rows = read_group_sizes(path)
    num_ticks = int(max(span_s(path), rows[-1][0]) // tick_s)
    least_N = np.full(num_ticks, np.iinfo(np.int64).max)
    for (at_s, size), next_s in zip(rows, [*(at for at, _ in rows[1:]), num_ticks * tick_s], strict=True):
        if next_s > at_s:
            last = min(num_ticks, int(np.ceil(next_s / tick_s)))
            least_N[int(at_s // tick_s) : last] = np.minimum(least_N[int(at_s // tick_s) : last], size)
    view = MarketView("spot", MarketKind.SPOT, False, SPOT_SHARE, start_s=start_s, lost_s=lost_s)
    zone = MarketTrace(view, least_N >= num_machines, np.full(num_ticks, SPOT_SHARE))
    return Scene(f"{path.stem} x{num_machines}", tick_s, (_on_demand(num_ticks, start_s), zone))


def _on_demand(num_ticks: int, start_s: float) -> MarketTrace:
    view = MarketView("on-demand", MarketKind.ON_DEMAND, True, ON_DEMAND_USD_PER_H, start_s=start_s)
    return MarketTrace(view, np.ones(num_ticks, bool), np.full(num_ticks, ON_DEMAND_USD_PER_H))


def _runs(random: Random, num_ticks: int, tick_s: float, up: Draw, down: Draw) -> Bools:
    """Up and down by turns; the first run is entered in its middle."""
    is_up_N = np.zeros(num_ticks, bool)
    is_up = random.random() < 0.5
    at_s = -random.random() * (up(random) if is_up else down(random))
    while at_s < num_ticks * tick_s:
        end_s = at_s + (up(random) if is_up else down(random))
        if is_up:
            is_up_N[max(0, int(np.ceil(at_s / tick_s))) : max(0, int(end_s // tick_s))] = True
        at_s, is_up = end_s, not is_up
    return is_up_N


def _lognormal(median_s: float, mean_s: float) -> Draw:
    mu, sigma = log(median_s), sqrt(2 * log(mean_s / median_s))
    return lambda random: exp(random.gauss(mu, sigma))


def _exponential(mean_s: float) -> Draw:
    return lambda random: random.expovariate(1 / mean_s)


def _capped(draw: Draw, longest_s: float) -> Draw:
    return lambda random: min(draw(random), longest_s)
