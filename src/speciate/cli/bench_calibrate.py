"""`speciate bench calibrate`: measure an engine's step times, write the calibration that the simulator reads."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from speciate.bench.calibrate import CalibrationGrid, fit_calibration, measure_steps, noise_of, pauses_between
from speciate.bench.cells import Job
from speciate.bench.machine import describe_machine
from speciate.bench.real_run import RealRun
from speciate.bench.tiers import REAL, TiersBench, scaled_promises
from speciate.cli.bench_tiers import load_engine
from speciate.core.engine import StepEngine
from speciate.costs.step_calibration import StepCalibration
from speciate.costs.step_fit import FitError, MeasuredStep, errors_by_kind, fit_line, typical

HELD_OUT_SEED = 99


def main(arguments: Sequence[str]) -> int:
    given = _parser().parse_args(arguments)
    console = Console(width=120)
    engine = load_engine(given.model)
    machine = describe_machine()
    grid = CalibrationGrid(rounds=given.rounds, max_seconds=given.max_seconds)
    steps = measure_steps(engine, grid)
    source = f"speciate bench calibrate, {machine['cpu']}, {machine['cores']} cores, commit {machine['commit']}"
    calibration = fit_calibration(engine, steps, source)
    held_out = _held_out(engine, calibration, given.held_out)
    engine.close()
    real = [MeasuredStep(record.work, record.seconds) for record in held_out.steps]
    calibration = msgspec.structs.replace(
        calibration,
        noise=noise_of(calibration, real),
        between_s=pauses_between([r.began_s for r in held_out.steps], [r.seconds for r in held_out.steps]),
    )
    line = fit_line(typical(steps))
    console.print(_table("designed steps, the table's own fit", errors_by_kind(calibration.step_s, typical(steps))))
    console.print(_table("designed steps, a straight line instead", errors_by_kind(line.step_s, typical(steps))))
    console.print(_table("held out: steps of a mixed run", errors_by_kind(calibration.step_s, real)))
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_bytes(msgspec.json.format(msgspec.json.encode(calibration), indent=1) + b"\n")
    console.print(
        f"{given.out}: {len(steps)} steps measured; noise {calibration.noise:.1%}, "
        f"{1000 * calibration.between_s:.2f} ms between steps"
    )
    return 0


def _held_out(engine: StepEngine, calibration: StepCalibration, seconds: float) -> RealRun:
    """Steps that the production scheduler makes of mixed work: what the fit has not seen."""
    bench = TiersBench(calibration, scaled_promises(calibration), engine)
    done = bench.run(REAL, Job("three tiers", "speciate", 1.0, seconds, HELD_OUT_SEED))[1]
    if done is None:
        raise AssertionError("a real run gives its steps")
    return done


def _table(title: str, errors: list[FitError]) -> Table:
    view = Table(title=title)
    for name in ("steps", "number", "mean error", "bias"):
        view.add_column(name, justify="left" if name == "steps" else "right")
    for error in errors:
        view.add_row(error.kind, str(error.num_steps), f"{error.mean:.1%}", f"{error.bias:+.1%}")
    return view


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="speciate bench calibrate", description=__doc__)
    add = parser.add_argument
    add("--model", default="pocket", help="a model folder, or a pocket model (default pocket)")
    add("--rounds", type=int, default=5, help="how often each plan is measured (default 5)")
    add("--max-seconds", type=float, default=150.0, help="no new round begins after so long (default 150)")
    add("--held-out", type=float, default=15.0, help="seconds of mixed work to check the fit with (default 15)")
    add("--out", type=Path, default=Path("out/calibration.json"))
    return parser
