"""How long simulated steps really take: what the calibration says, with a run's noise and shifts. Seeded."""

import random

from speciate.costs.step_calibration import StepCalibration, StepWork
from speciate.costs.step_series import StepSeries
from speciate.sim.faults import Faults


class StepTimes:
    """Draws durations for a replica that has `speed` of the calibrated device."""

    def __init__(self, calibration: StepCalibration, faults: Faults, speed: float, seed: int) -> None:
        self._calibration = calibration
        self._between_s = calibration.between_s
        self._faults = faults
        self._is_exact = faults.are_steps_exact
        self._speed = speed
        self._random = random.Random(f"steps {seed}")
        self._series = StepSeries(calibration.step_sizes)

    def step_s(self, work: StepWork, now_s: float) -> float:
        """One step that begins now."""
        return self._observed_s(self._calibration.step_s(self._series.next(work)), now_s)

    def run_s(self, work: StepWork, now_s: float, most: int, horizon_s: float) -> tuple[list[float], list[float]]:
        """(durations, ends) of steps of decodes, a token further each: `most`, or those that begin before the horizon.
        One at least. Rounded as `step_s` rounds them one by one."""
        durations_s: list[float] = []
        ends_s: list[float] = []
        line, least_s = self._calibration.line(work), self._calibration.least_s
        context, num, between_s = work.decode_context, work.decodes, self._between_s
        while len(ends_s) < most and (not ends_s or now_s < horizon_s):
            if line is None:
                calibrated_s = self._calibration.step_s(self._series.next(StepWork(num, context, 0, 0.0, 0)))
            else:
                calibrated_s = max(line.base_s + line.decode_s * num + line.context_s * context, least_s)
            step_s = self._observed_s(calibrated_s, now_s)
            end_s = now_s + step_s
            durations_s.append(step_s)
            ends_s.append(end_s)
            now_s = end_s + between_s
            context += num
        return durations_s, ends_s

    def _observed_s(self, calibrated_s: float, now_s: float) -> float:
        calibrated_s /= self._speed
        if self._is_exact:
            return calibrated_s
        faults = self._faults
        if faults.noise:
            calibrated_s *= self._random.lognormvariate(0.0, faults.noise)
        for shift in faults.shifts:
            if shift.from_s <= now_s < shift.until_s:
                calibrated_s *= shift.factor
        return calibrated_s
