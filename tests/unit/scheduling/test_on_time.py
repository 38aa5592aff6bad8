"""Which prompts give way: as few as possible, the longest, and of several tenants the most served."""

from itertools import permutations
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.scheduling.on_time import Prompt, PromptPace, giving_way

FAST = PromptPace(now_s=0.0, used_s=0.0, step_s=inf)


def prompts(*jobs: tuple[float, float]) -> list[Prompt]:
    return [Prompt(work_s, deadline_s, 0) for work_s, deadline_s in jobs]


def num_late(jobs: list[Prompt], pace: PromptPace) -> int:
    """Those that are late when computed in this order."""
    late, work_s = 0, 0.0
    for job in jobs:
        work_s += job.work_s
        late += pace.done_s(work_s) > job.deadline_s
    return late


def test_all_stay_if_all_can_be_in_time() -> None:
    assert giving_way(prompts((0.3, 0.3), (0.4, 0.8), (0.2, 0.9)), FAST) == frozenset()


def test_the_longest_so_far_gives_way_not_the_one_that_would_be_late() -> None:
    assert giving_way(prompts((0.1, 0.9), (0.8, 1.0), (0.3, 1.1)), FAST) == {1}


def test_one_that_is_late_by_itself_costs_the_others_nothing() -> None:
    assert giving_way(prompts((2.0, 1.0), (0.3, 1.1)), FAST) == {0}


def test_each_step_has_only_so_much_room_and_the_last_is_as_long_as_what_is_left() -> None:
    pace = PromptPace(now_s=1.0, used_s=0.03, step_s=0.05)
    assert pace.done_s(0.02) == pytest.approx(1.05)
    assert pace.done_s(0.03) == pytest.approx(1.05 + 0.04)
    assert PromptPace(1.0, 0.03, inf).done_s(5.0) == pytest.approx(6.03)
    assert PromptPace(1.0, 0.05, 0.05).done_s(0.1) == inf


def test_of_several_tenants_the_least_served_gives_way_last() -> None:
    flood = [Prompt(0.3, 1.0, 900), Prompt(0.3, 1.0, 900)]
    calm = Prompt(0.6, 1.0, 10)
    assert giving_way([flood[0], calm, flood[1]], FAST) == {0}
    assert giving_way([Prompt(0.3, 1.0, 10), calm, Prompt(0.3, 1.0, 10)], FAST) == {1}


@given(st.lists(st.tuples(st.integers(1, 20), st.integers(1, 40)), max_size=6))
def test_no_order_has_fewer_late_ones(jobs: list[tuple[int, int]]) -> None:
    listed = sorted(prompts(*[(float(work), float(deadline)) for work, deadline in jobs]), key=lambda p: p.deadline_s)
    late = giving_way(listed, FAST)
    assert num_late([job for position, job in enumerate(listed) if position not in late], FAST) == 0
    assert len(late) == min((num_late(list(order), FAST) for order in permutations(listed)), default=0)
