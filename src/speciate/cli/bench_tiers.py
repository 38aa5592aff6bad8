"""`speciate bench tiers`: ours against what people use, on a real engine and in the simulator."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from msgspec import to_builtins
from rich.console import Console
from rich.table import Table

from speciate.assembly import POCKET_FOLDERS
from speciate.bench.cells import best_cells, capacity_table, cells_of, load_table
from speciate.bench.families import ABLATIONS, all_policies, family_of
from speciate.bench.machine import describe_machine
from speciate.bench.tiers import REAL, SIMULATED, CellRun, TiersBench, TiersPlan, run_cells, scaled_promises
from speciate.core.segment import Tier
from speciate.costs.step_calibration import load_calibration
from speciate.engines.openvino.engine import OpenVinoEngine
from speciate.engines.openvino.options import OpenVinoOptions
from speciate.runtime.garbage import collect_seldom

POLICIES = ("speciate", *ABLATIONS, "vllm-priority-256", "sglang-mixed-256", "edf-256")
"""Ours, ours with one idea less, and the three baselines that kept most promises in the A100 simulation."""
KV_BYTES = 96 << 20
STEP_TOKENS = 2048
WARM_TOKENS = 512
"""Kernels for steps of these sizes are made before anything is measured."""


def load_engine(model: str, kv_bytes: int = KV_BYTES) -> OpenVinoEngine:
    """A model folder, or a pocket model by name, in a process that runs as a server does. Raises LoadFailed."""
    folder = POCKET_FOLDERS.get(model, Path(model).expanduser())
    options = OpenVinoOptions(kv_bytes=kv_bytes, max_step_tokens=STEP_TOKENS, warm_tokens=WARM_TOKENS)
    engine = OpenVinoEngine.load(folder, options)
    collect_seldom()
    return engine


def main(arguments: Sequence[str]) -> int:
    given = _parser().parse_args(arguments)
    console = Console(width=150)
    calibration = load_calibration(str(given.calibration))
    plan = TiersPlan(
        policies=tuple(given.policies),
        loads=tuple(given.loads),
        ablation_load=given.ablation_load,
        seeds=tuple(range(1, given.seeds + 1)),
        seconds=given.seconds,
        mixes=tuple(given.mixes),
        sides=tuple(given.sides),
    )
    engine = load_engine(given.model) if REAL in given.sides else None
    rates = load_calibration(str(given.rates)) if given.rates else calibration
    bench = TiersBench(calibration, scaled_promises(rates), engine, rates)
    for segment in bench.segments.values():
        console.print(f"{segment.tier}: {segment.slo}", style="dim")
    cells = run_cells(bench, plan, given.out, lambda cell: console.print(_line(cell), style="dim"))
    if engine is not None:
        engine.close()
    _report(cells, plan, given.out, console)
    return 0


def _line(cell: CellRun) -> str:
    kept = ", ".join(f"{tier} {100 * cell.report.tiers[tier].kept.deadline:.1f} %" for tier in Tier)
    error = f", calibration off by {100 * cell.errors[0].mean:.1f} %" if cell.errors else ""
    job = cell.job
    return f"{cell.side} {job.mix} {job.policy} x{job.load:g} seed {job.seed}: {kept}{error}"


def _report(cells: list[CellRun], plan: TiersPlan, out: Path, console: Console) -> None:
    rows: dict[str, object] = {"machine": describe_machine(), "seconds": plan.seconds, "seeds": len(plan.seeds)}
    wanted = [cell for cell in cells if cell.job.policy in plan.policies and cell.job.window_s == plan.seconds]
    for side in plan.sides:
        figures = cells_of((family_of(c.job.policy), c.job, c.report) for c in wanted if c.side == side)
        rows[side] = to_builtins(figures)
        for mix in plan.mixes:
            of_mix = [cell for cell in figures if cell.mix == mix]
            if of_mix:
                console.print(capacity_table(best_cells(of_mix), f"{side}, {mix}: each family at its best knob"))
            for load in sorted({cell.load for cell in of_mix}):
                console.print(load_table(of_mix, load, f"{side}, {mix}: load x{load:g}"))
    if len(plan.sides) > 1:
        console.print(_agreement(wanted))
    (out / "tiers.json").write_text(json.dumps(rows, indent=1) + "\n")
    console.print(
        f"Pictures: python -m benchmarks.tiers --from {out / 'tiers.json'} --side real --plot {out}/tiers.png"
    )


def _agreement(cells: list[CellRun]) -> Table:
    """Simulator beside engine: the same requests, policy by policy."""
    view = Table(title="simulator less engine, points of attainment (deadline rule); calibration against real steps")
    for name in ("run", *(str(tier) for tier in Tier), "batch tokens/s, real", "simulated", "step error", "bias"):
        view.add_column(name, justify="left" if name == "run" else "right")
    twins = {cell.job: cell for cell in cells if cell.side == SIMULATED}
    for cell in cells:
        twin = twins.get(cell.job)
        if cell.side == REAL and twin is not None:
            view.add_row(*_difference(cell, twin))
    return view


def _difference(real: CellRun, twin: CellRun) -> list[str]:
    points = [100 * (twin.report.tiers[tier].kept.deadline - real.report.tiers[tier].kept.deadline) for tier in Tier]
    overall = real.errors[0]
    return [
        f"{real.job.policy} x{real.job.load:g} seed {real.job.seed}",
        *(f"{value:+.1f}" for value in points),
        f"{real.report.harvest_tokens_per_s:,.0f}",
        f"{twin.report.harvest_tokens_per_s:,.0f}",
        f"{overall.mean:.1%}",
        f"{overall.bias:+.1%}",
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="speciate bench tiers", description=__doc__, epilog="policies: " + ", ".join(all_policies())
    )
    add = parser.add_argument
    add("--calibration", type=Path, required=True, help="what `speciate bench calibrate` wrote for this model")
    add("--rates", type=Path, help="scale requests and promises by this calibration instead")
    add("--model", default="pocket", help="a model folder, or a pocket model (default pocket)")
    add("--policies", nargs="+", default=POLICIES, choices=list(all_policies()), metavar="POLICY")
    add("--loads", type=float, nargs="+", default=(0.5, 1.0, 1.5))
    add("--ablation-load", type=float, default=1.0, help="where ours with one idea less runs (default 1)")
    add("--seeds", type=int, default=5)
    add("--seconds", type=float, default=14.0, help="of arrivals a run (default 14)")
    add("--mixes", nargs="+", default=["three tiers"], choices=["three tiers", "no real-time"])
    add(
        "--sides",
        nargs="+",
        default=(REAL, SIMULATED),
        choices=(REAL, SIMULATED),
        help="the simulated side needs no quiet machine",
    )
    add("--out", type=Path, default=Path("out/tiers"), help="what is there already is not run again")
    return parser
