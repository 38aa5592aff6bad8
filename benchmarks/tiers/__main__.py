"""Three tiers on one device: ours against what people use. Simulated side; step times from published A100 coefficients.

    python -m benchmarks.tiers --from out/tiers/tiers.json --side real --plot tiers.png
    python -m benchmarks.tiers [--quick] [--json PATH] [--plot PATH] [--minutes 2] [--seeds 5] [--families NAME ...]
    python -m benchmarks.tiers.capacity      # the largest load that each policy carries
    python -m benchmarks.tiers.promises      # batch share by what is promised

Open loop, offered denominators, seeds paired over policies: each policy sees the same requests. A family is a policy
with its knobs; each knob runs, and the family is reported at its best one. Load multiplies the online arrivals;
the batch backlog never runs dry, so batch is judged by what it harvests beside the promises.
"""

import argparse
import json
import platform
import time
from pathlib import Path

from msgspec import convert, to_builtins
from rich.console import Console

from benchmarks.tiers.plots import save_plots
from benchmarks.tiers.runs import MIXES, run_job
from speciate.bench.cells import Cell, Job, best_cells, capacity_table, cells_of, load_table
from speciate.bench.families import ABLATIONS, FAMILIES

LOADS = (0.25, 0.5, 0.75, 1.0, 1.5)


def main() -> None:
    given = _parse()
    console = Console(width=150)
    began_s = time.time()
    if given.from_json:
        save_plots(convert(json.loads(given.from_json.read_text())[given.side], list[Cell]), given.plot)
        return
    cells = [cell for mix in given.mixes for cell in _run(given, mix, console)]
    for mix in given.mixes:
        of_mix = [cell for cell in cells if cell.mix == mix]
        console.print(capacity_table(best_cells(of_mix), f"{mix}: each family at its best knob"))
        for load in given.loads:
            console.print(load_table(of_mix, load, f"{mix}: load x{load:g}, every knob"))
    console.print(f"{time.time() - began_s:.0f} s")
    if given.json:
        facts = {"python": platform.python_version(), "machine": platform.machine(), "seeds": list(_seeds(given))}
        rows = [to_builtins(cell) for cell in cells]
        given.json.write_text(json.dumps({**facts, "minutes": given.minutes, "cells": rows}, indent=1) + "\n")
    if given.plot:
        save_plots(cells, given.plot)


def _run(given: argparse.Namespace, mix: str, console: Console) -> list[Cell]:
    families = {name: FAMILIES[name] for name in given.families} | ({} if given.no_ablations else ABLATIONS)
    reports = []
    for family, policies in families.items():
        for policy in policies:
            for load in given.loads:
                jobs = [Job(mix, policy, load, 60 * given.minutes, seed) for seed in _seeds(given)]
                reports += [(family, job, run_job(job)) for job in jobs]
            console.print(f"{mix} {policy}: done", style="dim")
    return cells_of(reports)


def _seeds(given: argparse.Namespace) -> range:
    return range(given.first_seed, given.first_seed + given.seeds)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one load, two seeds, half a minute, few knobs")
    parser.add_argument("--minutes", type=float, default=2.0, help="of arrivals a run (default 2)")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=21, help="1 to 3 and 11 to 13 were used while choosing")
    parser.add_argument("--loads", type=float, nargs="+", default=LOADS)
    parser.add_argument("--mixes", nargs="+", default=["three tiers", "no real-time"], choices=list(MIXES))
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), choices=list(FAMILIES))
    parser.add_argument("--no-ablations", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--from", dest="from_json", type=Path, help="only draw --plot, from such a file (--side)")
    parser.add_argument("--side", default="cells", help="cells, or real or simulated of `speciate bench tiers`")
    parser.add_argument("--plot", type=Path, help="a PNG")
    return parser


def _parse() -> argparse.Namespace:
    """`--quick` sets other defaults; what is given beside it still counts."""
    parser = _parser()
    if parser.parse_known_args()[0].quick:
        parser.set_defaults(minutes=0.5, seeds=2, loads=(1.0,), mixes=["three tiers"])
    return parser.parse_args()


if __name__ == "__main__":
    main()
