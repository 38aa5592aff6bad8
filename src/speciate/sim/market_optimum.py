"""What a job would have cost with the whole future known: exact, over (tick, work left, market held).

It pays the same starts and preemption losses in the same ticks as `sim/market.replay`, so no policy there can cost
less. It parks before a preemption that it sees coming. Work is counted in units that divide tick, start and loss.
"""

# Shape suffixes follow STYLE; ruff knows them as mixed-case names.
# ruff: noqa: N803, N806

from math import gcd, inf

import numpy as np
import numpy.typing as npt

from speciate.core.errors import ConfigError
from speciate.scaling.market import SECONDS_PER_HOUR, MarketKind
from speciate.sim.market import MarketJob, MarketTrace, Scene, check_scene

Costs = npt.NDArray[np.float64]


def optimum_usd(scene: Scene, job: MarketJob) -> float:
    """Least cost of finishing in time; inf when it cannot be done. O(ticks x markets x work / unit)."""
    check_scene(scene)
    unit_s = _unit_s(scene, job)
    num_units = round(job.work_s / unit_s)
    held_W = {market.view.name: _start(num_units) for market in scene.markets}
    free_W = _start(num_units)
    for tick in reversed(range(job.first_tick, job.first_tick + job.num_ticks)):
        starts = [_tick(held_W, market, scene, tick, unit_s, market.view.start_s) for market in scene.markets]
        best_W = np.minimum.reduce([free_W, *starts])
        best_W[0] = 0.0
        held_W = {market.view.name: _held(held_W, market, scene, tick, unit_s, best_W) for market in scene.markets}
        free_W = best_W
    return float(free_W[num_units])


def _start(num_units: int) -> Costs:
    costs_W = np.full(num_units + 1, inf)
    costs_W[0] = 0.0
    return costs_W


def _tick(
    after: dict[str, Costs], market: MarketTrace, scene: Scene, tick: int, unit_s: float, start_s: float
) -> Costs:
    """Cost by work left of running this tick in `market`, `start_s` of it starting, and going on at the best."""
    after_W = after[market.view.name]
    num_units = len(after_W) - 1
    if not market.is_up_N[tick]:
        return np.full(num_units + 1, inf)
    usd_per_s = float(market.usd_per_h_N[tick]) / SECONDS_PER_HOUR
    done = round((scene.tick_s - start_s) * market.view.speed / unit_s)
    costs_W = np.empty(num_units + 1)
    ends = min(done, num_units) + 1
    costs_W[:ends] = usd_per_s * (start_s + np.arange(ends) * unit_s / market.view.speed)
    costs_W[ends:] = usd_per_s * scene.tick_s + after_W[ends - done : num_units + 1 - done]
    return costs_W


def _held(after: dict[str, Costs], market: MarketTrace, scene: Scene, tick: int, unit_s: float, best_W: Costs) -> Costs:
    """Cost by work left of coming into this tick with `market` working: go on, or leave it; if it was taken, less the
    lines that ran."""
    if market.view.kind is MarketKind.SPOT and not market.is_up_N[tick]:
        lost = round(market.view.lost_s / unit_s)
        return np.concatenate((best_W[lost:], np.full(lost, inf)))
    return np.minimum(best_W, _tick(after, market, scene, tick, unit_s, 0.0))


def _unit_s(scene: Scene, job: MarketJob) -> float:
    parts = [scene.tick_s, job.work_s]
    for market in scene.markets:
        view = market.view
        parts += [view.start_s, view.lost_s, scene.tick_s * view.speed, (scene.tick_s - view.start_s) * view.speed]
    whole = [round(part) for part in parts]
    if any(abs(part - round(part)) > 1e-6 for part in parts):
        raise ConfigError("the optimum needs whole seconds of tick, work, start, loss, and their product with speed")
    return float(gcd(*whole))
