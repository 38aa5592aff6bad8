"""The scenes: single drawn zones, nine at once, three of a region, slow starts, prices by the hour, Bamboo's traces."""

from collections.abc import Callable
from math import cos, pi
from pathlib import Path

import numpy as np
from msgspec.structs import replace

from speciate.scaling.outlook import Forecast
from speciate.sim.market_compare import Comparison
from speciate.sim.market_traces import PUBLISHED_ZONES, drawn_scene, traced_scene

DAYS = 40
DRAWN_WORK_S = 12 * 3600.0
TRACED_WORK_S = 4 * 3600.0
GROUP_SIZES = (1, 4, 8, 12)
"""A traced zone is up for a job of k machines while its group holds at least k; no group ever held more than 12."""


def _single(seed: int) -> list[Comparison]:
    return [
        Comparison(drawn_scene([zone], DAYS, seed + i, name=zone.name), DRAWN_WORK_S)
        for i, zone in enumerate(PUBLISHED_ZONES)
    ]


def _nine(seed: int) -> list[Comparison]:
    return [Comparison(drawn_scene(PUBLISHED_ZONES, DAYS, seed + i, name=f"nine, {i}"), DRAWN_WORK_S) for i in range(3)]


def _region(seed: int) -> list[Comparison]:
    regions = dict.fromkeys(zone.region for zone in PUBLISHED_ZONES)
    return [
        Comparison(
            drawn_scene([z for z in PUBLISHED_ZONES if z.region == region], DAYS, seed, name=region), DRAWN_WORK_S
        )
        for region in regions
    ]


def _slow(seed: int) -> list[Comparison]:
    """A start of eight minutes (large weights from a far bucket), two minutes of lines lost."""
    return [
        Comparison(drawn_scene([zone], DAYS, seed + i, 600.0, 480.0, 120.0, zone.name), DRAWN_WORK_S)
        for i, zone in enumerate(PUBLISHED_ZONES[::2])
    ]


def _hourly(seed: int) -> list[Comparison]:
    """Prices that follow the hour of the day, on-demand too, from half at night to one and a half by day."""
    setups = []
    for i, zone in enumerate(PUBLISHED_ZONES[1::3]):
        scene = drawn_scene([zone], DAYS, seed + i, name=zone.name)
        hours = np.arange(scene.num_ticks) * scene.tick_s / 3600
        level = 1 - 0.5 * np.cos(2 * pi * hours / 24)
        markets = tuple(replace(market, usd_per_h_N=market.usd_per_h_N * level) for market in scene.markets)
        base = {market.view.name: float(market.usd_per_h_N[0]) for market in scene.markets}
        setups.append(Comparison(replace(scene, markets=markets), DRAWN_WORK_S, forecast=_by_hour(base)))
    return setups


def _by_hour(base: dict[str, float]) -> Forecast:
    return lambda market, at_s: base[market] * (1 - 0.5 * cos(2 * pi * at_s / 86_400))


def _traced(folder: Path) -> list[Comparison]:
    return [
        Comparison(traced_scene(path, size), TRACED_WORK_S, learn_days=0.0)
        for path in sorted(folder.glob("aws-spot-*.csv"))
        for size in GROUP_SIZES
    ]


FAMILIES: dict[str, Callable[[int], list[Comparison]] | None] = {
    "traces": None,
    "one zone": _single,
    "nine zones": _nine,
    "one region": _region,
    "slow starts": _slow,
    "prices by hour": _hourly,
}


def family_scenes(name: str, folder: Path, quick: bool, seed: int = 1) -> list[Comparison]:
    make = FAMILIES[name]
    setups = _traced(folder) if make is None else make(seed)
    return setups[::4][:2] if quick else setups
