"""The arrival guard's window over promises."""

from math import inf
from random import Random

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
