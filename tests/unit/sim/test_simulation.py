"""Runs of the whole: deterministic, faults bite, admission and silos are what they say."""

import itertools
from collections.abc import Iterable, Iterator

import msgspec
import pytest

from speciate.admission.admit import AdmissionOptions
from speciate.core.segment import Segment, Slo, Tier
from speciate.costs.step_calibration import A100_LLAMA3_8B, StepCalibration, StepLine, StepWork
from speciate.scheduling.options import TokenSchedulerOptions
from speciate.sim.faults import ClockJump, Faults, Shift
from speciate.sim.policies import POLICIES, seats
from speciate.sim.report import SimReport
from speciate.sim.simulation import Setting, simulate
from speciate.sim.workload import SimRequest, backlog, generate, make_request, merged, poisson, uniform

LINE = StepLine(base_s=0.01, decode_s=0.0002, context_s=1e-7, prefill_s=0.0001)
SIMPLE = StepCalibration("simple", "invented", LINE, LINE, 512, num_blocks=2000)
SEGMENTS = {
    Tier.REALTIME: Segment("voice", Tier.REALTIME, Slo(ttft_s=0.1, tpot_s=0.05), preemptible=False),
    Tier.INTERACTIVE: Segment("chat", Tier.INTERACTIVE, Slo(ttft_s=1.0, tpot_s=0.1), jitter_buffer=0.5),
    Tier.BATCH: Segment("docs", Tier.BATCH, Slo(e2e_s=600.0)),
}
SHORT = uniform((32, 200), (4, 24))


def setting(policy: str = "speciate", **changes: object) -> Setting:
    calibration = changes.pop("calibration", SIMPLE)
    assert isinstance(calibration, StepCalibration)
    base = Setting(
        policy=policy,
        calibration=calibration,
        segments=SEGMENTS,
        seats=lambda: seats(policy, calibration, TokenSchedulerOptions(prefix_cache=False)),
        window_s=20.0,
        drain_s=120.0,
    )
    return msgspec.structs.replace(base, **changes)


def mixed(seed: int = 1, num_backlog: int = 30) -> Iterator[SimRequest]:
    return merged(
        generate(Tier.REALTIME, poisson(2.0), SHORT, duration_s=20, seed=seed),
        generate(Tier.INTERACTIVE, poisson(2.0), SHORT, duration_s=20, seed=seed),
        backlog(Tier.BATCH, num_backlog, SHORT, seed),
    )


def without_cpu(report: SimReport) -> SimReport:
    return msgspec.structs.replace(report, cpu_s=0.0)


def run(requests: Iterable[SimRequest], **changes: object) -> SimReport:
    return simulate(requests, setting(**changes))  # type: ignore[arg-type]


def test_equal_runs_give_equal_reports() -> None:
    faults = Faults(noise=0.1, disconnect_share=0.2)
    first, second = (run(mixed(), faults=faults) for _ in range(2))
    assert without_cpu(first) == without_cpu(second)
    assert without_cpu(first) != without_cpu(run(mixed(), faults=faults, seed=2))


def test_a_lone_request_takes_the_calibrated_time() -> None:
    report = run([make_request(1.0, Tier.INTERACTIVE, 100, 11)])
    figures = report.tiers[Tier.INTERACTIVE]
    assert figures.ttft_p50_s == pytest.approx(0.01 + 100 * 0.0001, rel=0.01)
    assert figures.tpot_p50_s == pytest.approx(0.0102, rel=0.02)
    assert (report.num_steps, figures.finished) == (11, 1)
    assert report.busy_s == pytest.approx(0.02 + 10 * 0.0102, rel=0.01)


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_serves_a_light_mix_to_the_end(policy: str) -> None:
    report = run(mixed(), policy=policy)
    for tier in Tier:
        figures = report.tiers[tier]
        assert figures.finished == figures.offered > 0
        assert figures.judged == figures.offered


def test_ours_keeps_promises_beside_batch_where_first_come_first_served_cannot() -> None:
    long = uniform((400, 1500), (50, 200))
    heavy = list(itertools.chain(backlog(Tier.BATCH, 100, long, 1), mixed(num_backlog=0)))
    ours, theirs = (run(heavy, policy=policy, drain_s=0.0) for policy in ("speciate", "fcfs-2048"))
    assert ours.tiers[Tier.REALTIME].kept.mean > 0.9
    assert theirs.tiers[Tier.REALTIME].kept.mean < 0.5
    assert ours.harvest_tokens_per_s > 0


def test_steps_twice_as_long_are_learnt() -> None:
    report = run(mixed(), faults=Faults(shifts=(Shift(5.0, 2.0),)))
    assert report.busy_s > 1.2 * run(mixed()).busy_s
    assert report.prediction_error < 0.2


def test_clients_that_leave_are_not_judged_and_their_work_is_waste() -> None:
    report = run(mixed(), faults=Faults(disconnect_share=0.5, disconnect_after_s=0.2))
    figures = report.tiers[Tier.BATCH]
    assert figures.judged < figures.offered
    assert report.wasted_s > 0


@pytest.mark.parametrize("by_s", [30.0, -30.0])
def test_a_clock_that_jumps_neither_stops_nor_starves_anyone(by_s: float) -> None:
    report = run(mixed(), faults=Faults(jumps=(ClockJump(10.0, by_s),)))
    for tier in Tier:
        assert report.tiers[tier].finished == report.tiers[tier].offered


def test_admission_refuses_what_would_be_late() -> None:
    flood = [make_request(1.0 + i / 1000, Tier.REALTIME, 200, 20) for i in range(100)]
    free, gated = run(flood), run(flood, limits=AdmissionOptions())
    assert free.tiers[Tier.REALTIME].refused == 0
    assert 0 < gated.tiers[Tier.REALTIME].refused < 100
    assert gated.tiers[Tier.REALTIME].kept.mean > free.tiers[Tier.REALTIME].kept.mean


def test_what_can_never_fit_is_refused() -> None:
    report = run([make_request(0.0, Tier.BATCH, 9000, 10)])
    assert report.tiers[Tier.BATCH].refused == 1


def test_a_silo_runs_at_its_share_of_the_speed() -> None:
    report = run([make_request(0.0, Tier.REALTIME, 100, 2)], policy="silo-20-50-30")
    assert report.tiers[Tier.REALTIME].ttft_p50_s == pytest.approx(0.02 / 0.2, rel=0.01)


def test_the_published_coefficients_are_the_printed_ones() -> None:
    """Two lines of the artifact, computed by hand."""
    decodes = A100_LLAMA3_8B.step_s(StepWork(60, 72_000, 0, 0.0, 0))
    assert decodes == pytest.approx(0.014936 + 60 * 9.516994e-05 + 72_000 * 1.111258e-07)
    chunk = A100_LLAMA3_8B.step_s(StepWork(0, 0, 1024, 0.0, 2048))
    assert chunk == pytest.approx(0.005004 + 1024 * 9.582093e-05 + 2048 * 2.727223e-06)
