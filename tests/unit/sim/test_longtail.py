"""Traffic of the long tail is drawn with the statistics that it claims, and replayed with the production decisions."""

import math
from collections import Counter
from functools import cache
from itertools import pairwise
from statistics import fmean, median, pstdev

import pytest
from msgspec import structs

from speciate.core.denoise_scheduler import Asset
from speciate.sim.hit_rates import belady_hits, forced_belady_hits, lfu_hits, lru_hits
from speciate.sim.longtail import TailSetting, replay
from speciate.sim.longtail_trace import TailOptions, TailRequest, draw_tail, tail_facts


@cache
def trace() -> tuple[TailRequest, ...]:
    """As long as the published one, at its own pace."""
    return tuple(draw_tail(TailOptions(compression=1.0)))


def zipf(counts: list[int]) -> float:
    """Exponent of greatest likelihood, by ranks."""

    def likelihood(power: float) -> float:
        total = math.log(sum(rank**-power for rank in range(1, len(counts) + 1)))
        return sum(count * (-power * math.log(rank) - total) for rank, count in enumerate(counts, 1))

    return max((step / 50 for step in range(25, 120)), key=likelihood)


def ranked(names: list[str]) -> list[int]:
    return [count for _, count in Counter(names).most_common()]


def test_bases_are_as_popular_as_published() -> None:
    counts = ranked([request.base for request in trace()])
    assert 90 <= len(counts) <= 105
    assert zipf(counts) == pytest.approx(1.43, abs=0.08)
    for num, share in ((3, 0.50), (8, 0.80), (16, 0.90), (55, 0.99)):
        assert sum(counts[:num]) / len(trace()) == pytest.approx(share, abs=0.06)


def test_what_caches_hit_is_as_published() -> None:
    bases = [request.base for request in trace()]
    for slots, published in ((1, (0.26, 0.31, 0.45)), (4, (0.67, 0.64, 0.81)), (8, (0.86, 0.82, 0.92))):
        found = lru_hits(bases, slots), lfu_hits(bases, slots), belady_hits(bases, slots)
        assert found == pytest.approx(published, abs=0.06)


def test_adapters_are_as_published() -> None:
    names = [name for request in trace() for name in request.adapters]
    assert sum(bool(request.adapters) for request in trace()) / len(trace()) == pytest.approx(0.22, abs=0.015)
    assert zipf(ranked(names)) == pytest.approx(0.92, abs=0.08)
    owners = {(name, request.base) for request in trace() for name in request.adapters}
    assert len(owners) == len(set(names)), "an adapter belongs to one base"
    assert 600 <= len(owners) <= 874


def test_work_is_as_published() -> None:
    images = Counter(request.num_images for request in trace())
    for num, share in ((1, 0.55), (2, 0.07), (4, 0.23), (8, 0.15)):
        assert images[num] / len(trace()) == pytest.approx(share, abs=0.015)
    assert sum(request.num_steps == 30 for request in trace()) / len(trace()) == pytest.approx(0.88, abs=0.01)


def test_arrivals_come_in_bursts_as_published() -> None:
    gaps = [later.at_s - sooner.at_s for sooner, later in pairwise(trace())]
    assert fmean(gaps) == pytest.approx(74.0, rel=0.2)
    assert pstdev(gaps) / fmean(gaps) == pytest.approx(12.0, abs=3.0)
    hours = Counter(int(request.at_s // 3600) for request in trace())
    counts = [hours.get(hour, 0) for hour in range(int(trace()[-1].at_s // 3600) + 1)]
    assert max(counts) / median(counts) > 7.0, "published: 436 in the busiest hour, 29 at the median"


def test_loads_take_as_long_as_published() -> None:
    facts = [tail_facts()(Asset(f"base-{number:03d}")) for number in range(105)]
    cold = sorted(fact.load_s + fact.fetch_s for fact in facts)
    assert 2.3 <= facts[0].load_s <= 3.2, "published: p5 2.3 s, p25 3.1 s, from memory"
    assert cold[52] == pytest.approx(22.7, abs=4.0)
    assert cold[94] == pytest.approx(42.0, abs=8.0)
    adapter = tail_facts()(Asset("base-000", "style-001"))
    assert adapter.load_s + adapter.fetch_s == pytest.approx(4.4, abs=0.2)


def test_equal_options_give_equal_traces_and_time_is_compressed() -> None:
    few = TailOptions(num_requests=50)
    assert list(draw_tail(few)) == list(draw_tail(few))
    slow = list(draw_tail(TailOptions(num_requests=50, compression=1.0)))
    for quick, slowly in zip(draw_tail(few), slow, strict=True):
        assert quick.at_s * 8.0 == pytest.approx(slowly.at_s)
        assert quick.base == slowly.base


def test_caches_on_a_sequence_that_is_easily_checked() -> None:
    sequence = list("abcabcab")
    assert lru_hits(sequence, 2) == 0.0
    assert lru_hits(sequence, 3) == 5 / 8
    assert belady_hits(sequence, 2) == 4 / 8
    assert belady_hits(sequence, 3) == 5 / 8
    assert forced_belady_hits(list("abac"), 1) == 0.0
    assert belady_hits(list("abac"), 1) == 1 / 4
    assert forced_belady_hits(sequence, 2) == 3 / 8
    assert lfu_hits(list("aaabcb"), 2) == 2 / 6


def test_ours_is_more_often_in_time_than_first_come_and_loads_less() -> None:
    requests = list(draw_tail(TailOptions(num_requests=250, compression=16.0)))
    setting = TailSetting()
    first, grouped, ours = (replay(name, requests, setting) for name in ("first-come", "grouped", "speciate"))
    assert first.num_requests == ours.num_requests == 250
    assert first.within <= grouped.within <= ours.within
    assert ours.num_loads < first.num_loads
    assert ours.mean_s < first.mean_s


def test_a_replay_is_the_same_each_time() -> None:
    requests = list(draw_tail(TailOptions(num_requests=60, compression=16.0)))
    one, two = (replay("speciate", requests, TailSetting()) for _ in range(2))
    assert structs.replace(one, cpu_s=0.0) == structs.replace(two, cpu_s=0.0)
