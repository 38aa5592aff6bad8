"""A run's durations and ends are those of its steps one by one, however the calibration is made."""

import msgspec
import pytest

from speciate.core.engine import StepSizes
from speciate.costs.step_calibration import A100_LLAMA3_8B, StepCalibration, StepTable, StepWork
from speciate.sim.faults import Faults, Shift
from speciate.sim.step_times import StepTimes

TABLE = StepTable((1, 64, 512), (0.01, 0.02, 0.09), decode_s=1e-4, context_s=1e-7, pair_s=1e-9)
CALIBRATIONS = [
    A100_LLAMA3_8B,
    msgspec.structs.replace(A100_LLAMA3_8B, between_s=0.004),
    msgspec.structs.replace(A100_LLAMA3_8B, table=TABLE),
    msgspec.structs.replace(
        A100_LLAMA3_8B, table=msgspec.structs.replace(TABLE, resized_s=0.003, sizes=StepSizes(widest=8))
    ),
]


@pytest.mark.parametrize("calibration", CALIBRATIONS)
@pytest.mark.parametrize("faults", [Faults(), Faults(noise=0.2, shifts=(Shift(3.2, 2.0),))])
@pytest.mark.parametrize("speed", [1.0, 0.3])
def test_a_run_is_its_steps(calibration: StepCalibration, faults: Faults, speed: float) -> None:
    at_once, one_by_one = (StepTimes(calibration, faults, speed, seed=5) for _ in range(2))
    durations_s, ends_s = at_once.run_s(StepWork(7, 9000, 0, 0.0, 0), 3.0, 50, 3.5)
    now_s, expected = 3.0, []
    for index in range(len(ends_s)):
        assert now_s < 3.5
        step_s = one_by_one.step_s(StepWork(7, 9000 + 7 * index, 0, 0.0, 0), now_s)
        expected.append((step_s, now_s + step_s))
        now_s = now_s + step_s + calibration.between_s
    assert list(zip(durations_s, ends_s, strict=True)) == expected
    assert now_s >= 3.5 or len(ends_s) == 50


def test_a_run_has_at_least_one_step() -> None:
    durations_s, ends_s = StepTimes(A100_LLAMA3_8B, Faults(), 1.0, seed=5).run_s(
        StepWork(1, 10, 0, 0.0, 0), 3.0, 9, 3.0
    )
    assert len(durations_s) == len(ends_s) == 1
