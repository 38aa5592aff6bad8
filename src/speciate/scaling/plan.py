"""The expected cost of a job's rest, for every time left and every slack: dynamic programming over a learnt outlook.

    time left   tau = deadline - now                      layers, tau = 0 at the deadline
    slack       s   = tau - work left on on-demand - its start       columns, a layer apart, finer below four layers
    state       what is held (nothing, spot, on-demand), and which zone is up at what age, or for how long none is

Waiting uses up slack, running does not; a preemption and every start use up a little. So a step goes one layer down and
some columns to the left, and each layer follows from the one below. Columns are a layer apart so that waiting reads
them exactly: reading between columns, layer after layer, would smear the table. Cost: layers x zones x age classes x
columns, whatever the job. The plan is a table; `decide` reads it, and the wall holds whether the table is right or not.

Simplified: one zone is looked at at a time. When it goes, another is up by the share that was seen, the cheapest one of
its usual age; that a better zone comes while this one is up is left to the next decision.

Shapes: K layers, Z zones, B age classes, S columns.
"""

# Shape suffixes follow STYLE; ruff knows them as mixed-case names.
# ruff: noqa: N803, N806, N815

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from speciate.scaling.market import SECONDS_PER_HOUR, JobState
from speciate.scaling.outlook import Outlook
from speciate.scaling.runs import AGE_EDGES_S, NUM_AGES

Array = npt.NDArray[np.float64]
Ints = npt.NDArray[np.intp]


class PlanOptions(Struct, frozen=True):
    """How fine the table is."""

    num_layers: int = 288


DEFAULT_GRAIN = PlanOptions()


class Plan(Struct, frozen=True):
    """Expected USD from each state to the end. Layer k is at `k * layer_s` before the deadline."""

    outlook: Outlook
    deadline_s: float
    layer_s: float
    slacks_S: Array
    run_KZBS: Array
    """Running on a working machine of zone Z, up since age class B, for a layer at least."""
    wait_KZBS: Array
    """Holding nothing for a layer while zone Z is up."""
    wait_down_KBS: Array
    """The same while none is up, since age class B."""
    wall_KZBS: Array
    """Running on working on-demand for a layer at least, while zone Z is up. Its slack counts no start."""
    wall_down_KBS: Array


def plan(outlook: Outlook, job: JobState, safety_s: float = 0.0, options: PlanOptions = DEFAULT_GRAIN) -> Plan:
    """The table for `job`, due `safety_s` before its deadline. Valid from now on, while slack does not grow. Pure."""
    deadline_s = job.deadline_s - safety_s
    sweep = _Sweep(outlook, deadline_s, max(deadline_s - job.now_s, 1.0), job, options)
    for layer in range(1, options.num_layers + 1):
        sweep.step(layer)
    return Plan(
        outlook,
        deadline_s,
        sweep.layer_s,
        sweep.slacks_S,
        sweep.run_KZBS,
        sweep.wait_KZBS,
        sweep.wait_down_KBS,
        sweep.wall_KZBS,
        sweep.wall_down_KBS,
    )


@dataclass(slots=True)
class _Shift:
    """Reads columns some seconds further, by zone: linear between two, held at the ends."""

    low_Z1S: Ints
    share_Z1S: Array

    def __call__(self, values_ZBS: Array) -> Array:
        num_z, num_b, _ = values_ZBS.shape
        z_Z11, b_B1 = np.arange(num_z)[:, None, None], np.arange(num_b)[:, None]
        low_ZBS = values_ZBS[z_Z11, b_B1, self.low_Z1S]
        high_ZBS: Array = values_ZBS[z_Z11, b_B1, self.low_Z1S + 1]
        return low_ZBS + self.share_Z1S * (high_ZBS - low_ZBS)


