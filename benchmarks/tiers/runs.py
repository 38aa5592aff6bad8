"""What is run: mixes of requests, promises, and families of policies with their knobs."""

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path

from speciate.admission.admit import AdmissionOptions
from speciate.bench.cells import Job
from speciate.bench.families import FAMILIES, has_admission, scheduler_name
from speciate.core.segment import Segment, Slo, Tier
from speciate.costs.step_calibration import A100_LLAMA3_8B
from speciate.scheduling.options import Reservation, TokenSchedulerOptions
from speciate.sim.faults import Faults
from speciate.sim.policies import seats
from speciate.sim.report import SimReport
from speciate.sim.simulation import Setting, simulate
from speciate.sim.traces import read_trace
from speciate.sim.workload import (
    CONVERSATION,
    Lengths,
    SimRequest,
    backlog,
    generate,
    merged,
    poisson,
    sampled,
    square_wave,
    uniform,
)

TRACE = Path("../shared/data/azure_llm_2023_conv.csv")
SPOKEN = uniform((64, 256), (8, 32))
"""Stated, not measured: no public trace has a tier under 100 ms."""
NOISE = 0.03
"""Deviation of the logarithm of step times, the same draws for all policies only as far as they run equal steps."""
BACKLOG_PER_S = 10
"""Batch requests filed at the start, for each second of the run: more than any policy can do."""

SEGMENTS = {
    Tier.REALTIME: Segment("voice", Tier.REALTIME, Slo(ttft_s=0.1, tpot_s=0.05, share=0.99), preemptible=False),
    Tier.INTERACTIVE: Segment("chat", Tier.INTERACTIVE, Slo(ttft_s=1.0, tpot_s=0.1), jitter_buffer=0.5),
    Tier.BATCH: Segment("docs", Tier.BATCH, Slo(e2e_s=3600.0)),
}


OPTIONS = TokenSchedulerOptions(prefix_cache=False, expected=Reservation(ttft_s=0.1))
"""Defaults: prompts do not begin alike, and the real-time promise is known, as it is from the settings."""


SMALL_STEPS = {
    "vllm-priority": ("vllm-priority-64", "vllm-priority-128"),
    "sglang": ("sglang-mixed-128",),
    "edf": ("edf-64", "edf-128"),
    "aimd": (
        "aimd-128",
        "aimd-128-window-16",
        "aimd-priority-128-window-4",
        "aimd-priority-256-window-4",
        "aimd-priority-256",
    ),
    "silo": ("silo-60-30-10",),
}
"""Knobs that give up throughput for promises of 100 ms: for capacity, which asks for nothing but promises."""
KNOBS = {family: (*knobs, *SMALL_STEPS.get(family, ())) for family, knobs in FAMILIES.items()}


def run_job(job: Job) -> SimReport:
    return run_promised(job, SEGMENTS)


def run_promised(job: Job, segments: Mapping[Tier, Segment]) -> SimReport:
    """The same with other promises."""
    policy = scheduler_name(job.policy)
    setting = Setting(
        policy=job.policy,
        calibration=A100_LLAMA3_8B,
        segments=segments,
        seats=lambda: seats(policy, A100_LLAMA3_8B, OPTIONS),
        window_s=job.window_s,
        drain_s=0.0,
        limits=AdmissionOptions() if has_admission(job.policy) else None,
        faults=Faults(noise=NOISE),
        seed=job.seed,
    )
    return simulate(MIXES[job.mix](job), setting)


def _three_tiers(job: Job) -> Iterator[SimRequest]:
    """Real-time 2/s, chat 2/s in a square wave of a minute, and more batch than can be done."""
    return merged(
        generate(Tier.REALTIME, poisson(2.0 * job.load), SPOKEN, duration_s=job.window_s, seed=job.seed),
        _chat(job),
        backlog(Tier.BATCH, round(BACKLOG_PER_S * job.window_s), _lengths(), job.seed),
    )


def _two_tiers(job: Job) -> Iterator[SimRequest]:
    """The same without real-time work."""
    return merged(_chat(job), backlog(Tier.BATCH, round(BACKLOG_PER_S * job.window_s), _lengths(), job.seed))


def _chat(job: Job) -> Iterator[SimRequest]:
    wave = square_wave(1.0 * job.load, 3.0 * job.load, 60.0)
    return generate(Tier.INTERACTIVE, wave, _lengths(), duration_s=job.window_s, seed=job.seed)


def _online_only(job: Job) -> Iterator[SimRequest]:
    """The same without batch work: what others carry who keep it elsewhere."""
    spoken = generate(Tier.REALTIME, poisson(2.0 * job.load), SPOKEN, duration_s=job.window_s, seed=job.seed)
    return merged(spoken, _chat(job))


def _batch_only(job: Job) -> Iterator[SimRequest]:
    """The ceiling of the harvest."""
    return backlog(Tier.BATCH, round(BACKLOG_PER_S * job.window_s), _lengths(), job.seed)


MIXES: dict[str, Callable[[Job], Iterator[SimRequest]]] = {
    "three tiers": _three_tiers,
    "no real-time": _two_tiers,
    "online only": _online_only,
    "batch only": _batch_only,
}


@cache
def _lengths() -> Lengths:
    """Those of Azure's conversations, or drawn like them where the trace is absent."""
    if not TRACE.exists():
        return CONVERSATION
    rows = read_trace(TRACE, Tier.INTERACTIVE)
    return sampled([(row.prompt_tokens, row.output_tokens) for row in rows if row.prompt_tokens <= 6000])
