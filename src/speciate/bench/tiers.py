"""Three tiers under several policies, on a real engine and in the simulator: same requests, promises and policies.

Each run is one line of `cells.jsonl`, written when it ends; a call finds what is there and does the rest. Seeds go
round outermost, so that what is there is paired however far it came.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from math import log
from pathlib import Path

import msgspec
from msgspec import Struct, structs

from speciate.admission.admit import AdmissionOptions, QueueLimits
from speciate.bench.cells import Job
from speciate.bench.families import family_of, has_admission, scheduler_name
from speciate.bench.real_run import RealRun, RealSetting, run_real
from speciate.core.engine import StepEngine, TokenEngineShape
from speciate.core.errors import ConfigError
from speciate.core.scheduler import StepScheduler
from speciate.core.segment import Segment, Slo, Tier
from speciate.costs.step_calibration import StepCalibration, StepWork
from speciate.costs.step_fit import FitError, MeasuredStep, errors_by_kind
from speciate.scheduling.options import Reservation, TokenSchedulerOptions
from speciate.sim.faults import Faults
from speciate.sim.policies import POLICIES, prior_of, seats
from speciate.sim.report import SimReport
from speciate.sim.simulation import Setting, simulate
from speciate.sim.workload import (
    SimRequest,
    backlog,
    generate,
    log_normal,
    merged,
    poisson,
    square_wave,
    uniform,
)

REAL, SIMULATED = "real", "simulated"
SPOKEN = uniform((8, 32), (4, 12))
"""Lengths of real-time turns, an eighth of those of the A100 benchmark. Stated, not measured."""
CHAT = log_normal((6.63 - log(8), 0.99), (5.02 - log(8), 0.86), most=512)
"""Azure's conversations at an eighth of their length."""
MEAN_SPOKEN, MEAN_CHAT = (20, 8), (145, 33)
"""(prompt, output) tokens of those, for rates."""
REALTIME_SHARE, CHAT_SHARE = 0.05, 0.30
"""What real-time work and chat ask of the device at load 1, by the calibration's marginal seconds."""
BACKLOG_SHARE = 1.2
"""Batch work filed at the start, in devices: more than can be done."""
LIMITS = AdmissionOptions(batch=QueueLimits(max_waiting=1_000_000, max_tokens=1 << 40))
"""The defaults, but for the length of the batch queue: the backlog of a long run is filed at once."""
PERIOD_S = 10.0
"""Chat swings between half and one and a half times its rate."""


class TiersPlan(Struct, frozen=True):
    """What one call runs."""

    policies: tuple[str, ...]
    loads: tuple[float, ...]
    ablation_load: float
    """The one load at which policies that only take something out of ours run."""
    seeds: tuple[int, ...]
    seconds: float
    mixes: tuple[str, ...] = ("three tiers",)
    sides: tuple[str, ...] = (REAL, SIMULATED)

    def jobs(self) -> Iterator[tuple[str, Job]]:
        for seed in self.seeds:
            for mix in self.mixes:
                for policy in self.policies:
                    for load in self._loads(policy):
                        for side in self.sides:
                            if side == SIMULATED or not policy.startswith("silo"):
                                yield side, Job(mix, policy, load, self.seconds, seed)

    def _loads(self, policy: str) -> tuple[float, ...]:
        is_ablation = family_of(policy) == policy and policy.startswith("speciate-")
        return (self.ablation_load,) if is_ablation else self.loads


class CellRun(Struct, frozen=True):
    """A line of the log."""

    side: str
    job: Job
    report: SimReport
    errors: tuple[FitError, ...] = ()
    """Of the calibration against this run's real steps."""


