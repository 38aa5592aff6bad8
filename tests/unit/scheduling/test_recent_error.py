"""The error that operators see: of all steps, also of those that a taught one stands for."""

import pytest

from speciate.scheduling.options import StepTimePrior
from speciate.scheduling.recent_error import WINDOW, RecentError
from speciate.scheduling.step_costs import StepFeatures
from speciate.scheduling.step_time import StepTimeModel


def test_it_is_the_mean_over_the_window_relative_to_what_was_observed() -> None:
    error = RecentError()
    assert error.mean == 0.0
    error.add(2.0, 1.0)
    error.add(1.0, 4.0)
    assert error.mean == pytest.approx((0.5 + 3.0) / 2)
    for _ in range(WINDOW):
        error.add(1.0, 1.1)
    assert error.mean == pytest.approx(0.1)


def test_an_observation_counts_for_the_steps_that_it_stands_for() -> None:
    error = RecentError()
    error.add(1.0, 1.5, 30)
    error.add(1.0, 1.0, 10)
    assert error.mean == pytest.approx(0.375)


def test_a_model_that_mostly_counts_repeats_tells_the_error_of_all_steps() -> None:
    model, steady, erratic = StepTimeModel(StepTimePrior()), StepFeatures(4, 400), StepFeatures(2, 200)
    errors = []
    for index in range(2000):
        step, seconds = (steady, 0.008) if index % 100 < 96 else (erratic, (0.003, 0.005)[index % 2])
        errors.append(abs(1 - model.costs.predict_s(step) / seconds))
        model.observe(step, seconds)
    assert model.error.mean == pytest.approx(sum(errors[-500:]) / 500, rel=0.3)
