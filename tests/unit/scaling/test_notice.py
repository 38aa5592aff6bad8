"""What to do with running lines when the machine is about to go."""

from hypothesis import given
from hypothesis import strategies as st

from speciate.scaling.notice import Fate, NoticeOptions, RunningLine, expected_lost_s, fates

OPTIONS = NoticeOptions(margin_s=2.0, park_s=1.0, error_factor=1.5)


def decided(*lines: RunningLine, notice_s: float) -> list[tuple[str, Fate]]:
    return [(fate.line_id, fate.fate) for fate in fates(lines, notice_s, OPTIONS)]


def test_short_rests_are_finished_and_long_ones_parked() -> None:
    lines = RunningLine("short", 10.0, 5.0), RunningLine("long", 90.0, 5.0)
    assert decided(*lines, notice_s=30.0) == [("long", Fate.PARK), ("short", Fate.FINISH)]


def test_a_rest_that_may_take_longer_is_not_gambled_with() -> None:
    assert decided(RunningLine("a", 20.0, 5.0), notice_s=31.9) == [("a", Fate.PARK)]
    assert decided(RunningLine("a", 20.0, 5.0), notice_s=32.0) == [("a", Fate.FINISH)]


def test_what_cannot_resume_is_handed_back() -> None:
    lines = [RunningLine("a", 90.0, 7.0, can_resume=False)]
    assert decided(*lines, notice_s=30.0) == [("a", Fate.HAND_BACK)]
    assert expected_lost_s(lines, 30.0, OPTIONS) == 7.0


def test_with_too_little_notice_the_most_work_is_saved() -> None:
    lines = [RunningLine(name, 90.0, done_s) for name, done_s in (("a", 1.0), ("b", 9.0), ("c", 5.0))]
    assert decided(*lines, notice_s=4.0) == [("b", Fate.PARK), ("c", Fate.PARK), ("a", Fate.HAND_BACK)]
    assert expected_lost_s(lines, 0.0, OPTIONS) == 15.0


LINES = st.builds(RunningLine, st.uuids().map(str), st.floats(0, 200), st.floats(0, 200), st.booleans())


@given(lines=st.lists(LINES, max_size=12), notice_s=st.floats(0, 120))
def test_each_line_has_one_fate_that_fits_the_notice(lines: list[RunningLine], notice_s: float) -> None:
    found = fates(lines, notice_s, OPTIONS)
    by_id = {line.line_id: line for line in lines}
    assert sorted(fate.line_id for fate in found) == sorted(by_id)
    room_s = max(0.0, notice_s - OPTIONS.margin_s)
    assert sum(fate.fate is Fate.PARK for fate in found) * OPTIONS.park_s <= room_s
    for fate in found:
        line = by_id[fate.line_id]
        assert fate.fate is not Fate.FINISH or line.left_s * OPTIONS.error_factor <= room_s
        assert fate.fate is not Fate.PARK or line.can_resume
        assert fate.lost_s == (line.done_s if fate.fate is Fate.HAND_BACK else 0.0)


@given(lines=st.lists(LINES, max_size=12), notice_s=st.floats(0, 120), more_s=st.floats(0, 60))
def test_longer_notice_never_loses_more(lines: list[RunningLine], notice_s: float, more_s: float) -> None:
    assert expected_lost_s(lines, notice_s + more_s, OPTIONS) <= expected_lost_s(lines, notice_s, OPTIONS) + 1e-9