class TiersBench(Struct, frozen=True):
    """A machine under test: its calibration, the promises scaled to it, and the engine if it is here."""

    calibration: StepCalibration
    segments: dict[Tier, Segment]
    engine: StepEngine | None = None
    rates: StepCalibration | None = None
    """What arrival rates and promises were scaled by, where the same requests are to be simulated by another one."""

    def run(self, side: str, job: Job) -> tuple[CellRun, RealRun | None]:
        if side == SIMULATED:
            return CellRun(side, job, self._simulated(job)), None
        done = self._real(job)
        steps = [MeasuredStep(record.work, record.seconds) for record in done.steps]
        errors = tuple(errors_by_kind(self.calibration.step_s, steps))
        return CellRun(side, job, done.report, errors), done

    def _real(self, job: Job) -> RealRun:
        if self.engine is None:
            raise ConfigError("There is no engine for the real side; name a model (--model).")
        setting = RealSetting(
            policy=job.policy,
            engine=self.engine,
            segments=self.segments,
            scheduler=partial(self._scheduler, job.policy, self.engine.shape),
            window_s=job.window_s,
            limits=LIMITS if has_admission(job.policy) else None,
            seed=job.seed,
        )
        return run_real(self.requests(job), setting)

    def _simulated(self, job: Job) -> SimReport:
        setting = Setting(
            policy=job.policy,
            calibration=self.calibration,
            segments=self.segments,
            seats=lambda: seats(scheduler_name(job.policy), self.calibration, self._options()),
            window_s=job.window_s,
            drain_s=2.0,
            limits=LIMITS if has_admission(job.policy) else None,
            faults=Faults(noise=self.calibration.noise),
            seed=job.seed,
        )
        return simulate(self.requests(job), setting)

    def _scheduler(self, policy: str, shape: TokenEngineShape) -> StepScheduler:
        options = structs.replace(self._options(), prior=prior_of(self.calibration))
        return POLICIES[scheduler_name(policy)](shape, options)[0].scheduler

    def _options(self) -> TokenSchedulerOptions:
        """Defaults, but for the prefix cache: no two prompts begin alike."""
        ttft_s = self.segments[Tier.REALTIME].slo.ttft_s or 0.1
        return TokenSchedulerOptions(prefix_cache=False, expected=Reservation(ttft_s=ttft_s, prompt_tokens=32))

    def requests(self, job: Job) -> Iterator[SimRequest]:
        """Drawn by seed: equal for all policies and both sides."""
        cost = partial(mean_cost_s, self.rates or self.calibration)
        chat_per_s = CHAT_SHARE / cost(*MEAN_CHAT) * job.load
        spoken_per_s = REALTIME_SHARE / cost(*MEAN_SPOKEN) * job.load if job.mix != "no real-time" else 0.0
        num_batch = round(BACKLOG_SHARE * job.window_s / cost(*MEAN_CHAT))
        wave = square_wave(0.5 * chat_per_s, 1.5 * chat_per_s, PERIOD_S)
        streams: list[Iterable[SimRequest]] = [
            generate(Tier.INTERACTIVE, wave, CHAT, duration_s=job.window_s, seed=job.seed),
            backlog(Tier.BATCH, num_batch, CHAT, job.seed),
        ]
        if spoken_per_s:
            spoken = generate(Tier.REALTIME, poisson(spoken_per_s), SPOKEN, duration_s=job.window_s, seed=job.seed)
            streams.append(spoken)
        return merged(*streams)


def scaled_promises(calibration: StepCalibration) -> dict[Tier, Segment]:
    """The product's promises, or a multiple of what one request alone takes on a machine too slow for them.

    real-time    TTFT max(100 ms, 4 x its longest prompt alone), TPOT max(50 ms, 4 x one decode alone)
    interactive  TTFT max(1 s, 10 x a mean prompt alone), TPOT max(100 ms, 8 x one decode alone)
    """
    decode_s = calibration.step_s(StepWork(1, MEAN_CHAT[0], 0, 0.0, 0))
    spoken_s, chat_s = _prompt_s(calibration, 32), _prompt_s(calibration, MEAN_CHAT[0])
    realtime = Slo(ttft_s=max(0.1, 4 * spoken_s), tpot_s=max(0.05, 4 * decode_s), share=0.99)
    interactive = Slo(ttft_s=max(1.0, 10 * chat_s), tpot_s=max(0.1, 8 * decode_s))
    return {
        Tier.REALTIME: Segment("voice", Tier.REALTIME, realtime, preemptible=False),
        Tier.INTERACTIVE: Segment("chat", Tier.INTERACTIVE, interactive, jitter_buffer=0.5),
        Tier.BATCH: Segment("docs", Tier.BATCH, Slo(e2e_s=3600.0)),
    }


def mean_cost_s(calibration: StepCalibration, prompt: int, output: int) -> float:
    """Step-seconds that a request adds to a device that is busy anyway: marginal costs in large steps."""
    tokens_s = (_prompt_s(calibration, 256) - _prompt_s(calibration, 128)) / 128
    decodes = [calibration.step_s(StepWork(num, num * (prompt + output // 2), 0, 0.0, 0)) for num in (16, 48)]
    return prompt * tokens_s + output * max(1e-6, (decodes[1] - decodes[0]) / 32)


def _prompt_s(calibration: StepCalibration, num: int) -> float:
    return calibration.step_s(StepWork(0, 0, num, num * num / 2, 0))


def run_cells(bench: TiersBench, plan: TiersPlan, out: Path, tell: Callable[[CellRun], None]) -> list[CellRun]:
    """All cells of the plan, those of earlier calls included; each new one is in `out/cells.jsonl` once it is done."""
    path = out / "cells.jsonl"
    out.mkdir(parents=True, exist_ok=True)
    done = {(cell.side, cell.job): cell for cell in read_cells(path)}
    for side, job in plan.jobs():
        if (side, job) in done:
            continue
        cell, real = bench.run(side, job)
        if real is not None:
            _save_steps(out / f"steps-{job.policy}-x{job.load:g}-{job.seed}.jsonl", real)
        with path.open("ab") as file:
            file.write(msgspec.json.encode(cell) + b"\n")
        done[side, job] = cell
        tell(cell)
    return list(done.values())


def read_cells(path: Path) -> list[CellRun]:
    """None where nothing was run yet. A line that a crash cut short is left out."""
    if not path.exists():
        return []
    cells = []
    for line in path.read_bytes().splitlines():
        try:
            cells.append(msgspec.json.decode(line, type=CellRun))
        except msgspec.DecodeError:
            continue
    return cells


def _save_steps(path: Path, run: RealRun) -> None:
    path.write_bytes(b"\n".join(msgspec.json.encode(record) for record in run.steps) + b"\n")
