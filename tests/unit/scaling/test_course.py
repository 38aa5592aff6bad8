"""One job's books, tick by tick, by hand."""

import pytest
from msgspec.structs import replace

from speciate.scaling.course import Course, Stretch
from speciate.scaling.market import Decision, Hold, JobState, MarketKind, MarketView, Reason, Run

WHY = Reason("cheapest", 0.0)
HOLD = Hold(WHY)
SPOT = MarketView("spot", MarketKind.SPOT, True, 3.6, start_s=40.0, lost_s=20.0)
JOB = JobState(work_s=1000.0, deadline_s=5000.0, now_s=0.0)
RUN = Run("spot", WHY)


def drive(job: JobState, *decisions: Decision, view: MarketView = SPOT, tick_s: float = 100.0) -> Course:
    course = Course(job)
    for tick, decision in enumerate(decisions):
        course.preempt([view])
        course.advance(decision, [view], tick * tick_s, tick_s)
    return course


def test_idle_steps_go_on_while_waiting_starting_and_running() -> None:
    idle = replace(JOB, idle_rate=0.5)
    assert drive(idle, HOLD).state(100.0).work_s == 950
    assert drive(idle, HOLD, RUN).state(200.0).work_s == 950 - 20 - 90
    assert drive(idle, HOLD, RUN, RUN).state(300.0).work_s == 840 - 150
    assert drive(replace(idle, work_s=30.0), HOLD).ended_s == 60.0
    assert drive(replace(idle, work_s=10.0), RUN).ended_s == 20.0
    assert drive(replace(idle, work_s=35.0), RUN).ended_s == 50.0


def test_a_start_may_take_longer_than_a_tick() -> None:
    slow = replace(SPOT, start_s=250.0)
    course = drive(JOB, RUN, RUN, view=slow)
    assert (course.state(200.0).work_s, course.state(200.0).starting_s) == (1000.0, 50.0)
    assert drive(JOB, RUN, RUN, RUN, view=slow).state(300.0).work_s == 950.0


def test_machines_work_and_are_paid_side_by_side() -> None:
    course = drive(replace(JOB, num_machines=4), RUN)
    assert course.state(100.0).work_s == 1000 - 4 * 60
    assert course.cost_usd == pytest.approx(4 * 3.6 * 100 / 3600)


def test_faster_machines_do_more() -> None:
    assert drive(JOB, RUN, view=replace(SPOT, speed=2.0)).state(100.0).work_s == 1000 - 120


def test_what_was_held_before_is_not_started_again() -> None:
    course = Course(replace(JOB, held="spot", starting_s=10.0), SPOT)
    course.preempt([SPOT])
    course.advance(RUN, [SPOT], 0.0, 100.0)
    assert (course.num_starts, course.state(100.0).work_s) == (0, 910.0)


def test_stretches_are_joined_and_add_up() -> None:
    course = drive(JOB, HOLD, RUN, RUN, HOLD)
    assert course.stretches == [
        Stretch(None, 0.0, 100.0, 0.0, "cheapest"),
        Stretch("spot", 100.0, 300.0, pytest.approx(0.2), "cheapest"),
        Stretch(None, 300.0, 400.0, 0.0, "cheapest"),
    ]
    assert course.cost_usd == pytest.approx(0.2)
