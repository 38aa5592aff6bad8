"""Who can be in time: as many as can be, by brute force."""

from itertools import combinations
from math import inf

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.scheduling.denoise_items import item

from speciate.core.segment import Tier
from speciate.scheduling.denoise.item import Item
from speciate.scheduling.denoise.outlook import Outlook, find_room, make_outlook

JOBS = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 12)), max_size=7)


def look(items: list[Item], gamma: float = 1.0, **load_s: float) -> Outlook:
    return make_outlook(items, lambda it: load_s.get(it.model, 0.0), gamma, 0.0)


def ids(items: list[Item]) -> list[int]:
    return [it.item_id for it in items]


def test_the_example_of_the_module() -> None:
    outlook = look([item(1, 10, 5), item(2, 12, 8), item(3, 15, 4), item(4, 40, 6)])
    assert ids(outlook.in_time) == [1, 3, 4]
    assert ids(outlook.late) == [2]
    assert [it.slack_s for it in outlook.in_time] == [5, 6, 25]
    assert outlook.spare_s == 5


@given(JOBS)
def test_no_more_could_be_in_time(jobs: list[tuple[int, int]]) -> None:
    items = [item(i, due_s, seconds) for i, (due_s, seconds) in enumerate(jobs)]
    outlook = look(items)
    assert len(outlook.in_time) == most_in_time(jobs)
    end_s = 0.0
    for it in outlook.in_time:
        end_s += it.share_s
        assert end_s <= it.due_s
        assert it.slack_s == it.due_s - end_s
    assert sorted(ids(outlook.in_time) + ids(outlook.late)) == list(range(len(jobs)))


def most_in_time(jobs: list[tuple[int, int]]) -> int:
    for num in range(len(jobs), 0, -1):
        for chosen in combinations(sorted(jobs), num):
            end_s = 0
            if all((end_s := end_s + seconds) <= due_s for due_s, seconds in chosen):
                return num
    return 0


def test_a_slower_tier_leaves_before_a_faster_one_however_short_it_is() -> None:
    outlook = look([item(1, 10, 8), item(2, 4, 3, Tier.BATCH)])
    assert ids(outlook.in_time) == [1]
    assert ids(outlook.late) == [2]


def test_batch_work_with_much_time_is_patient_until_a_quarter_is_left() -> None:
    assert ids(look([item(1, 3600, 10, Tier.BATCH)]).patient) == [1]
    half_done = item(1, 3600, 10, Tier.BATCH)
    assert ids(make_outlook([half_done], lambda _: 0.0, 1.0, 2800.0).in_time) == [1]
    assert ids(look([item(2, inf, 10)]).patient) == [2]


def test_a_load_counts_once_a_model() -> None:
    items = [item(1, 10, 1, model="oil"), item(2, 10, 1, model="oil"), item(3, 12, 4)]
    assert ids(look(items, oil=5.0).in_time) == [1, 2, 3]
    assert len(look(items, oil=7.0).late) == 1
    assert ids(look([item(1, 10, 4, model="oil")], oil=7.0).late) == [1]


def test_the_margin_counts() -> None:
    assert ids(look([item(1, 10, 9)], gamma=1.2).late) == [1]


@given(JOBS, st.integers(1, 40), st.integers(1, 12))
def test_room_is_where_nobody_becomes_late(jobs: list[tuple[int, int]], due_s: int, seconds: int) -> None:
    """The earliest due time that is answered really can be kept, with everyone else's; a moment less cannot."""
    outlook = look([item(i, due, took) for i, (due, took) in enumerate(jobs)])
    room = find_room(outlook, item(99, due_s, seconds), lambda _: 0.0, 1.0, 0.0)
    others = [(it.due_s, it.share_s) for it in outlook.in_time]
    assert can_all([*others, (room.earliest_due_s, seconds)])
    assert not can_all([*others, (room.earliest_due_s - 0.5, seconds)])
    if due_s >= room.earliest_due_s:
        assert room.finish_s <= due_s
    else:
        assert room.finish_s > due_s


def can_all(jobs: list[tuple[float, float]]) -> bool:
    end_s = 0.0
    return all((end_s := end_s + seconds) <= due_s for due_s, seconds in sorted(jobs))
