"""Image traffic of the long tail on four devices: who is done in time by policy, and what was loaded for it.

    python -m benchmarks.longtail [--quick] [--json PATH] [--plot PATH] [--requests 4000] [--compressions 4 8 16 24]

Traffic is drawn with the statistics of a production trace (see `speciate.sim.longtail_trace`), its time compressed so
that the same requests are an ever higher load. Everything is simulated; figures are equal for equal seeds.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct
from rich.console import Console
from rich.table import Table

from benchmarks.longtail.plots import save_plot
from speciate.bench.machine import describe_machine
from speciate.sim.longtail import POLICIES, TailReport, TailSetting, replay
from speciate.sim.longtail_trace import TailOptions, draw_tail


class Scene(Struct, frozen=True):
    """One load on one kind of machine."""

    compression: float
    slots: int
    regime: str
    seed: int = 0


class Row(Struct, frozen=True):
    """A policy in a scene."""

    scene: Scene
    report: TailReport


def main() -> None:
    given = _parser().parse_args()
    console = Console(width=None if sys.stdout.isatty() else 150)
    began_s = time.process_time()
    rows: list[Row] = []
    for scene in _scenes(given):
        requests = list(draw_tail(TailOptions(given.requests, scene.compression, seed=scene.seed)))
        setting = TailSetting(slots=scene.slots, regime=scene.regime, seed=scene.seed)
        rows += [Row(scene, replay(policy, requests, setting)) for policy in POLICIES]
        console.print(_table(scene, [row.report for row in rows if row.scene is scene]))
        if given.json:
            facts = {"machine": describe_machine(), "cpu_s": round(time.process_time() - began_s)}
            found = [msgspec.to_builtins(row) for row in rows]
            given.json.write_text(json.dumps({**facts, "rows": found}, indent=1) + "\n", encoding="utf-8")
    if given.plot:
        save_plot([msgspec.to_builtins(row) for row in rows], given.plot)


def _scenes(given: argparse.Namespace) -> Iterator[Scene]:
    for seed in range(given.seeds):
        for slots in given.slots:
            for compression in given.compressions:
                yield Scene(compression, slots, "512", seed)
    yield Scene(given.compressions[-1], given.slots[0], "1024")


def _table(scene: Scene, reports: list[TailReport]) -> Table:
    title = f"{scene.slots} bases a device, {scene.compression:g} times as fast, gains at {scene.regime} px"
    view = Table(title=f"{title}, seed {scene.seed}")
    for name in (
        "policy",
        "in 60 s",
        "of first-come",
        "mean s",
        "p95 s",
        "loads/request",
        "hits",
        "order",
        "oracle",
        "LRU",
    ):
        view.add_column(name, justify="left" if name == "policy" else "right")
    first = reports[0]
    for report in reports:
        view.add_row(
            report.policy,
            f"{report.within:.1%}",
            f"{report.within / first.within:.2f}",
            f"{report.mean_s:.1f}",
            f"{report.p95_s:.1f}",
            f"{report.num_loads / report.num_requests:.2f}",
            f"{report.hits:.3f}",
            f"{report.order_hits:.3f}",
            f"{report.oracle_hits:.3f}",
            f"{report.lru_hits:.3f}",
        )
    return view


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    quick = "--quick" in sys.argv
    parser.add_argument("--quick", action="store_true", help="600 requests, one load, one kind of machine")
    parser.add_argument("--requests", type=int, default=600 if quick else 4000)
    parser.add_argument("--compressions", type=float, nargs="+", default=[16.0] if quick else [4.0, 8.0, 16.0, 24.0])
    parser.add_argument("--slots", type=int, nargs="+", default=[1] if quick else [1, 3])
    parser.add_argument("--seeds", type=int, default=1, help="how many traces are drawn (default 1)")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path, help="a PNG")
    return parser


if __name__ == "__main__":
    main()
