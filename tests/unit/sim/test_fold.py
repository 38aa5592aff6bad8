"""Folded runs equal unfolded ones: the report bit by bit, and the scheduler's own books after every step."""

from collections.abc import Callable, Iterable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speciate.core.segment import Segment, Slo, Tier
from speciate.costs.step_calibration import A100_LLAMA3_8B, StepCalibration
from speciate.scheduling.options import TokenSchedulerOptions
from speciate.scheduling.token import TokenScheduler
from speciate.sim.faults import Faults, Shift
from speciate.sim.policies import seats
from speciate.sim.report import SimReport
from speciate.sim.simulation import Seat, Setting, simulate
from speciate.sim.workload import (
    CONVERSATION,
    SessionShape,
    SimRequest,
    backlog,
    gamma_bursts,
    generate,
    merged,
    poisson,
    sessions,
    uniform,
)

SEGMENTS = {
    Tier.REALTIME: Segment("voice", Tier.REALTIME, Slo(ttft_s=0.1, tpot_s=0.05), preemptible=False),
    Tier.INTERACTIVE: Segment("chat", Tier.INTERACTIVE, Slo(ttft_s=1.0, tpot_s=0.02), jitter_buffer=0.5),
    Tier.BATCH: Segment("docs", Tier.BATCH, Slo(e2e_s=600.0)),
}
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
    return run_requests(WORKLOADS[workload](), policy, calibration, faults, may_fold)


def run_requests(
    requests: Iterable[SimRequest],
    policy: str,
    calibration: StepCalibration,
    faults: Faults,
    may_fold: bool,
    has_prefix_cache: bool = False,
) -> tuple[SimReport, list[object], int]:
    made: list[Seat] = []

    def build() -> tuple[Seat, ...]:
        made.extend(seats(policy, calibration, TokenSchedulerOptions(prefix_cache=has_prefix_cache)))
        return tuple(made)

    setting = Setting(
        policy, calibration, SEGMENTS, build, window_s=40, drain_s=60, faults=faults, seed=1, may_fold=may_fold
    )
    report = simulate(requests, setting)
    books: list[object] = []
    for seat in made:
        assert isinstance(seat.scheduler, TokenScheduler)
        seat.scheduler.check()
        state = seat.scheduler._state
        books += [seat.scheduler.load(0.0), state.model.costs, [t.served for t in state.tenants._tenants.values()]]
        margin = state.model.margin
        books += [margin.gamma, margin.strict_for(0), margin.strict_for(1), state.model.confidence]
        books += [
            (seq.seq_id, seq.phase, seq.computed, seq.deadline_s, seq.advanced_s, seq.spent_s, len(seq.outputs))
            for seq in state.live.values()
        ]
        books.append(sorted(len(seq.table) for seq in state.live.values()))
        books += [{tier: state.lengths[tier].estimate("default", 4096) for tier in Tier}]
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


def random_requests(seed: int, rates: tuple[float, float, float], num_batch: int) -> Iterable[SimRequest]:
    """Real-time, bursts of chat of two tenants, sessions with growing context, and a backlog; some of them absent."""
    realtime, chat, session = rates
    streams: list[Iterable[SimRequest]] = [backlog(Tier.BATCH, num_batch, uniform((1, 600), (1, 80)), seed)]
    if realtime:
        streams.append(generate(Tier.REALTIME, poisson(realtime), uniform((1, 256), (1, 40)), duration_s=20, seed=seed))
    if chat:
        gaps = gamma_bursts(chat, 3.0)
        drawn = generate(Tier.INTERACTIVE, gaps, uniform((1, 900), (1, 200)), duration_s=20, seed=seed, tenants="ab")
        streams.append(drawn)
    if session:
        shape = SessionShape(turns=4, think_s=5.0, system_tokens=100, context_tokens=2000)
        lengths = uniform((16, 200), (10, 150))
        streams.append(sessions(Tier.INTERACTIVE, poisson(session), lengths, shape, duration_s=20, seed=seed))
    return merged(*streams)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    policy=st.sampled_from(["speciate", "speciate", "speciate-reserved", "fcfs-256", "vllm-priority-256", "qoserve"]),
    rates=st.tuples(st.sampled_from([0.0, 0.3, 2.0]), st.sampled_from([0.0, 0.2, 1.0]), st.sampled_from([0.0, 0.3])),
    num_batch=st.sampled_from([0, 3, 25]),
    noise=st.sampled_from([0.0, 0.02, 0.2]),
    shift=st.sampled_from([1.0, 0.6, 2.0]),
    disconnects=st.sampled_from([0.0, 0.2]),
    between_s=st.sampled_from([0.0, 0.003]),
    num_blocks=st.sampled_from([150, 600, 26_000]),
    has_prefix_cache=st.booleans(),
)
def test_folding_changes_nothing_in_random_worlds(
    seed: int,
    policy: str,
    rates: tuple[float, float, float],
    num_batch: int,
    noise: float,
    shift: float,
    disconnects: float,
    between_s: float,
    num_blocks: int,
    has_prefix_cache: bool,
) -> None:
    calibration = msgspec.structs.replace(A100_LLAMA3_8B, num_blocks=num_blocks, between_s=between_s)
    faults = Faults(noise=noise, shifts=(Shift(7.0, shift),), disconnect_share=disconnects)
    (folded, folded_books, _), (plain, plain_books, _) = (
        run_requests(random_requests(seed, rates, num_batch), policy, calibration, faults, may_fold, has_prefix_cache)
        for may_fold in (True, False)
    )
    assert msgspec.structs.replace(folded, num_events=0) == msgspec.structs.replace(plain, num_events=0)
    assert folded_books == plain_books
