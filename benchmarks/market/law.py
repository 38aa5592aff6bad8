"""The best that any online policy can do on one drawn zone: dynamic programming under the law it is drawn by.

It knows that law, all prices ahead, and more than anyone could see: whether a zone that is gone is gone by itself or
by a shock of its region. Only the zone's future is unknown to it. So on average no online policy costs less, and what
it pays above the optimum cannot be known in advance by anybody.

Weather: the zone's own run and its age class, times shock or none. Hazards by age are counted in a long drawn trace.
Within a class a run grows older by chance, so ages above some ticks are approximate.

Shapes: N weather states, W units of work left (0 first), H what is held (0 nothing, 1 spot, 2 on-demand).
"""

# Shape suffixes follow STYLE; ruff knows them as mixed-case names.
# ruff: noqa: N803, N806, N815

from bisect import bisect_right
from itertools import groupby
from math import exp, inf
from random import Random

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from speciate.scaling.market import SECONDS_PER_HOUR
from speciate.sim.market import Bools, MarketJob, Scene
from speciate.sim.market_traces import (
    REGION_SHOCK_S,
    REGION_SHOCK_UP_S,
    ZoneStatistics,
    region_runs,
    zone_runs,
)

Array = npt.NDArray[np.float64]
EDGES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 18, 22, 27, 33, 40, 50, 64, 80, 104, 136, 180, 240, 320, 440, 600)
"""Ages, in ticks, at which a run enters the next class."""
NUM_CLASSES = len(EDGES) + 1
LONG_DAYS = 3000
HOLD, SPOT, WALL = 0, 1, 2


class Law(Struct, frozen=True):
    """How a zone's weather goes on from one tick to the next."""

    next_NN: Array
    is_up_N: Bools


def law_of(zone: ZoneStatistics, tick_s: float) -> Law:
    """State `(is_down * NUM_CLASSES + class) * 2 + is_shocked`."""
    zone_ZZ = _zone_law(zone, tick_s)
    goes, comes = (1 - exp(-tick_s / mean_s) for mean_s in (REGION_SHOCK_UP_S, REGION_SHOCK_S))
    shock_22 = np.array([[1 - goes, goes], [comes, 1 - comes]])
    states = np.arange(4 * NUM_CLASSES)
    return Law(np.kron(zone_ZZ, shock_22), (states < 2 * NUM_CLASSES) & (states % 2 == 0))


def weather(zone: ZoneStatistics, num_ticks: int, tick_s: float, seed: int) -> list[int]:
    """The state in each tick of the scene that `drawn_scene([zone], ..., seed)` gives."""
    random = Random(seed)
    shocks, ups = region_runs(random, num_ticks, tick_s), zone_runs(random, zone, num_ticks, tick_s)
    found, age = [], 0
    for tick in range(num_ticks):
        age = age + 1 if tick and ups[tick] == ups[tick - 1] else 0
        found.append((int(not ups[tick]) * NUM_CLASSES + bisect_right(EDGES, age)) * 2 + int(not shocks[tick]))
    return found


