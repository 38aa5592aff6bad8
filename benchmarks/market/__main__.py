"""What a batch job costs by policy, beside an offline optimum that knows the future: traces and drawn zones.

    python -m benchmarks.market [--quick] [--json PATH] [--plot PATH] [--offsets 6] [--families NAME ...]

Each family is a set of scenes with a job; each job starts at several moments, with deadlines of 1.2 to 4 times its
work. Costs are over what on-demand alone would pay. `over optimum` is the sum of costs over the sum of optima.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import msgspec
from rich.console import Console

from benchmarks.market.families import FAMILIES, family_scenes
from benchmarks.market.plots import save_plot
from speciate.bench.machine import describe_machine
from speciate.sim.market_compare import compare
from speciate.sim.market_report import Row, figures, table

RATIOS = (1.2, 1.5, 2.0, 3.0, 4.0)


def main() -> None:
    given = _parser().parse_args()
    console = Console(width=None if sys.stdout.isatty() else 150)
    offsets, ratios = (2, (1.2, 2.0)) if given.quick else (given.offsets, RATIOS)
    machine = describe_machine()
    rows: list[Row] = []
    began_s = time.process_time()
    for name in given.families:
        scenes = family_scenes(name, given.data, given.quick)
        for scene in scenes:
            rows += compare(name, scene, ratios, offsets, given.seed)
            console.print(f"{name}: {scene.scene.name}, CPU {time.process_time() - began_s:.0f} s", style="dim")
        if scenes:
            console.print(table([row for row in rows if row.family == name], name))
        else:
            console.print(f"{name}: skipped, {given.data} is not there")
    if given.json:
        found = [msgspec.to_builtins(figure) for figure in figures(rows)]
        facts = {"machine": machine, "cpu_s": round(time.process_time() - began_s), "offsets": offsets}
        given.json.write_text(json.dumps({**facts, "figures": found}, indent=1) + "\n", encoding="utf-8")
    if given.plot:
        save_plot(figures(rows), given.plot)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two deadlines, two starts, two scenes a family")
    parser.add_argument("--offsets", type=int, default=6, help="moments at which each job starts (default 6)")
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), choices=list(FAMILIES))
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/spot"), help="Bamboo's CSV files")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path, help="a PNG")
    return parser


if __name__ == "__main__":
    main()
