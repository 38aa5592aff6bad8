"""The wall, alone and against random tables; and the choices that a good table makes."""

from random import Random

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from speciate.scaling.course import Course
from speciate.scaling.decide import bears, decide
from speciate.scaling.market import (
    Decision,
    Hold,
    JobState,
    MarketKind,
    MarketOptions,
    MarketView,
    Run,
    hourly_usd,
    on_demand,
    slack_s,
)
from speciate.scaling.outlook import outlook
from speciate.scaling.plan import Plan, PlanOptions, plan
from speciate.scaling.runs import MarketHistory, observed

HOUR_S = 3600.0
TICK_S = 300.0
WALL = MarketView("wall", MarketKind.ON_DEMAND, True, 3.0)
SPOT = MarketView("spot", MarketKind.SPOT, True, 1.0, lost_s=60.0)
DOWN = replace(SPOT, is_available=False)
OPTIONS = MarketOptions(tick_s=TICK_S)
COARSE = PlanOptions(num_layers=24)


def job(work_h: float, window_h: float, held: str | None = None, starting_s: float = 0.0) -> JobState:
    return JobState(work_h * HOUR_S, window_h * HOUR_S, 0.0, held, starting_s)


def table(state: JobState, views: tuple[MarketView, ...], grain: PlanOptions = COARSE) -> Plan:
    return plan(outlook(views, MarketHistory(), OPTIONS), state, options=grain)


def choose(state: JobState, *views: MarketView, history: MarketHistory | None = None) -> Decision:
    return decide(state, views, history or MarketHistory(), table(state, views, PlanOptions(96)), OPTIONS)


def test_slack_is_what_is_left_after_work_start_and_safety() -> None:
    assert slack_s(job(2, 5), WALL, replace(OPTIONS, safety_s=60.0)) == 3 * HOUR_S - 180 - 60
    assert slack_s(job(2, 5, "wall", starting_s=50.0), WALL, OPTIONS) == 3 * HOUR_S - 50
    assert slack_s(replace(job(4, 5), num_machines=2), WALL, OPTIONS) == 3 * HOUR_S - 180
    assert slack_s(job(2, 5), replace(WALL, speed=2.0), OPTIONS) == 4 * HOUR_S - 180


def test_price_and_carbon_count_by_their_weights() -> None:
    view = replace(SPOT, gco2_per_kwh=500.0, power_kw=0.4)
    options = MarketOptions(price_weight=2.0, carbon_usd_per_kg=5.0)
    assert hourly_usd(view, options) == pytest.approx(2.0 * 1.0 + 0.2 * 5.0)


def test_the_cheapest_on_demand_by_work_is_the_wall() -> None:
    fast = MarketView("fast", MarketKind.ON_DEMAND, True, 5.0, speed=2.0)
    assert on_demand((WALL, SPOT, fast)).name == "fast"
    with pytest.raises(ValueError, match="no on-demand market"):
        on_demand((SPOT,))


def test_with_time_spot_is_taken_and_without_any_it_waits() -> None:
    taken = choose(job(2, 8), WALL, SPOT)
    assert isinstance(taken, Run)
    assert (taken.market, taken.reason.rule) == ("spot", "cheapest")
    assert taken.reason.choices[0].market == "spot"
    assert isinstance(choose(job(2, 8), WALL, DOWN), Hold)


def test_without_slack_it_is_on_demand_whatever_spot_costs() -> None:
    forced = choose(job(2, 2.1), WALL, replace(SPOT, price_usd_per_h=0.01))
    assert isinstance(forced, Run)
    assert (forced.market, forced.reason.rule) == ("wall", "wall")


def test_it_stays_on_demand_where_a_switch_would_not_pay() -> None:
    stays = choose(job(0.1, 6, "wall"), WALL, replace(SPOT, price_usd_per_h=2.9))
    assert isinstance(stays, Run)
    assert (stays.market, stays.replaces) == ("wall", None)


def test_it_does_not_move_for_a_trifle() -> None:
    held, other = replace(SPOT, start_s=0.0, price_usd_per_h=1.0002), replace(SPOT, name="other", start_s=0.0)
    stays = choose(job(2, 8, "spot"), WALL, held, other)
    assert isinstance(stays, Run)
    assert (stays.market, stays.reason.rule) == ("spot", "stay")
    assert stays.reason.choices[0].market == "other"
    moves = choose(job(2, 8, "spot"), WALL, replace(held, price_usd_per_h=1.01), other)
    assert isinstance(moves, Run)
    assert (moves.market, moves.replaces) == ("other", "spot")


