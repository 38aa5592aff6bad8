"""Batches by measured seconds: both regimes, and nobody late by them."""

from math import inf

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.scheduling.denoise_items import H200_512, H200_1024, item, table

from speciate.core.denoise import Stage
from speciate.costs.pass_table import PassCost, PassTable
from speciate.scheduling.denoise.item import Item
from speciate.scheduling.denoise.pass_batch import BatchBounds, best_batch, can_share
from speciate.scheduling.denoise.pass_time import PassTimeModel

FREE = BatchBounds(max_rows=32, longest_s=inf, min_share=0.05)


def times(costs: dict[int, float]) -> PassTimeModel:
    return PassTimeModel(table(costs), 1.0, 1.0)


def items(num: int, **more: object) -> list[Item]:
    return [item(i, 100.0, 3.0, **more) for i in range(num)]


def size(costs: dict[int, float], num: int, bounds: BatchBounds = FREE, slack_s: float = inf) -> int:
    leader, *others = items(num)
    return len(best_batch(leader, others, times(costs), lambda _: slack_s, bounds))


def test_where_sharing_pays_it_is_done_as_far_as_it_pays() -> None:
    assert size(H200_512, 2) == 2
    assert size(H200_512, 3) == 3
    assert size(H200_512, 4) == 4
    assert 4 <= size(H200_512, 16) < 16


def test_where_it_does_not_pay_everyone_runs_alone() -> None:
    assert size(H200_1024, 2) == 1
    assert size(H200_1024, 8) == 1


def test_a_bad_size_between_good_ones_is_stepped_over() -> None:
    assert size({1: 1.0, 2: 1.99, 3: 2.9, 4: 1.3}, 8, BatchBounds(4, inf, 0.05)) == 4


def test_nobody_is_delayed_beyond_its_slack() -> None:
    assert size(H200_512, 4, slack_s=0.0) == 1
    assert size(H200_512, 4, slack_s=0.1 * (2 / 1.82 - 1) + 1e-9) == 2


def test_bounds_hold() -> None:
    assert size(H200_512, 4, BatchBounds(3, inf, 0.05)) == 3
    assert size(H200_512, 4, BatchBounds(32, 0.111, 0.05)) == 2


@given(st.lists(st.floats(0.2, 3.0), min_size=1, max_size=8), st.integers(1, 8))
def test_the_batch_is_never_worse_than_alone(costs: list[float], num: int) -> None:
    """In throughput: what each row brings is at least what it brought alone, less nothing."""
    by_rows = {rows + 1: seconds for rows, seconds in enumerate(costs)}
    chosen = size(by_rows, num)
    model = times(by_rows)
    alone_s = model.step_s("ink", Stage.PASS, 4, 1)
    assert chosen * alone_s / model.step_s("ink", Stage.PASS, 4, chosen) >= 1.0


def test_what_cannot_share() -> None:
    leader = item(1, 10, 1)
    assert can_share(leader, item(2, 10, 1))
    assert not can_share(leader, item(2, 10, 1, model="oil"))
    assert not can_share(leader, item(2, 10, 1, shape=(8,)))
    assert not can_share(leader, item(2, 10, 1, is_reproducible=True))
    assert not can_share(item(1, 10, 1, is_reproducible=True), leader)
    other = item(2, 10, 1)
    other.stage = Stage.DECODE
    assert not can_share(leader, other)


def test_encoding_is_shared_whatever_the_size() -> None:
    leader, other = item(1, 10, 1), item(2, 10, 1, shape=(8,))
    leader.stage = other.stage = Stage.ENCODE
    assert can_share(leader, other)


def test_what_a_shared_pass_costs_each() -> None:
    model, kind = times(H200_512), item(1, 10, 1).kind
    assert model.shared_pass_s(kind, 1, 32, 0.05) == 0.1
    assert abs(model.shared_pass_s(kind, 4, 32, 0.05) - 0.1 / 2.77) < 1e-9
    assert model.shared_pass_s(kind, 9, 1, 0.05) == 0.1
    assert times(H200_1024).shared_pass_s(kind, 9, 32, 0.05) == 0.1


def test_seconds_follow_what_is_observed() -> None:
    model = times(H200_512)
    for _ in range(60):
        model.observe("ink", Stage.PASS, 4, 1, 0.3)
    assert abs(model.step_s("ink", Stage.PASS, 4, 1) - 0.3) < 0.01
    assert model.step_s("ink", Stage.PASS, 4, 4) > 0.3, "the whole machine is slower, not this size alone"


def test_a_model_that_was_never_measured_is_not_shared() -> None:
    unknown = PassTimeModel(PassTable("test", (PassCost("oil", Stage.PASS, 4, 1, 0.1),)), 1.0, 1.0)
    leader, *others = items(4)
    assert best_batch(leader, others, unknown, lambda _: inf, FREE) == [leader]
