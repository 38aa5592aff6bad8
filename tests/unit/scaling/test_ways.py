"""The ways to do a job, side by side."""

from typing import Any

import pytest

from speciate.scaling.runs import MarketHistory
from speciate.scaling.spec import parse_markets, scheduled
from speciate.scaling.ways import AT_ONCE, CHEAP, ON_DEMAND, RENTED, LocalWork, Way, varying_here, ways

HOUR_S = 3600.0
NIGHT = [{"hour": 6, "value": 0.3}, {"hour": 22, "value": 0.1}]
OFFERS = [
    {"name": "big", "kind": "on_demand", "usd_per_h": 2.0, "speed": 4.0, "power_kw": 1.0, "gco2_per_kwh": 500.0},
    {"name": "zone", "kind": "spot", "usd_per_h": 0.6, "speed": 4.0},
]
NOON = LocalWork(work_s=4 * HOUR_S, ahead_s=0.0, deadline_s=36 * HOUR_S, now_s=12 * HOUR_S)


def found(tree: Any, work: LocalWork = NOON) -> dict[str, Way]:
    spec = parse_markets(tree)
    return {way.name: way for way in ways(spec, scheduled(spec), work, MarketHistory(), num_scenarios=8)}


def test_a_machine_without_prices_has_one_way() -> None:
    (only,) = found({}).values()
    assert (only.name, only.cost_usd.mean, only.ends_s.p50) == (AT_ONCE, 0.0, 16 * HOUR_S)
    assert only.is_done_here
    assert only.is_in_time


def test_the_night_is_cheaper_and_is_what_this_server_does() -> None:
    both = found({"here": {"hourly": NIGHT}})
    assert both[AT_ONCE].cost_usd.mean == pytest.approx(4 * 0.3)
    assert both[CHEAP].cost_usd.mean == pytest.approx(4 * 0.1, rel=0.02)
    assert both[CHEAP].ends_s.p50 == pytest.approx(26 * HOUR_S, abs=700)
    assert [stretch.market for stretch in both[CHEAP].stretches] == [None, "here"]
    assert (both[AT_ONCE].is_done_here, both[CHEAP].is_done_here) == (False, True)


def test_a_server_that_does_not_wait_says_so() -> None:
    both = found({"here": {"hourly": NIGHT, "waits": False}})
    assert (both[AT_ONCE].is_done_here, both[CHEAP].is_done_here) == (True, False)


def test_work_ahead_comes_first_and_pays_its_own_part() -> None:
    work = LocalWork(4 * HOUR_S, 2 * HOUR_S, 36 * HOUR_S, 12 * HOUR_S)
    both = found({"here": {"hourly": NIGHT}}, work)
    assert both[AT_ONCE].ends_s.p50 == 18 * HOUR_S
    assert both[AT_ONCE].cost_usd.mean == pytest.approx(4 * 0.3)
    assert both[CHEAP].cost_usd.mean == pytest.approx(4 * 0.1, rel=0.02)


def test_what_idle_steps_do_in_time_needs_no_rent() -> None:
    four = found({"here": {"usd_per_h": 0.2}, "offers": OFFERS})
    assert list(four) == [AT_ONCE, RENTED, ON_DEMAND]
    assert all(stretch.market is None for stretch in four[RENTED].stretches)
    assert four[RENTED].cost_usd.mean == pytest.approx(four[AT_ONCE].cost_usd.mean, rel=0.02)
    assert four[ON_DEMAND].cost_usd.mean == pytest.approx(2.0 * (1.0 + 0.05))
    assert four[ON_DEMAND].co2_kg == pytest.approx(0.5 * 1.05)


def test_what_is_too_much_for_this_machine_is_rented() -> None:
    work = LocalWork(60 * HOUR_S, 0.0, 36 * HOUR_S, 12 * HOUR_S)
    four = found({"offers": OFFERS}, work)
    assert not four[AT_ONCE].is_in_time
    assert four[RENTED].is_in_time
    assert {stretch.market for stretch in four[RENTED].stretches} & {"zone", "big"}
    assert four[RENTED].cost_usd.p90 <= four[ON_DEMAND].cost_usd.mean


def test_this_machine_stands_aside_where_rented_ones_are_cheaper() -> None:
    work = LocalWork(60 * HOUR_S, 0.0, 36 * HOUR_S, 12 * HOUR_S)
    dear = found({"here": {"usd_per_h": 0.6}, "offers": OFFERS}, work)
    assert dear[RENTED].cost_usd.p90 <= dear[ON_DEMAND].cost_usd.mean


def test_as_few_machines_as_keep_the_deadline() -> None:
    work = LocalWork(60 * HOUR_S, 0.0, 18 * HOUR_S, 12 * HOUR_S)
    tree = {"offers": OFFERS, "max_machines": 8}
    assert found(tree, work)[ON_DEMAND].num_machines == 3
    assert found({"offers": OFFERS}, work)[ON_DEMAND].num_machines == 1
    assert not found({"offers": OFFERS}, work)[ON_DEMAND].is_in_time


def test_what_may_differ_by_time() -> None:
    carbon = {"hourly": [{"hour": 0, "value": 1.0}]}
    trees = ({}, {"here": {"hourly": NIGHT}}, {"here": {"carbon": carbon}}, {"here": {"carbon": carbon, "power_kw": 1}})
    assert [varying_here(parse_markets(tree)) for tree in trees] == [False, True, False, True]