def test_it_leaves_on_demand_for_spot_while_slack_lasts() -> None:
    leaves = choose(job(4, 6, "wall"), WALL, SPOT)
    assert isinstance(leaves, Run)
    assert (leaves.market, leaves.replaces) == ("spot", "wall")


def test_the_cheaper_of_two_zones_and_the_older_of_two_equal_ones() -> None:
    other = replace(SPOT, name="other", price_usd_per_h=1.2)
    cheap = choose(job(2, 8), WALL, SPOT, other)
    assert isinstance(cheap, Run)
    assert cheap.market == "spot"
    history = observed(MarketHistory(), {"spot": None, "other": 1.0}, -10 * HOUR_S)
    history = observed(history, {"spot": 1.0, "other": 1.0}, 0.0)
    older = choose(job(2, 8), WALL, SPOT, replace(other, price_usd_per_h=1.0), history=history)
    assert isinstance(older, Run)
    assert older.market == "other"


def test_it_waits_for_the_night_when_that_is_cheap() -> None:
    def price(market: str, at_s: float) -> float | None:
        return (3.0 if at_s < 4 * HOUR_S else 0.5) if market == "wall" else None

    views = (WALL,)
    ahead = outlook(views, MarketHistory(), OPTIONS, price)
    early = decide(job(2, 8), views, MarketHistory(), plan(ahead, job(2, 8)), OPTIONS)
    assert isinstance(early, Hold)
    night = replace(job(2, 8), now_s=4.5 * HOUR_S)
    started = decide(night, (replace(WALL, price_usd_per_h=0.5),), MarketHistory(), plan(ahead, job(2, 8)), OPTIONS)
    assert isinstance(started, Run)


def test_cheap_hours_are_not_waited_through() -> None:
    """Slack would run out at hour 2, in the cheap hours, and the work would reach into the dear ones."""

    def price(market: str, at_s: float) -> float | None:
        return (0.5 if at_s < 4 * HOUR_S else 3.0) if market == "wall" else None

    views = (replace(WALL, price_usd_per_h=0.5),)
    ahead = outlook(views, MarketHistory(), OPTIONS, price)
    found = decide(job(6, 8.1), views, MarketHistory(), plan(ahead, job(6, 8.1)), OPTIONS)
    assert isinstance(found, Run)
    run, hold = found.reason.choices
    assert run.cost_usd == pytest.approx(4 * 0.5 + 2 * 3.0, rel=0.05)
    assert hold.market is None


def test_of_several_on_demand_markets_the_cheapest_of_each_hour_counts() -> None:
    """By day one is cheaper, by night the other: work waits for the night, and changes over to it."""

    def price(market: str, at_s: float) -> float | None:
        return {"wall": 3.0, "night": 4.0 if at_s < 4 * HOUR_S else 0.5}[market]

    night = replace(WALL, name="night", price_usd_per_h=4.0)
    views = (WALL, night)
    ahead = outlook(views, MarketHistory(), OPTIONS, price)
    assert [ahead.hourly_usd("wall", hour * HOUR_S) for hour in (0, 5)] == [3.0, 0.5]
    early = decide(job(2, 8), views, MarketHistory(), plan(ahead, job(2, 8)), OPTIONS)
    assert isinstance(early, Hold)
    later = replace(job(2, 8), now_s=4.5 * HOUR_S, held="wall")
    views = (WALL, replace(night, price_usd_per_h=0.5))
    moved = decide(later, views, MarketHistory(), plan(ahead, job(2, 8)), OPTIONS)
    assert isinstance(moved, Run)
    assert (moved.market, moved.replaces) == ("night", "wall")


def test_dirty_power_is_avoided_when_carbon_counts() -> None:
    clean = replace(SPOT, name="clean", price_usd_per_h=1.1, gco2_per_kwh=50.0, power_kw=1.0)
    dirty = replace(SPOT, name="dirty", gco2_per_kwh=700.0, power_kw=1.0)
    options = replace(OPTIONS, carbon_usd_per_kg=1.0)
    views = (WALL, clean, dirty)
    ahead = outlook(views, MarketHistory(), options)
    found = decide(job(2, 8), views, MarketHistory(), plan(ahead, job(2, 8)), options)
    assert isinstance(found, Run)
    assert found.market == "clean"
    assert choose(job(2, 8), *views) != found


def test_a_finished_job_holds_nothing() -> None:
    done = choose(job(0, 5, "spot"), WALL, SPOT)
    assert isinstance(done, Hold)
    assert done.reason.rule == "done"


