"""Three rules for pace, and who counts."""

import pytest

from speciate.core.segment import Segment, Slo, Tier
from speciate.sim.report import Kept, tier_figures
from speciate.sim.track import Histogram, Tally, make_track
from speciate.sim.workload import make_request

CHAT = Segment("chat", Tier.INTERACTIVE, Slo(ttft_s=1.0, tpot_s=0.1), jitter_buffer=1.0)


def judged(times_s: list[float], segment: Segment = CHAT) -> Kept:
    tally = Tally(window_s=100.0)
    tally.offered += 1
    track = make_track(make_request(0.0, segment.tier, 10, len(times_s)), segment, tally)
    ends = [track.see(at_s) for at_s in times_s]
    assert ends == [False] * (len(times_s) - 1) + [True]
    track.end()
    return tier_figures(tally).kept


def steady(first_s: float, gap_s: float, num: int) -> list[float]:
    return [first_s + gap_s * index for index in range(num)]


def test_a_steady_stream_in_time_keeps_every_rule() -> None:
    assert judged(steady(0.9, 0.099, 50)) == Kept(1.0, 1.0, 1.0)


def test_a_late_first_token_breaks_every_rule() -> None:
    assert judged(steady(1.1, 0.01, 50)) == Kept(0.0, 0.0, 0.0)


def test_saved_up_slack_pays_for_one_gap_under_the_deadline_rule_alone() -> None:
    early = steady(0.5, 0.05, 20)
    stalled = early + [at_s + 0.14 for at_s in early[-1:]]
    assert judged(stalled) == Kept(1.0, 0.0, 1.0)


def test_a_gap_beyond_the_jitter_buffer_is_late_whatever_was_saved() -> None:
    early = steady(0.5, 0.05, 20)
    assert judged([*early, early[-1] + 0.25]) == Kept(0.0, 0.0, 1.0)


def test_one_late_token_in_a_hundred_is_allowed() -> None:
    times = steady(0.5, 0.09, 101)
    assert judged([*times[:-1], times[-1] + 0.5]) == Kept(1.0, 1.0, 1.0)
    assert judged([*times[:90], times[90] + 0.5]) == Kept(0.0, 0.0, 1.0)


def test_a_completion_window_is_judged_by_the_last_token() -> None:
    docs = Segment("docs", Tier.BATCH, Slo(e2e_s=10.0))
    assert judged([1.0, 9.0], docs) == Kept(1.0, 1.0, 1.0)
    assert judged([1.0, 11.0], docs) == Kept(0.0, 0.0, 0.0)


def test_refused_and_expired_count_as_broken_and_the_undecided_do_not_count() -> None:
    tally = Tally(window_s=100.0)
    tally.refuse()
    tally.drop()
    tally.stop(make_track(make_request(99.5, Tier.INTERACTIVE, 10, 5), CHAT, tally), now_s=100.0)
    assert (tier_figures(tally).judged, tier_figures(tally).kept.deadline) == (2, 0.0)
    tally.stop(make_track(make_request(50.0, Tier.INTERACTIVE, 10, 5), CHAT, tally), now_s=100.0)
    assert tier_figures(tally).judged == 3


def test_an_open_stream_that_stalled_has_broken_its_promise() -> None:
    tally = Tally(window_s=100.0)
    track = make_track(make_request(90.0, Tier.INTERACTIVE, 10, 50), CHAT, tally)
    track.see(90.5)
    tally.stop(track, now_s=90.6)
    assert tier_figures(tally).judged == 0
    tally.stop(track, now_s=95.0)
    assert tier_figures(tally).judged == 1


def test_quantiles_are_right_to_a_percent() -> None:
    histogram = Histogram()
    for value in range(1, 1001):
        histogram.add(value / 1000)
    assert histogram.quantile(0.5) == pytest.approx(0.5, rel=0.011)
    assert histogram.quantile(0.99) == pytest.approx(0.99, rel=0.011)
    assert Histogram().quantile(0.5) is None
