"""How long simulated steps really take: what the calibration says, with a run's noise and shifts. Seeded."""

import random

from speciate.costs.step_calibration import StepCalibration, StepWork
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

    def step_s(self, work: StepWork, now_s: float) -> float:
        """One step that begins now."""
        return self._observed_s(self._calibration.step_s(work), now_s)

    def run_s(self, work: StepWork, now_s: float, most: int, horizon_s: float) -> tuple[list[float], list[float]]:
        """(durations, ends) of steps of decodes, a token further each: `most`, or those that begin before the horizon.
        One at least."""
        durations_s: list[float] = []
        ends_s: list[float] = []
        calibrated = self._calibrated(work, now_s, most, horizon_s)
        is_exact, between_s, speed = self._is_exact, self._between_s, self._speed
        for calibrated_s in calibrated:
            step_s = calibrated_s / speed if is_exact else self._observed_s(calibrated_s, now_s)
            end_s = now_s + step_s
            durations_s.append(step_s)
            ends_s.append(end_s)
            now_s = end_s + between_s
            if now_s >= horizon_s:
                break
        return durations_s, ends_s

    def _calibrated(self, work: StepWork, now_s: float, most: int, horizon_s: float) -> list[float]:
        """About as many as begin before the horizon; a run that ends early goes on in the next one."""
        first_s = self._calibration.step_s(work) / self._speed + self._between_s
        if (horizon_s - now_s) / first_s < most:
            most = int((horizon_s - now_s) / first_s) + 1
        return self._calibration.decode_steps_s(work, most)

    def _observed_s(self, calibrated_s: float, now_s: float) -> float:
        faults = self._faults
        calibrated_s /= self._speed
        if faults.noise:
            calibrated_s *= self._random.lognormvariate(0.0, faults.noise)
        for shift in faults.shifts:
            if shift.from_s <= now_s < shift.until_s:
                calibrated_s *= shift.factor
        return calibrated_s
