"""A real run: production replica, real clock, an engine that is fake; and the calibration measured on one."""

from pathlib import Path

import pytest
from msgspec import structs

from speciate.bench.calibrate import CalibrationGrid, designed_plans, fit_calibration, measure_steps, pauses_between
from speciate.bench.cells import Job, cells_of
from speciate.bench.families import FAMILIES, all_policies, family_of
from speciate.bench.real_run import RealSetting, run_real
from speciate.bench.tiers import REAL, SIMULATED, CellRun, TiersBench, TiersPlan, read_cells, run_cells, scaled_promises
from speciate.core.engine import TokenEngineShape
from speciate.core.errors import ConfigError
from speciate.core.segment import Tier
from speciate.costs.step_calibration import A100_LLAMA3_8B, StepCalibration, StepWork
from speciate.costs.step_fit import MeasuredStep, errors_by_kind, fit_line, fit_table
from speciate.engines.fake import FakeEngine, StepCost
from speciate.scheduling.token import TokenScheduler
from speciate.sim.workload import SimRequest, make_request

SHAPE = TokenEngineShape(
    model="fake",
    vocab_size=1000,
    context_tokens=1024,
    block_tokens=16,
    num_blocks=512,
    block_bytes=1,
    eos_token_ids=(2,),
    max_step_tokens=512,
    max_step_sequences=64,
)
PROMISES = scaled_promises(A100_LLAMA3_8B)
REQUESTS = [
    make_request(0.0, Tier.BATCH, 40, 9),
    make_request(0.0, Tier.REALTIME, 20, 4),
    make_request(0.01, Tier.INTERACTIVE, 100, 7),
    SimRequest(0.02, Tier.INTERACTIVE, 30, 1, 1),
]


def engine() -> FakeEngine:
    return FakeEngine(SHAPE, cost=StepCost(fixed_s=1e-4))


def test_every_request_of_a_real_run_gets_exactly_its_tokens() -> None:
    lender = engine()
    setting = RealSetting("speciate", lender, PROMISES, lambda: TokenScheduler(SHAPE), 0.3, 20.0)
    done = run_real(REQUESTS, setting)
    tiers = done.report.tiers
    assert [tiers[tier].offered for tier in Tier] == [1, 2, 1]
    assert [tiers[tier].finished for tier in Tier] == [1, 2, 1]
    computed = sum(record.work.decodes for record in done.steps)
    assert computed == 8 + 3 + 6
    assert sum(record.work.prefill for record in done.steps) == 40 + 20 + 100 + 30
    assert done.report.num_steps == len(done.steps) == lender.num_steps


def test_an_engine_that_was_lent_can_be_lent_again() -> None:
    lender = engine()
    for _ in range(2):
        setting = RealSetting("fcfs-512", lender, PROMISES, lambda: TokenScheduler(SHAPE), 0.1, 20.0)
        assert run_real(REQUESTS, setting).report.tiers[Tier.INTERACTIVE].finished == 2


def test_cells_are_kept_and_not_run_twice(tmp_path: Path) -> None:
    plan = TiersPlan(("speciate", "fcfs-512"), (1.0,), 1.0, (1, 2), 3.0, sides=(SIMULATED,))
    bench = TiersBench(A100_LLAMA3_8B, PROMISES)
    told: list[CellRun] = []
    cells = run_cells(bench, plan, tmp_path, told.append)
    assert len(cells) == len(told) == 4
    path = tmp_path / "cells.jsonl"
    path.write_bytes(path.read_bytes()[:-40])
    assert len(read_cells(path)) == 3
    told.clear()
    assert len(run_cells(bench, plan, tmp_path, told.append)) == 4
    assert [cell.job.seed for cell in told] == [2]
    assert len(cells_of((family_of(c.job.policy), c.job, c.report) for c in cells)) == 2


def test_the_real_side_needs_an_engine() -> None:
    bench = TiersBench(A100_LLAMA3_8B, PROMISES)
    with pytest.raises(ConfigError, match="--model"):
        bench.run(REAL, Job("three tiers", "speciate", 1.0, 1.0, 1))


def test_ablations_run_at_one_load_and_silos_only_simulated() -> None:
    plan = TiersPlan(("speciate", "speciate-without-guard", "silo-30-50-20"), (0.5, 1.0), 1.0, (1,), 3.0)
    jobs = [(side, job.policy, job.load) for side, job in plan.jobs()]
    assert jobs.count((REAL, "speciate", 0.5)) == 1
    assert [(side, load) for side, policy, load in jobs if policy == "speciate-without-guard"] == [
        (REAL, 1.0),
        (SIMULATED, 1.0),
    ]
    assert all(side == SIMULATED for side, policy, _ in jobs if policy.startswith("silo"))


def test_every_policy_belongs_to_a_family() -> None:
    assert {family_of(policy) for policies in FAMILIES.values() for policy in policies} == set(FAMILIES)
    assert len(set(all_policies())) == len(list(all_policies()))
    with pytest.raises(ConfigError, match="nothing-known"):
        family_of("nothing-known")


def _steps(truth: StepCalibration) -> list[MeasuredStep]:
    works = [StepWork(d, d * c, 0, 0.0, 0) for d in (1, 2, 4, 8, 16, 32) for c in (16, 128, 1024)]
    works += [StepWork(0, 0, x, x * (s + x / 2), s) for x in (8, 32, 128, 512, 1024) for s in (0, 512)]
    works += [StepWork(d, 128 * d, x, x * x / 2, 0) for d in (4, 16) for x in (16, 64, 256, 600)]
    return [MeasuredStep(work, truth.step_s(work)) for work in works]


def test_a_table_fits_what_a_line_cannot() -> None:
    steps = _steps(A100_LLAMA3_8B)
    table, line = fit_table(steps), fit_line(steps)
    assert errors_by_kind(table.step_s, steps)[0].mean < 0.03
    assert errors_by_kind(line.step_s, steps)[0].mean > 2 * errors_by_kind(table.step_s, steps)[0].mean


def test_a_fit_never_predicts_less_than_nothing() -> None:
    steps = [MeasuredStep(StepWork(d, 10 * d, 0, 0.0, 0), 0.01 - 0.001 * d) for d in range(1, 8)]
    assert min((fit_line(steps).decode_s, *fit_table(steps).seconds)) >= 0.0


def test_calibrating_measures_what_fits_and_leaves_the_engine_clean() -> None:
    lender = engine()
    grid = CalibrationGrid(rounds=2)
    steps = measure_steps(lender, grid)
    assert 0 < len(steps) // (2 * grid.on_end) < len(list(designed_plans(grid)))
    assert sum(step.work.is_resized for step in steps) <= len(steps) / grid.on_end
    assert max(step.work.num_tokens for step in steps) <= SHAPE.max_step_tokens
    calibration = fit_calibration(lender, steps, "test")
    assert calibration.num_blocks == SHAPE.num_blocks
    assert calibration.step_s(StepWork(1, 16, 0, 0.0, 0)) > 0
    tiny = FakeEngine(structs.replace(SHAPE, num_blocks=1, context_tokens=4))
    with pytest.raises(ConfigError, match="KV memory"):
        measure_steps(tiny, grid)


def test_pauses_are_medians_between_ends_and_beginnings() -> None:
    assert pauses_between([0.0, 2.0, 4.0, 9.0], [1.0, 1.5, 1.0, 1.0]) == 1.0
    assert pauses_between([0.0], [1.0]) == 0.0
