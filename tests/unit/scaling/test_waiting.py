"""Which jobs wait for cheaper hours of one machine: alone, together, and never too long."""

from hypothesis import given, settings
from hypothesis import strategies as st

from speciate.core.window import OpenJob
from speciate.scaling.market import MarketKind, MarketOptions, MarketView
from speciate.scaling.outlook import Forecast
from speciate.scaling.signals import HourlyRow, HourlySchedule
from speciate.scaling.waiting import Stance, stances

HOUR_S = 3600.0
OPTIONS = MarketOptions()
COARSE = MarketOptions(tick_s=1800.0)
HERE = MarketView("here", MarketKind.ON_DEMAND, True, 0.3, start_s=0.0)
NIGHT = HourlySchedule([HourlyRow(6.0, 0.3), HourlyRow(22.0, 0.1)])


def by_night(market: str, at_s: float) -> float | None:
    return NIGHT.at(at_s)


def job(name: str, work_h: float, deadline_h: float) -> OpenJob:
    return OpenJob(name, work_h * HOUR_S, deadline_h * HOUR_S)


def said(*jobs: OpenJob, hour: float = 12.0, forecast: Forecast = by_night, sure: float = 1.0) -> dict[str, Stance]:
    found = stances(jobs, HERE, OPTIONS, hour * HOUR_S, forecast, sure_share=sure)
    return {stance.job_id: stance for stance in found}


def test_a_job_with_slack_waits_for_the_night_and_says_from_when() -> None:
    stance = said(job("a", 2, 34))["a"]
    assert (stance.may_run, stance.rule) == (False, "cheapest")
    assert stance.cheaper_s == 22 * HOUR_S
    assert stance.slack_s == 20 * HOUR_S


def test_in_the_night_it_runs() -> None:
    assert said(job("a", 2, 34), hour=23.0)["a"].may_run


def test_without_enough_slack_it_runs_by_day() -> None:
    assert said(job("a", 11.95, 24))["a"].rule == "wall"
    assert said(job("a", 11.5, 24))["a"].may_run
    assert said(job("a", 2, 20))["a"].rule == "flat"


def test_where_prices_are_flat_nobody_waits() -> None:
    stance = said(job("a", 1, 100), forecast=lambda market, at_s: None)["a"]
    assert (stance.may_run, stance.rule) == (True, "flat")


def test_what_must_run_first_makes_room_for_what_has_no_slack_left() -> None:
    """Each alone could wait until 22:00; together they could not."""
    assert not said(job("a", 8, 30))["a"].may_run
    assert not said(job("b", 8, 31))["b"].may_run
    both = said(job("a", 7.5, 30), job("b", 11.45, 31))
    assert (both["a"].rule, both["b"].rule) == ("before", "wall")
    assert both["a"].may_run


def test_a_later_job_still_waits() -> None:
    both = said(job("now", 11.95, 24), job("later", 1, 60))
    assert (both["now"].may_run, both["later"].may_run) == (True, False)


def test_only_the_sure_share_of_the_pace_is_counted_on() -> None:
    assert not said(job("a", 7, 34), sure=1.0)["a"].may_run
    assert said(job("a", 7, 34), sure=0.3185)["a"].rule == "wall"


def test_a_year_of_slack_does_not_hide_the_night() -> None:
    assert not said(job("a", 5, 366 * 24))["a"].may_run
    assert said(job("a", 5, 366 * 24), hour=23.0)["a"].may_run


def test_nothing_to_do() -> None:
    assert said() == {}


@settings(max_examples=10, deadline=None)
@given(
    jobs=st.lists(st.tuples(st.floats(0.2, 3.0), st.floats(1.0, 20.0)), min_size=1, max_size=3),
    start_h=st.sampled_from([3.0, 12.0, 21.0]),
)
def test_waiting_makes_nobody_late(jobs: list[tuple[float, float]], start_h: float) -> None:
    """Driven to the end, earliest deadline first among those that may run: who was feasible is in time."""
    now_s, tick_s = start_h * HOUR_S, COARSE.tick_s
    left = {str(i): work_h * HOUR_S for i, (work_h, _) in enumerate(jobs)}
    due_s, deadlines = 0.0, {}
    for i, (work_h, slack_h) in sorted(enumerate(jobs), key=lambda pair: pair[1][1]):
        due_s += work_h * HOUR_S
        deadlines[str(i)] = now_s + due_s + slack_h * HOUR_S
    while any(work_s > 0 for work_s in left.values()):
        open_jobs = [OpenJob(name, work_s, deadlines[name]) for name, work_s in left.items() if work_s > 0]
        free = [stance.job_id for stance in stances(open_jobs, HERE, COARSE, now_s, by_night) if stance.may_run]
        room_s = tick_s
        for name in sorted(free, key=deadlines.__getitem__):
            done_s = min(room_s, left[name])
            left[name], room_s = left[name] - done_s, room_s - done_s
            assert left[name] > 0 or now_s + tick_s - room_s <= deadlines[name] + 1e-6
        now_s += tick_s
        assert now_s < max(deadlines.values()) + HOUR_S