@pytest.mark.parametrize("spare_s", [TICK_S + 59, TICK_S + 60])
def test_spot_is_open_only_while_a_lost_tick_and_its_lines_fit(spare_s: float) -> None:
    state = JobState(HOUR_S, HOUR_S + WALL.start_s + spare_s, 0.0)
    assert bears(state, SPOT, WALL, OPTIONS) == (spare_s >= TICK_S + 60)
    assert bears(state, None, WALL, OPTIONS)
    assert bears(state, WALL, WALL, OPTIONS)
    assert not bears(state, DOWN, WALL, OPTIONS)


def test_idle_steps_are_worth_waiting_for() -> None:
    busy = decide(job(4, 5), (WALL,), MarketHistory(), table(job(4, 5), (WALL,)), OPTIONS)
    idle = replace(job(4, 5), idle_rate=0.9)
    ahead = outlook((WALL,), MarketHistory(), OPTIONS)
    waits = decide(idle, (WALL,), MarketHistory(), plan(ahead, idle), OPTIONS)
    assert isinstance(waits, Hold)
    assert waits.reason.choices[0].cost_usd < busy.reason.choices[0].cost_usd


def test_a_decision_survives_json() -> None:
    found = choose(job(2, 8), WALL, SPOT)
    assert msgspec.json.decode(msgspec.json.encode(found), type=Run | Hold) == found


def test_more_slack_never_costs_more_and_more_work_never_less() -> None:
    found = table(job(4, 12), (WALL, SPOT), PlanOptions(96))
    for values in (found.wait_KZBS, found.wait_down_KBS, found.run_KZBS, found.wall_KZBS, found.wall_down_KBS):
        assert np.isfinite(values).all()
        assert (np.diff(values, axis=-1) <= 1e-9).all(), "the same time left, less work"


def random_table(random: Random, like: Plan) -> Plan:
    """The same shapes, filled with nonsense."""

    def nonsense(values: np.ndarray) -> np.ndarray:
        return np.random.default_rng(random.randrange(2**32)).random(values.shape)

    return msgspec.structs.replace(
        like,
        run_KZBS=nonsense(like.run_KZBS),
        wait_KZBS=nonsense(like.wait_KZBS),
        wait_down_KBS=nonsense(like.wait_down_KBS),
        wall_KZBS=nonsense(like.wall_KZBS),
        wall_down_KBS=nonsense(like.wall_down_KBS),
    )


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    work_ticks=st.integers(1, 60),
    slack_ticks=st.integers(1, 60),
    start_s=st.sampled_from([0.0, 180.0, 700.0]),
    speed=st.sampled_from([0.5, 1.0, 1.5]),
    num_machines=st.sampled_from([1, 4]),
)
def test_deadlines_hold_whatever_the_table_and_the_zones_do(
    seed: int, work_ticks: int, slack_ticks: int, start_s: float, speed: float, num_machines: int
) -> None:
    """The work fits on on-demand at the start; zones come and go at random; the table is nonsense, so that every choice
    that the wall leaves open is taken sometime. Paid is no more than work, starts and losses at the list price."""
    random = Random(seed)
    wall = replace(WALL, start_s=start_s)
    views = [wall, replace(SPOT, speed=speed, start_s=2 * start_s), replace(SPOT, name="b", lost_s=200.0)]
    work_s = work_ticks * TICK_S * num_machines
    first = JobState(work_s, (work_ticks + slack_ticks) * TICK_S + start_s, 0.0, num_machines=num_machines)
    course, history = Course(first), MarketHistory()
    nonsense = random_table(random, table(first, tuple(views)))
    now_s = 0.0
    while course.ended_s is None:
        seen = (wall, *(replace(view, is_available=random.random() < 0.6) for view in views[1:]))
        history = observed(history, {v.name: v.price_usd_per_h if v.is_available else None for v in seen[1:]}, now_s)
        course.preempt(seen)
        decision = decide(course.state(now_s), seen, history, nonsense, OPTIONS)
        course.advance(decision, seen, now_s, TICK_S)
        now_s += TICK_S
        assert now_s < first.deadline_s + TICK_S
    assert course.ended_s <= first.deadline_s + 1e-6
    list_s = work_s / speed if speed < 1 else work_s
    extra_s = course.num_starts * 2 * start_s + course.num_preempted * 200.0
    assert course.cost_usd <= WALL.price_usd_per_h * (list_s + extra_s * num_machines) / HOUR_S + 1e-6