class _Sweep:
    """Owns the table while it is filled, from the deadline backwards."""

    def __init__(
        self,
        outlook: Outlook,
        deadline_s: float,
        horizon_s: float,
        job: JobState,
        options: PlanOptions,
    ) -> None:
        self._outlook = outlook
        self._deadline_s = deadline_s
        self._machines = job.num_machines
        self._idle = job.idle_rate / job.num_machines / outlook.wall_speed
        self.layer_s = horizon_s / options.num_layers
        self.slacks_S = _columns(self.layer_s, horizon_s - job.left_s / outlook.wall_speed)
        num_k, num_z, num_s = options.num_layers + 1, len(outlook.spots), len(self.slacks_S)
        self.run_KZBS = np.zeros((num_k, num_z, NUM_AGES, num_s))
        self.wait_KZBS = np.zeros((num_k, num_z, NUM_AGES, num_s))
        self.wall_KZBS = np.zeros((num_k, num_z, NUM_AGES, num_s))
        self.wait_down_KBS = np.zeros((num_k, NUM_AGES, num_s))
        self.wall_down_KBS = np.zeros((num_k, NUM_AGES, num_s))
        self._wall_ZBS = np.zeros((num_z, NUM_AGES, num_s))
        """The best from holding on-demand, in the layer below; likewise from holding nothing."""
        self._wall_down_BS = np.zeros((NUM_AGES, num_s))
        self._free_ZBS = np.zeros((num_z, NUM_AGES, num_s))
        self._free_down_BS = np.zeros((NUM_AGES, num_s))
        self._wall_usd_K = np.zeros(num_k)
        """Of on-demand from a layer to the deadline."""
        self._learn()

    def _learn(self) -> None:
        """What does not change from layer to layer."""
        layer_s, outlook = self.layer_s, self._outlook
        spots = outlook.spots
        widths_s = np.diff(np.array((0.0, *AGE_EDGES_S)))
        self._age_B1: Array = np.append(np.minimum(1.0, layer_s / widths_s), 0.0)[:, None]
        self._back_B1: Array = (1 - np.exp(-np.array(outlook.down_hazards_per_s) * layer_s))[:, None]
        hazards_ZB = np.array([spot.hazards_per_s for spot in spots]).reshape(len(spots), NUM_AGES)
        self._gone_ZB1: Array = (1 - np.exp(-hazards_ZB * layer_s))[:, :, None]
        self._others_Z1 = np.array([spot.others_share for spot in spots])[:, None]
        self._best_Z = np.array([spot.best_share for spot in spots])
        self._usual_ZB: Array = np.array([spot.age_shares for spot in spots]).reshape(len(spots), NUM_AGES)
        self._usual_ZB *= self._best_Z[:, None]
        speed_Z = np.array([spot.speed / outlook.wall_speed + self._idle for spot in spots])
        start_Z = np.array([spot.start_s for spot in spots])
        lost_Z = np.array([spot.lost_s / self._machines / outlook.wall_speed for spot in spots])
        self._speed_Z11 = speed_Z[:, None, None]
        self._start_Z11 = start_Z[:, None, None]
        self._wait = self._shift(-layer_s * (1 - self._idle))
        self._on_wall = self._shift(layer_s * self._idle)
        self._worked = self._shift(layer_s * (speed_Z - 1))
        self._taken = self._shift(layer_s * (speed_Z / 2 - 1) - lost_Z)
        self._started = self._shift(-start_Z)
        self._left_wall = self._shift(-start_Z - outlook.wall_start_s)
        self._no_wall = self._shift(-outlook.wall_start_s)

    def _shift(self, by_s: float | Array) -> _Shift:
        at_Z1S = np.clip(self.slacks_S + np.reshape(by_s, (-1, 1, 1)), 0.0, self.slacks_S[-1])
        low_Z1S = np.clip(np.searchsorted(self.slacks_S, at_Z1S, side="right") - 1, 0, len(self.slacks_S) - 2)
        share_Z1S = (at_Z1S - self.slacks_S[low_Z1S]) / (self.slacks_S[low_Z1S + 1] - self.slacks_S[low_Z1S])
        return _Shift(low_Z1S, share_Z1S)

    def step(self, k: int) -> None:
        """Fill layer `k` from the layers below."""
        self._wall_usd_K[k] = self._wall_usd_K[k - 1] + self._usd_per_s(self._outlook.wall, k) * self.layer_s
        self._fill_waiting(k)
        self._fill_running(k)
        self._fill_wall(k)
        self._fill_free(k)

    def _usd_per_s(self, name: str, k: int) -> float:
        at_s = self._deadline_s - k * self.layer_s
        return self._outlook.hourly_usd(name, at_s) * self._machines / SECONDS_PER_HOUR

    def _wall_usd(self, k: int, for_S: Array) -> Array:
        """Of on-demand from layer `k` on for so many seconds, at the prices of those hours."""
        end_S = np.maximum(0.0, k - for_S / self.layer_s)
        usd_S: Array = self._wall_usd_K[k] - np.interp(end_S, np.arange(k + 1), self._wall_usd_K[: k + 1])
        return usd_S

    def _spot_usd_per_s(self, k: int) -> Array:
        usd_Z = np.array([self._usd_per_s(spot.name, k) for spot in self._outlook.spots])
        return usd_Z[:, None, None]

    def _work_s(self, k: int) -> Array:
        """Left, on working on-demand machines, by column."""
        return np.maximum(0.0, k * self.layer_s - self.slacks_S - self._outlook.wall_start_s)

    def _aged(self, values: Array) -> Array:
        """A layer later the run may be in the next class."""
        later = np.concatenate((values[..., 1:, :], values[..., -1:, :]), axis=-2)
        return values + self._age_B1 * (later - values)

    def _gone(self, up_ZBS: Array, down_BS: Array) -> Array:
        """What a zone leaves behind when it goes: another one of its usual age, or none."""
        another_S = np.einsum("zb,zbs->s", self._usual_ZB, up_ZBS)
        mixed_ZS = self._others_Z1 * another_S + (1 - self._others_Z1) * down_BS[0]
        gone_Z1S: Array = mixed_ZS[:, None, :]
        return gone_Z1S

    def _next_up(self, up_ZBS: Array, down_BS: Array) -> Array:
        return (1 - self._gone_ZB1) * self._aged(up_ZBS) + self._gone_ZB1 * self._gone(up_ZBS, down_BS)

    def _next_down(self, up_ZBS: Array, down_BS: Array) -> Array:
        if not self._outlook.spots:
            return down_BS
        fresh_S = np.einsum("z,zs->s", self._best_Z, up_ZBS[:, 0])
        next_BS: Array = (1 - self._back_B1) * self._aged(down_BS) + self._back_B1 * fresh_S
        return next_BS

    def _fill_waiting(self, k: int) -> None:
        """Once slack is shorter than a layer, waiting ends at the wall with nothing left to choose."""
        work_S = self._work_s(k)
        is_late_S = self.slacks_S < self.layer_s * (1 - self._idle)
        forced_S = self._wall_usd(k, work_S + self._outlook.wall_start_s)
        up_ZBS = self._wait(self._next_up(self._free_ZBS, self._free_down_BS))
        down_BS = self._wait(self._next_down(self._free_ZBS, self._free_down_BS)[None])[0]
        self.wait_KZBS[k] = np.where(work_S <= 0, 0.0, np.where(is_late_S, forced_S, up_ZBS))
        self.wait_down_KBS[k] = np.where(work_S <= 0, 0.0, np.where(is_late_S, forced_S, down_BS))

    def _fill_running(self, k: int) -> None:
        layer_s, usd_Z11 = self.layer_s, self._spot_usd_per_s(k)
        needs_Z1S = self._work_s(k) / self._speed_Z11
        stays_ZBS = usd_Z11 * layer_s + self._worked(
            self._aged(np.minimum(self.run_KZBS[k - 1], self.wait_KZBS[k - 1]))
        )
        goes_Z1S = usd_Z11 * layer_s / 2 + self._taken(self._gone(self._free_ZBS, self._free_down_BS))
        run_ZBS = (1 - self._gone_ZB1) * stays_ZBS + self._gone_ZB1 * goes_Z1S
        self.run_KZBS[k] = np.where(needs_Z1S <= layer_s, usd_Z11 * needs_Z1S, run_ZBS)

    def _fill_wall(self, k: int) -> None:
        self.wall_KZBS[k] = self._run_wall(k, self._next_up(self._wall_ZBS, self._wall_down_BS))
        self.wall_down_KBS[k] = self._run_wall(k, self._next_down(self._wall_ZBS, self._wall_down_BS)[None])[0]
        leave_ZBS = self._from(self.wait_KZBS[k], self._no_wall, 0.0)
        leave_BS = self._from(self.wait_down_KBS[k][None], self._no_wall, 0.0)[0]
        other_ZBS = np.minimum(leave_ZBS, self._start_spot(k, self._left_wall))
        self._wall_ZBS = np.minimum(self.wall_KZBS[k], other_ZBS)
        self._wall_down_BS = np.minimum(self.wall_down_KBS[k], leave_BS)

    def _run_wall(self, k: int, after: Array) -> Array:
        usd_per_s = self._usd_per_s(self._outlook.wall, k)
        needs_S = np.maximum(0.0, k * self.layer_s - self.slacks_S) / (1 + self._idle)
        going_on = usd_per_s * self.layer_s + self._on_wall(after)
        return np.where(needs_S <= self.layer_s, usd_per_s * needs_S, going_on)

    def _from(self, values_ZBS: Array, shift: _Shift, usd: float | Array) -> Array:
        """Another state after a change that costs slack; out of reach where there is not enough of it."""
        return usd + np.where(self._reaches(shift), shift(values_ZBS), np.inf)

    def _reaches(self, shift: _Shift) -> npt.NDArray[np.bool_]:
        return (shift.low_Z1S > 0) | (shift.share_Z1S > 0)

    def _start_spot(self, k: int, shift: _Shift) -> Array:
        working_ZBS = self._below_by_zone(k)
        return self._from(working_ZBS, shift, self._spot_usd_per_s(k) * self._start_Z11)

    def _fill_free(self, k: int) -> None:
        start_s = self._outlook.wall_start_s
        is_done_S = self._work_s(k) <= 0
        usd = self._usd_per_s(self._outlook.wall, k) * start_s
        wall_ZBS = np.where(is_done_S, 0.0, usd + self._below(self.wall_KZBS, k, start_s))
        wall_BS = np.where(is_done_S, 0.0, usd + self._below(self.wall_down_KBS, k, start_s))
        self._free_down_BS = np.minimum(self.wait_down_KBS[k], wall_BS)
        other_ZBS = np.minimum(self.wait_KZBS[k], wall_ZBS)
        self._free_ZBS = np.minimum(other_ZBS, self._start_spot(k, self._started))

    def _below_by_zone(self, k: int) -> Array:
        """Rows of the running table that lie each zone's start after layer `k`."""
        rows = [self._below(self.run_KZBS[:, z], k, spot.start_s) for z, spot in enumerate(self._outlook.spots)]
        return np.array(rows).reshape(self._free_ZBS.shape)

    def _below(self, table: Array, k: int, by_s: float) -> Array:
        """The row of `table` that lies `by_s` after layer `k`, between two layers."""
        at = max(0.0, k - by_s / self.layer_s)
        low = min(int(at), k - 1)
        row: Array = table[low] + (at - low) * (table[low + 1] - table[low])
        return row


def _columns(layer_s: float, longest_s: float) -> Array:
    """An eighth of a layer apart up to four layers, then whole layers to the longest slack and one more."""
    fine_S = np.arange(0.0, 4.0, 0.125)
    coarse_S = np.arange(4.0, max(5.0, np.ceil(longest_s / layer_s) + 1) + 1)
    return layer_s * np.concatenate((fine_S, coarse_S))
