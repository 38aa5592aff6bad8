"""Folded runs equal unfolded ones: the report bit by bit, and the scheduler's own books after every step."""

from collections.abc import Callable, Iterable

import msgspec
import pytest

from speciate.core.segment import Segment, Slo, Tier
from speciate.costs.step_calibration import A100_LLAMA3_8B
from speciate.scheduling.options import TokenSchedulerOptions
from speciate.scheduling.token import TokenScheduler
from speciate.sim.faults import Faults, Shift
from speciate.sim.policies import seats
from speciate.sim.report import SimReport
from speciate.sim.simulation import Seat, Setting, simulate
from speciate.sim.workload import CONVERSATION, SimRequest, backlog, generate, merged, poisson, uniform

SEGMENTS = {
    Tier.REALTIME: Segment("voice", Tier.REALTIME, Slo(ttft_s=0.1, tpot_s=0.05), preemptible=False),
    Tier.INTERACTIVE: Segment("chat", Tier.INTERACTIVE, Slo(ttft_s=1.0, tpot_s=0.02), jitter_buffer=0.5),
    Tier.BATCH: Segment("docs", Tier.BATCH, Slo(e2e_s=600.0)),
}
REORDERED = {"edf-512"}
"""Its decodes change places from step to step, so blocks of equal value are handed out in another order."""
WORKLOADS: dict[str, Callable[[], Iterable[SimRequest]]] = {
    "chat": lambda: generate(Tier.INTERACTIVE, poisson(0.5), CONVERSATION, duration_s=40, seed=4),
    "batch": lambda: backlog(Tier.BATCH, 20, CONVERSATION, 4),
    "mix": lambda: merged(
        generate(Tier.REALTIME, poisson(0.5), uniform((64, 256), (8, 32)), duration_s=40, seed=4),
        generate(Tier.INTERACTIVE, poisson(0.3), CONVERSATION, duration_s=40, seed=4),
        backlog(Tier.BATCH, 4, CONVERSATION, 4),
    ),
}


def run(
    workload: str, policy: str, *, may_fold: bool, faults: Faults, num_blocks: int
) -> tuple[SimReport, list[object], int]:
    """(report, the scheduler's own figures, events)."""
    calibration = msgspec.structs.replace(A100_LLAMA3_8B, num_blocks=num_blocks)
    made: list[Seat] = []

    def build() -> tuple[Seat, ...]:
        made.extend(seats(policy, calibration, TokenSchedulerOptions(prefix_cache=False)))
        return tuple(made)

    setting = Setting(
        policy, calibration, SEGMENTS, build, window_s=40, drain_s=60, faults=faults, seed=1, may_fold=may_fold
    )
    report = simulate(WORKLOADS[workload](), setting)
    books: list[object] = []
    for seat in made:
        assert isinstance(seat.scheduler, TokenScheduler)
        seat.scheduler.check()
        state = seat.scheduler._state
        books += [seat.scheduler.load(0.0), state.model.costs, [t.served for t in state.tenants._tenants.values()]]
        if policy not in REORDERED:
            books.append(state.memory.pool._free)
        books += [{tier: state.lengths[tier].estimate(4096, 0) for tier in Tier}]
    return msgspec.structs.replace(report, cpu_s=0.0), books, report.num_events


@pytest.mark.parametrize("policy", ["speciate", "fcfs-512", "vllm-priority-256", "edf-512", "qoserve", "silo-30-50-20"])
@pytest.mark.parametrize("workload", WORKLOADS)
def test_folding_changes_nothing(policy: str, workload: str) -> None:
    faults = Faults(noise=0.1, shifts=(Shift(15.0, 1.5),), disconnect_share=0.1)
    folded, folded_books, num_folded = run(workload, policy, may_fold=True, faults=faults, num_blocks=26_000)
    plain, plain_books, num_plain = run(workload, policy, may_fold=False, faults=faults, num_blocks=26_000)
    assert msgspec.structs.replace(folded, num_events=0) == msgspec.structs.replace(plain, num_events=0)
    assert folded_books == plain_books
    assert num_folded <= num_plain


def test_folding_changes_nothing_when_memory_is_short() -> None:
    for workload in ("chat", "mix"):
        folded, folded_books, _ = run(workload, "speciate", may_fold=True, faults=Faults(), num_blocks=600)
        plain, plain_books, _ = run(workload, "speciate", may_fold=False, faults=Faults(), num_blocks=600)
        assert msgspec.structs.replace(folded, num_events=0) == msgspec.structs.replace(plain, num_events=0)
        assert folded_books == plain_books


def test_folding_saves_most_of_the_events_of_a_calm_chat() -> None:
    *_, num_folded = run("chat", "speciate", may_fold=True, faults=Faults(), num_blocks=26_000)
    *_, num_plain = run("chat", "speciate", may_fold=False, faults=Faults(), num_blocks=26_000)
    assert num_folded < num_plain / 3
