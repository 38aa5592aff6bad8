"""Schedules, traces and tables; what they do not know stays unknown."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.core.errors import ConfigError
from speciate.core.ports import AvailabilitySignal, CarbonSignal, PriceSignal
from speciate.scaling.market import MarketKind, MarketView
from speciate.scaling.signals import (
    CarbonTable,
    HourlyRow,
    HourlySchedule,
    MachineTable,
    PriceTable,
    StepTrace,
    parse_region_carbon,
    parse_steps,
    seen,
)

NIGHT = HourlySchedule([HourlyRow(7.0, 3.0), HourlyRow(22.5, 1.0)])
CARBON = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "gcp_region_carbon_2024.csv"


@pytest.mark.parametrize(
    ("hour", "price"), [(0, 1.0), (6.99, 1.0), (7, 3.0), (22.4, 3.0), (22.5, 1.0), (31, 3.0), (-1, 1.0)]
)
def test_a_schedule_holds_from_each_hour_and_over_midnight(hour: float, price: float) -> None:
    assert NIGHT.at(hour * 3600) == price


def test_a_schedule_in_local_time() -> None:
    assert HourlySchedule([HourlyRow(7.0, 3.0), HourlyRow(22.5, 1.0)], offset_s=3600.0).at(6 * 3600) == 3.0


@pytest.mark.parametrize("hours", [[], [24.0], [3.0, 3.0], [5.0, 1.0], [-1.0]])
def test_bad_schedules(hours: list[float]) -> None:
    with pytest.raises(ConfigError):
        HourlySchedule([HourlyRow(hour, 1.0) for hour in hours])


def test_a_trace_holds_its_last_value_and_knows_where_it_ends() -> None:
    trace = StepTrace([(10, 1.0), (20, 2.0), (20, 3.0)], until_s=30)
    assert [trace.at(at_s) for at_s in (9.9, 10, 19.9, 20, 30, 30.1)] == [None, 1.0, 1.0, 3.0, 3.0, None]
    assert StepTrace([(0, 5.0)]).at(1e9) == 5.0


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 9)), min_size=1), st.integers(0, 60))
def test_a_trace_is_the_last_step_not_after(steps: list[tuple[int, int]], at_s: int) -> None:
    ordered = sorted(steps, key=lambda step: step[0])
    before = [value for time_s, value in ordered if time_s <= at_s]
    assert StepTrace([(float(a), float(b)) for a, b in ordered]).at(at_s) == (before[-1] if before else None)


def test_texts_with_and_without_headers() -> None:
    assert parse_steps("0,4\n1000,7\n", seconds_per_unit=0.001).at(1.0) == 7.0
    assert parse_steps("t_s,usd\n0,4\n\n5,6\n").at(5) == 6.0
    for text in ("", "0\n", "0,1\nx,2\n", "5,1\n4,1\n"):
        with pytest.raises(ConfigError):
            parse_steps(text)


def test_tables_are_the_ports() -> None:
    prices: PriceSignal = PriceTable({"spot": NIGHT})
    machines: AvailabilitySignal = MachineTable({"spot": StepTrace([(0, 4.0), (100, 1.0)])})
    carbon: CarbonSignal = CarbonTable({"north": 30.0, "south": NIGHT})
    assert (prices.usd_per_h("spot", 0), prices.usd_per_h("other", 0)) == (1.0, None)
    assert (machines.num_machines("spot", 50), machines.num_machines("spot", -1)) == (4, None)
    assert (carbon.gco2_per_kwh("north", 0), carbon.gco2_per_kwh("south", 0), carbon.gco2_per_kwh("x", 0)) == (
        30.0,
        1.0,
        None,
    )


def test_a_view_shows_what_the_signals_know() -> None:
    view = MarketView("spot", MarketKind.SPOT, False, 9.0, gco2_per_kwh=1.0)
    prices, machines = PriceTable({"spot": NIGHT}), MachineTable({"spot": StepTrace([(0, 4.0)])})
    shown = seen(view, 0.0, prices, machines, CarbonTable({"r": 30.0}), "r", num_machines=4)
    assert (shown.is_available, shown.price_usd_per_h, shown.gco2_per_kwh) == (True, 1.0, 30.0)
    assert not seen(view, 0.0, prices, machines, num_machines=5).is_available
    assert seen(view, 0.0, PriceTable({})) == view


@pytest.mark.skipif(not CARBON.is_file(), reason="../shared/data is not there")
def test_the_published_table_of_regions() -> None:
    table = parse_region_carbon(CARBON.read_text(encoding="utf-8"))
    assert table.gco2_per_kwh("africa-south1", 0) == 656.85
