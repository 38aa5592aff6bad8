"""Dry runs: what a job will cost, when it ends, and why."""

import pytest
from msgspec.structs import replace

from speciate.scaling.estimate import estimate, explained
from speciate.scaling.market import JobState, MarketKind, MarketOptions, MarketView
from speciate.scaling.runs import MarketHistory, observed
from speciate.scaling.signals import HourlyRow, HourlySchedule, MachineTable, PriceTable, StepTrace

HOUR_S = 3600.0
WALL = MarketView("on-demand", MarketKind.ON_DEMAND, True, 2.29)
SPOT = MarketView("zone-a", MarketKind.SPOT, True, 0.80)
JOB = JobState(work_s=6 * HOUR_S, deadline_s=12 * HOUR_S, now_s=0.0)
OPTIONS = MarketOptions()


def test_the_documented_example() -> None:
    found = estimate(JOB, (WALL, SPOT), MarketHistory(), OPTIONS)
    assert found.is_feasible
    assert found.met_share == 1.0
    assert found.slack_s == 6 * HOUR_S - 180
    assert found.on_demand_usd == pytest.approx(2.29 * 6.05)
    assert 0.8 * 6 <= found.cost_usd.p10 <= found.cost_usd.p50 <= found.cost_usd.p90 <= found.on_demand_usd * 1.1
    assert found.cost_usd.mean < found.on_demand_usd
    assert 6 * HOUR_S <= found.ends_s.p10 <= found.ends_s.p90 <= 12 * HOUR_S
    lines = explained(found)
    assert lines[0].startswith("  0.0 h to")
    assert "runs on zone-a" in lines[0]
    assert found == estimate(JOB, (WALL, SPOT), MarketHistory(), OPTIONS)


def test_the_course_that_is_told_is_the_median_one() -> None:
    found = estimate(JOB, (WALL, SPOT), MarketHistory(), OPTIONS)
    assert sum(stretch.usd for stretch in found.stretches) == pytest.approx(found.cost_usd.p50)


def test_a_zone_that_has_been_up_for_long_is_expected_to_stay() -> None:
    old = observed(observed(MarketHistory(), {"zone-a": None}, -31 * HOUR_S), {"zone-a": 0.8}, -30 * HOUR_S)
    new = observed(observed(MarketHistory(), {"zone-a": None}, -1 * HOUR_S), {"zone-a": 0.8}, -300.0)
    views = (WALL, SPOT)
    stays, goes = (estimate(JOB, views, history, OPTIONS).ends_s.mean for history in (old, new))
    assert stays < 0.8 * goes


def test_on_demand_alone_is_exact() -> None:
    found = estimate(JOB, (WALL,), MarketHistory(), OPTIONS)
    assert found.cost_usd.p10 == pytest.approx(found.cost_usd.p90)
    assert found.cost_usd.mean == pytest.approx(found.on_demand_usd)
    assert found.ends_s.p50 == pytest.approx(6 * HOUR_S + 180)
    assert len(found.stretches) == 1


def test_a_known_future_is_used() -> None:
    """Machines are there from hour 2 to 9, and everybody knows."""
    machines = MachineTable({"zone-a": StepTrace([(0, 0.0), (2 * HOUR_S, 8.0), (9 * HOUR_S, 0.0)])})
    down = replace(SPOT, is_available=False)
    found = estimate(JOB, (WALL, down), MarketHistory(), OPTIONS, machines=machines)
    assert [stretch.market for stretch in found.stretches] == [None, "zone-a"]
    assert found.cost_usd.p90 == pytest.approx(0.8 * 6.05, rel=1e-3)
    assert found.ends_s.p50 == pytest.approx(8.05 * HOUR_S, abs=300)


def test_it_waits_for_cheap_hours_and_says_so() -> None:
    prices = PriceTable({"on-demand": HourlySchedule([HourlyRow(0.0, 3.0), HourlyRow(5.0, 1.0)])})
    found = estimate(JOB, (replace(WALL, price_usd_per_h=3.0),), MarketHistory(), OPTIONS, prices.usd_per_h)
    assert found.cost_usd.mean == pytest.approx(6.05, rel=0.02)
    assert found.on_demand_usd == pytest.approx(5 * 3 + 1.05, rel=1e-3)
    assert "waits" in explained(found)[0]
    assert "runs on on-demand" in explained(found)[1]


def test_a_window_that_is_too_short_is_named() -> None:
    found = estimate(replace(JOB, deadline_s=5 * HOUR_S), (WALL, SPOT), MarketHistory(), OPTIONS)
    assert not found.is_feasible
    assert found.slack_s < 0
    assert found.met_share == 0.0
    assert found.stretches[-1].rule == "wall"


def test_a_zone_that_dies_often_makes_it_dearer() -> None:
    calm, stormy = MarketHistory(), MarketHistory()
    for tick in range(400):
        at_s = -400 * 300.0 + tick * 300.0
        calm = observed(calm, {"zone-a": 0.8}, at_s)
        stormy = observed(stormy, {"zone-a": 0.8 if tick % 12 < 2 else None}, at_s)
    views = (WALL, SPOT)
    assert estimate(JOB, views, calm, OPTIONS).cost_usd.mean < estimate(JOB, views, stormy, OPTIONS).cost_usd.mean


def test_more_machines_end_sooner_at_about_the_same_price() -> None:
    one = estimate(JOB, (WALL,), MarketHistory(), OPTIONS)
    four = estimate(replace(JOB, num_machines=4), (WALL,), MarketHistory(), OPTIONS)
    assert four.ends_s.p50 == pytest.approx(1.5 * HOUR_S + 180)
    assert four.cost_usd.mean == pytest.approx(one.cost_usd.mean + 3 * 2.29 * 0.05)


def test_idle_steps_make_it_cheaper() -> None:
    idle = estimate(replace(JOB, idle_rate=0.3), (WALL,), MarketHistory(), OPTIONS)
    assert idle.cost_usd.mean < 0.7 * estimate(JOB, (WALL,), MarketHistory(), OPTIONS).cost_usd.mean
