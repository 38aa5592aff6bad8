"""Windows that can be kept are accepted, others refused with the earliest that can: against a plain run by deadline."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.admission.windows import WindowAccepted, WindowRefused, earliest_deadline_s, feasible_window
from speciate.core.window import OpenJob, Supply

SUPPLY = Supply(rate=1.0, safety=1.0)
NOW_S = 1000.0


def job(job_id: str, work_s: float, window_s: float) -> OpenJob:
    return OpenJob(job_id, work_s, NOW_S + window_s)


def is_schedulable(jobs: list[OpenJob], supply: Supply) -> bool:
    """A machine that takes the job due next, second by second: the plain way to say it."""
    clock_s = NOW_S
    for one in sorted(jobs, key=lambda one: one.deadline_s):
        clock_s += one.work_s / supply.sure_rate
        if clock_s + supply.tail_s > one.deadline_s + 1e-6:
            return False
    return True


def test_an_idle_machine_keeps_what_it_can_do() -> None:
    assert feasible_window([], 600.0, NOW_S + 900.0, SUPPLY, NOW_S) == WindowAccepted(300.0)


def test_a_refusal_names_the_earliest_window_and_that_one_is_accepted() -> None:
    jobs = [job("a", 500.0, 600.0)]
    verdict = feasible_window(jobs, 200.0, NOW_S + 300.0, SUPPLY, NOW_S)
    assert isinstance(verdict, WindowRefused)
    assert verdict.earliest_deadline_s == NOW_S + 700.0
    assert "200 s of work" in verdict.reason
    assert "window of 700 s" in verdict.reason
    accepted = feasible_window(jobs, 200.0, verdict.earliest_deadline_s, SUPPLY, NOW_S)
    assert accepted == WindowAccepted(0.0)


def test_a_small_job_goes_before_a_big_patient_one() -> None:
    assert isinstance(feasible_window([job("a", 500.0, 900.0)], 50.0, NOW_S + 60.0, SUPPLY, NOW_S), WindowAccepted)


def test_work_due_at_the_same_moment_counts_before_it() -> None:
    verdict = feasible_window([job("a", 300.0, 900.0)], 200.0, NOW_S + 900.0, SUPPLY, NOW_S)
    assert verdict == WindowAccepted(400.0)


def test_a_late_job_is_not_made_later() -> None:
    late = job("late", 500.0, 100.0)
    assert earliest_deadline_s([late], 10.0, SUPPLY, NOW_S) == NOW_S + 510.0


def test_the_tail_and_the_safety_share_are_kept_free() -> None:
    supply = Supply(rate=2.0, safety=0.5, tail_s=30.0)
    assert earliest_deadline_s([], 100.0, supply, NOW_S) == NOW_S + 130.0


def test_without_any_rate_nothing_is_promised() -> None:
    verdict = feasible_window([], 1.0, NOW_S + 1e9, Supply(rate=0.0), NOW_S)
    assert isinstance(verdict, WindowRefused)
    assert verdict.earliest_deadline_s == inf
    assert "Nothing is being computed" in verdict.reason


WORK_S = st.integers(1, 50).map(float)
JOBS = st.lists(st.builds(job, st.uuids().map(str), WORK_S, st.integers(1, 300).map(float)), max_size=8)
SUPPLIES = st.builds(
    Supply, st.sampled_from([0.25, 1.0, 4.0]), st.sampled_from([0.5, 1.0]), st.sampled_from([0.0, 8.0])
)


@given(jobs=JOBS, work_s=WORK_S, window_s=st.integers(1, 600), supply=SUPPLIES)
def test_accepted_exactly_when_all_deadlines_hold(
    jobs: list[OpenJob], work_s: float, window_s: int, supply: Supply
) -> None:
    kept: list[OpenJob] = []
    for one in jobs:
        if is_schedulable([*kept, one], supply):
            kept.append(one)
    new = job("new", work_s, float(window_s))
    verdict = feasible_window(kept, work_s, new.deadline_s, supply, NOW_S)
    assert isinstance(verdict, WindowAccepted) == is_schedulable([*kept, new], supply)
    if isinstance(verdict, WindowRefused):
        assert is_schedulable([*kept, job("new", work_s, verdict.earliest_deadline_s - NOW_S)], supply)
        assert not is_schedulable([*kept, job("new", work_s, verdict.earliest_deadline_s - NOW_S - 0.01)], supply)


@given(jobs=JOBS, work_s=WORK_S)
def test_more_work_is_never_promised_earlier(jobs: list[OpenJob], work_s: float) -> None:
    one = earliest_deadline_s(jobs, work_s, SUPPLY, NOW_S)
    assert earliest_deadline_s(jobs, work_s + 1, SUPPLY, NOW_S) >= one
    assert earliest_deadline_s(jobs[1:], work_s, SUPPLY, NOW_S) <= one


@pytest.mark.parametrize("deadline_s", [NOW_S - 1, NOW_S])
def test_a_window_that_is_over_is_refused(deadline_s: float) -> None:
    assert isinstance(feasible_window([], 1.0, deadline_s, SUPPLY, NOW_S), WindowRefused)
