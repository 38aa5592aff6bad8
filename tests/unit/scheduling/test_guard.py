"""The arrival guard's window over promises."""

from math import inf
from random import Random

import pytest

from speciate.scheduling.guard import WINDOW, ArrivalGuard


def test_the_shortest_promise_of_the_last_arrivals_counts() -> None:
    guard, random, seen = ArrivalGuard(30.0, 0.0), Random(1), []
    assert guard.ttft_s == inf
    for now_s in range(500):
        seen.append(random.choice([0.1, 0.2, 0.5, 1.0, 3.0]) + now_s / 100)
        guard.observe_arrival(seen[-1], now_s)
        assert guard.ttft_s == min(seen[-WINDOW:])
    guard.reserve(0.05, 10)
    assert guard.ttft_s == 0.05
    guard.observe_arrival(inf, 501.0)
    assert guard.ttft_s == 0.05


def late_share(step_s: float, own_steps_s: list[float], ttft_s: float) -> float:
    """Of arrivals at any moment of a step, each needing one of these afterwards."""
    moments = [step_s * (i + 0.5) / 1000 for i in range(1000)]
    late = sum(at_s + own_s > ttft_s for at_s in moments for own_s in own_steps_s)
    return late / (len(moments) * len(own_steps_s))


def test_without_misses_the_longest_prompt_bounds_the_step() -> None:
    guard = ArrivalGuard(30.0, 0.0)
    guard.observe_arrival(0.1, 0.0)
    assert guard.shared_bound_s([0.04, 0.03, 0.02], 0.0) == pytest.approx(0.06)


@pytest.mark.parametrize("allowed", [0.002, 0.01, 0.1, 0.3])
def test_so_many_arrivals_may_be_late_and_no_more(allowed: float) -> None:
    guard = ArrivalGuard(30.0, 0.0)
    guard.observe_arrival(0.1, 0.0)
    own_steps_s = [0.05, 0.048, 0.04, 0.03, 0.03, 0.02]
    bound_s = guard.shared_bound_s(own_steps_s, allowed)
    assert late_share(bound_s, own_steps_s, 0.1) == pytest.approx(allowed, abs=0.001)


def test_the_next_prompt_is_one_of_the_last_ones_and_the_reserved_one_where_one_is() -> None:
    guard = ArrivalGuard(30.0, 0.0)
    guard.observe_arrival(0.1, 0.0)
    for num in range(1, 65):
        guard.observe_prompt(num)
    sampled = guard.sampled_prompts()
    assert sampled == sorted(sampled, reverse=True)
    assert (sampled[0], sampled[-1]) == (63, 3)
    guard.reserve(0.1, 200)
    assert guard.sampled_prompts() == [200]
