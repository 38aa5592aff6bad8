"""The fit finds what a machine with sizes does: stairs, and more for a step of another size than the one before."""

import itertools

import pytest
from msgspec import structs

from speciate.core.engine import StepSizes
from speciate.costs.step_calibration import StepTable, StepWork
from speciate.costs.step_fit import MeasuredStep, errors_by_kind, fit_table
from speciate.costs.step_series import StepSeries

SIZES = StepSizes(exact=4, grains=((64, 16),), widest=64)
TRUTH = StepTable((1, 16, 64, 256), (0.003, 0.004, 0.009, 0.03), 1e-4, 2e-7, 1e-8, 1e-7, resized_s=0.001, sizes=SIZES)


def steps() -> list[MeasuredStep]:
    works = [
        StepWork(decodes, decodes * context, chunk, chunk * (start + chunk / 2), start)
        for decodes, context, chunk, start in itertools.product(
            (0, 1, 3, 9, 40), (20, 400), (0, 2, 17, 50, 130), (0, 90)
        )
        if decodes + chunk
    ]
    series = StepSeries(SIZES)
    each = [series.next(work) for work in works for _ in range(2)]
    return [MeasuredStep(work, TRUTH.step_s(work)) for work in each]


def test_a_step_is_as_long_as_the_size_it_is_padded_to() -> None:
    assert TRUTH.step_s(StepWork(0, 0, 33, 0.0, 0)) == TRUTH.step_s(StepWork(0, 0, 48, 0.0, 0))
    assert TRUTH.step_s(StepWork(0, 0, 49, 0.0, 0)) > TRUTH.step_s(StepWork(0, 0, 48, 0.0, 0))


def test_a_series_marks_steps_of_another_size_than_the_last() -> None:
    series = StepSeries(SIZES)
    tokens = [3, 3, 4, 33, 48, 47, 49, 33]
    marks = [series.next(StepWork(0, 0, num, 0.0, 0)).is_resized for num in tokens]
    assert marks == [True, False, True, True, False, False, True, True]


def test_the_fit_finds_the_stairs_and_what_another_size_costs() -> None:
    table = fit_table(steps(), SIZES)
    assert table.resized_s == pytest.approx(TRUTH.resized_s, rel=0.1)
    assert errors_by_kind(table.step_s, steps())[0].mean < 0.01
    smooth = fit_table(steps())
    assert errors_by_kind(smooth.step_s, steps())[0].mean > 0.02
    blind = fit_table([MeasuredStep(structs.replace(s.work, is_resized=False), s.seconds) for s in steps()], SIZES)
    unseen = [MeasuredStep(structs.replace(s.work, is_resized=False), s.seconds) for s in steps()]
    assert errors_by_kind(blind.step_s, unseen)[0].mean > 0.02
