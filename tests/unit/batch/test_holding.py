"""The worker's question: which jobs may run now?"""

import asyncio
from math import inf
from typing import Any

from speciate.batch.holding import Holding
from speciate.batch.market_sources import open_board
from speciate.batch.records import BatchSpec, JobFacts
from speciate.scaling.spec import parse_markets

HOUR_S = 3600.0
NIGHT = [{"hour": 6, "value": 0.3}, {"hour": 22, "value": 0.1}]
OFFERS = [{"name": "big", "kind": "on_demand", "usd_per_h": 2.0, "speed": 4.0}]
SPEC = BatchSpec("/v1/chat/completions", "file-in", "24h", 86_400.0)


class Hands:
    """A clock that is set."""

    def __init__(self, hour: float) -> None:
        self.s = hour * HOUR_S

    def now_s(self) -> float:
        return self.s


def holding(clock: Hands, tree: Any, rate: float = 1.0) -> Holding:
    return Holding(open_board(parse_markets(tree), clock.now_s), lambda model: rate, clock)


def job(key: int, work_h: float, deadline_h: float) -> JobFacts:
    lines = int(work_h * HOUR_S)
    return JobFacts(key, f"batch_{key}", "t", "m", SPEC, 0.0, deadline_h * HOUR_S, lines, 0)


def may_run(made: Holding, *jobs: JobFacts) -> list[int]:
    return [job.key for job in asyncio.run(made.may_run(list(jobs)))]


def test_without_prices_by_the_hour_nothing_is_asked() -> None:
    made = holding(Hands(12), {"here": {"usd_per_h": 1.0}})
    assert not made.decides
    assert may_run(made, job(1, 2, 30)) == [1]
    assert made.outlook_of(1) is None


def test_a_job_with_slack_waits_until_the_night() -> None:
    clock = Hands(12)
    made = holding(clock, {"here": {"hourly": NIGHT}})
    assert may_run(made, job(1, 2, 54), job(2, 10, 23)) == [2]
    clock.s = 22.01 * HOUR_S
    assert may_run(made, job(1, 2, 30)) == [1]


def test_it_is_decided_once_a_tick_and_soon_after_a_change() -> None:
    clock = Hands(21.99)
    made = holding(clock, {"here": {"hourly": NIGHT}})
    assert may_run(made, job(1, 2, 30)) == []
    clock.s += 60
    assert may_run(made, job(1, 2, 30)) == []
    assert may_run(made, job(1, 2, 30), job(2, 1, 29)) == [1, 2]


def test_a_job_that_came_just_now_waits_for_the_decision() -> None:
    clock = Hands(23)
    made = holding(clock, {"here": {"hourly": NIGHT}})
    assert may_run(made, job(1, 2, 30)) == [1]
    assert may_run(made, job(1, 2, 30), job(2, 1, 29)) == [1]
    clock.s += 3
    assert may_run(made, job(1, 2, 30), job(2, 1, 29)) == [1, 2]


def test_a_job_of_unknown_pace_runs() -> None:
    made = holding(Hands(12), {"here": {"hourly": NIGHT}}, rate=inf)
    assert may_run(made, job(1, 2, 30)) == [1]
    outlook = made.outlook_of(1)
    assert outlook is not None
    assert outlook.stance is None


def test_a_server_that_is_told_not_to_wait_does_not() -> None:
    made = holding(Hands(12), {"here": {"hourly": NIGHT, "waits": False}})
    assert may_run(made, job(1, 2, 30)) == [1]


def test_one_that_does_not_wait_says_so_beside_what_would_be_rented() -> None:
    made = holding(Hands(12), {"here": {"hourly": NIGHT, "waits": False}, "offers": OFFERS})
    assert may_run(made, job(1, 2, 30)) == [1]
    outlook = made.outlook_of(1)
    assert outlook is not None
    assert outlook.stance is not None
    assert (outlook.stance.may_run, outlook.stance.rule) == (True, "flat")


def test_what_would_be_rented_is_worked_out_and_holds_nobody_back() -> None:
    made = holding(Hands(12), {"offers": OFFERS})
    assert may_run(made, job(1, 40, 36)) == [1]
    outlook = made.outlook_of(1)
    assert outlook is not None
    assert outlook.rented is not None
    assert any(stretch.market == "big" for stretch in outlook.rented.stretches)