class LawPolicy:
    """What to do in each tick of a job, worked out from its deadline backwards. `cost_usd` gives what it then paid."""

    def __init__(self, scene: Scene, job: MarketJob, law: Law, unit_s: float = 60.0) -> None:
        self._scene, self._job, self._law, self._unit_s = scene, job, law, unit_s
        self._num_units = round(job.work_s / unit_s)
        shape = (job.num_ticks, 3, len(law.is_up_N), self._num_units + 1)
        self._action_THNW = np.zeros(shape, np.int8)
        values_HNW = np.full(shape[1:], inf)
        values_HNW[:, :, 0] = 0.0
        for step in reversed(range(job.num_ticks)):
            values_HNW = self._step(step, values_HNW)
        self.expected_HNW = values_HNW

    def _step(self, step: int, after_HNW: Array) -> Array:
        """Cost by what is held (and still there) at the start of the tick."""
        tick = self._job.first_tick + step
        next_NN = self._law.next_NN
        wall, spot = self._scene.markets
        lost = round(spot.view.lost_s / self._unit_s)
        taken_NW = _later(after_HNW[HOLD], -lost)
        kept_NW = np.where(self._law.is_up_N[:, None], after_HNW[SPOT], taken_NW)
        on_NW, off_NW, spot_NW = (_mixed(next_NN, v) for v in (after_HNW[WALL], after_HNW[HOLD], kept_NW))
        best_HNW = np.empty_like(after_HNW)
        for held in (HOLD, SPOT, WALL):
            run_spot = self._run(tick, spot_NW, spot.view.start_s * (held != SPOT), 1)
            run_spot = np.where(self._law.is_up_N[:, None], run_spot, inf)
            run_wall = self._run(tick, on_NW, wall.view.start_s * (held != WALL), 0)
            options = np.stack((off_NW, run_spot, run_wall))
            self._action_THNW[step, held] = np.argmin(options, axis=0)
            best_HNW[held] = options.min(axis=0)
        best_HNW[:, :, 0] = 0.0
        return best_HNW

    def _run(self, tick: int, after_NW: Array, start_s: float, market: int) -> Array:
        usd_per_s = float(self._scene.markets[market].usd_per_h_N[tick]) / SECONDS_PER_HOUR
        done = round((self._scene.tick_s - start_s) / self._unit_s)
        ends = min(done, self._num_units) + 1
        cost_NW = np.empty_like(after_NW)
        cost_NW[:, :ends] = usd_per_s * (start_s + np.arange(ends) * self._unit_s)
        cost_NW[:, ends:] = usd_per_s * self._scene.tick_s + after_NW[:, ends - done : self._num_units + 1 - done]
        return cost_NW

    def cost_usd(self, states: list[int]) -> float:
        """Replayed on the scene, whose weather is given. inf when it was late."""
        scene, left, held, usd = self._scene, self._num_units, HOLD, 0.0
        for step in range(self._job.num_ticks):
            tick = self._job.first_tick + step
            state = states[tick]
            if held == SPOT and not scene.markets[1].is_up_N[tick]:
                left, held = left + round(scene.markets[1].view.lost_s / self._unit_s), HOLD
            action = int(self._action_THNW[step, held, state, min(left, self._num_units)])
            if action == HOLD:
                held = HOLD
                continue
            market = scene.markets[1 if action == SPOT else 0]
            start_s = 0.0 if held == action else market.view.start_s
            worked_s = min(scene.tick_s - start_s, left * self._unit_s)
            usd += float(market.usd_per_h_N[tick]) * (start_s + worked_s) / SECONDS_PER_HOUR
            left, held = left - round(worked_s / self._unit_s), action
            if left <= 0:
                return usd
        return inf


def _later(values_NW: Array, by: int) -> Array:
    """Values with `-by` more units left; infinite beyond the most."""
    if by == 0:
        return values_NW
    beyond_NW = np.full((len(values_NW), -by), inf)
    return np.concatenate((values_NW[:, -by:], beyond_NW), axis=1)


def _mixed(next_NN: Array, values_NW: Array) -> Array:
    """Expected over the next weather; infinite where any that can come is."""
    is_bad = np.isinf(values_NW)
    mean_NW: Array = next_NN @ np.where(is_bad, 0.0, values_NW)
    mean_NW[next_NN @ is_bad > 1e-12] = inf
    return mean_NW


def _zone_law(zone: ZoneStatistics, tick_s: float) -> Array:
    ups = zone_runs(Random(0), zone, round(LONG_DAYS * 86_400 / tick_s), tick_s)
    runs = [(is_up, len(list(group))) for is_up, group in groupby(ups.tolist())][1:-1]
    law_ZZ = np.zeros((2 * NUM_CLASSES, 2 * NUM_CLASSES))
    for place, is_up in enumerate((True, False)):
        lengths = np.array([length for up, length in runs if up is is_up])
        first, other = place * NUM_CLASSES, (1 - place) * NUM_CLASSES
        for k, (low, high) in enumerate(zip((0, *EDGES), (*EDGES, 10**9), strict=True)):
            exposure = np.clip(lengths - low, 0, high - low).sum()
            ends = ((lengths > low) & (lengths <= high)).sum()
            hazard = ends / exposure if exposure else 1.0
            older = 0.0 if k == NUM_CLASSES - 1 else 1.0 / (high - low)
            law_ZZ[first + k, other] += hazard
            law_ZZ[first + k, first + k] += (1 - hazard) * (1 - older)
            if older:
                law_ZZ[first + k, first + k + 1] += (1 - hazard) * older
    return law_ZZ
