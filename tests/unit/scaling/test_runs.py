"""What a watcher learns of zones: counted by hand."""

from math import exp

import pytest

from speciate.scaling.runs import (
    DOWN_PRIOR_PER_S,
    UP_PRIOR_PER_S,
    MarketHistory,
    RunCounts,
    age_class,
    length_s,
    observed,
)


def watch(*looks: tuple[float, dict[str, float | None]]) -> MarketHistory:
    history = MarketHistory()
    for now_s, prices in looks:
        history = observed(history, prices, now_s)
    return history


@pytest.mark.parametrize(("age_s", "expected"), [(0, 0), (1799, 0), (1800, 1), (7199, 1), (7200, 2), (28_800, 3)])
def test_age_classes(age_s: float, expected: int) -> None:
    assert age_class(age_s) == expected


def test_without_sight_the_prior_holds() -> None:
    assert RunCounts().hazards_per_s(UP_PRIOR_PER_S) == pytest.approx(UP_PRIOR_PER_S)


def test_exposure_lowers_a_hazard_and_ends_raise_it() -> None:
    calm = RunCounts(exposure_s=(36_000.0, 0, 0, 0)).hazards_per_s(UP_PRIOR_PER_S)
    stormy = RunCounts(ends=(9.0, 0, 0, 0), exposure_s=(36_000.0, 0, 0, 0)).hazards_per_s(UP_PRIOR_PER_S)
    assert calm[0] == pytest.approx(1 / 39_600)
    assert stormy[0] == pytest.approx(10 / 39_600)
    assert calm[1:] == stormy[1:] == pytest.approx(UP_PRIOR_PER_S[1:])


def test_time_and_ends_go_to_the_class_that_the_run_was_in() -> None:
    history = watch((0, {"a": 1.0}), (1000, {"a": 1.0}), (2000, {"a": 1.0}), (3000, {"a": None}), (3500, {"a": None}))
    weather = history.zones["a"].weather
    assert not weather.is_up
    assert weather.since_s == 3000
    assert weather.up.exposure_s == pytest.approx((2000, 1000, 0, 0), rel=0.05)
    assert weather.up.ends == pytest.approx((0, 1, 0, 0), rel=0.05)
    assert weather.down.exposure_s == pytest.approx((500, 0, 0, 0), rel=0.05)
    assert weather.down.ends == (0, 0, 0, 0)


def test_old_sights_are_forgotten_by_half_in_a_day() -> None:
    looks: list[tuple[float, dict[str, float | None]]] = [(0, {"a": 1.0}), (600, {"a": 1.0}), (87_000, {"a": None})]
    assert watch(*looks).zones["a"].weather.up.exposure_s[0] == pytest.approx(600 * 0.9995**1440 + 86_400, rel=1e-6)


def test_any_zone_is_up_while_one_is() -> None:
    history = watch((0, {"a": 1.0, "b": None}), (60, {"a": None, "b": 1.0}), (120, {"a": None, "b": None}))
    assert history.any_zone is not None
    assert history.any_zone.since_s == 120
    assert history.zones["a"].deaths_with_others == 1
    assert history.zones["b"].deaths_with_others == 0
    assert history.zones["a"].others_share > history.zones["b"].others_share


def test_the_cheapest_zone_that_is_up_is_the_best() -> None:
    history = watch((0, {"a": 2.0, "b": 1.0}), (100, {"a": 2.0, "b": 1.0}), (300, {"a": 2.0, "b": None}))
    assert (history.zones["a"].best_s, history.zones["b"].best_s) == (200, 100)


def test_priors_fall_with_age() -> None:
    assert list(UP_PRIOR_PER_S) == sorted(UP_PRIOR_PER_S, reverse=True)
    assert list(DOWN_PRIOR_PER_S) == sorted(DOWN_PRIOR_PER_S, reverse=True)


def test_run_lengths_invert_survival() -> None:
    assert length_s((0.001,) * 4, exp(-2.5), 0.0) == pytest.approx(2500)
    assert length_s((0.001,) * 4, exp(-2.5), 700.0) == pytest.approx(3200)
    falling = (1 / 1800, 1 / 5400, 1 / 21_600, 1 / 36_000)
    assert length_s(falling, exp(-0.5), 0.0) == pytest.approx(900)
    assert length_s(falling, exp(-1.5), 0.0) == pytest.approx(1800 + 2700)
    assert length_s(falling, exp(-4.0), 0.0) == pytest.approx(28_800 + 36_000)
    assert length_s(falling, exp(-0.5), 7200.0) == pytest.approx(7200 + 10_800)
    assert length_s(falling, exp(-0.5), 90_000.0) == pytest.approx(90_000 + 18_000)
