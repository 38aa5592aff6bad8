"""`speciate bench`: the demo with a server of its own, or the same load against a server that runs.

`speciate bench tiers` and `speciate bench calibrate` have modules of their own.
"""

import argparse
import asyncio
import importlib
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from speciate.bench.demo import DemoOptions, run_demo, run_load
from speciate.config import load_settings

TRACE_FOLDERS = (Path("../shared/data"), Path("data"))
"""Where real traces are looked for when none is named."""


def main(arguments: Sequence[str]) -> int:
    """Status 0 when every request was answered or honestly refused (429); the report says how many."""
    if arguments and arguments[0] in ("tiers", "calibrate"):
        command = importlib.import_module(f"speciate.cli.bench_{arguments[0]}")
        return int(command.main(arguments[1:]))
    given = _parser().parse_args(arguments)
    options = DemoOptions(
        out=given.out,
        duration_s=given.duration,
        seed=given.seed,
        model=given.model,
        trace_folder=given.traces or _find_traces(),
        realtime_per_s=given.rates[0],
        interactive_per_s=given.rates[1],
        batch_per_s=given.rates[2],
        server_flags=("--config", str(given.config)) if given.config else (),
    )
    segments = load_settings(given.config).segment_table()
    promises = {tier: segment.slo for tier, segment in segments.items()}
    console = Console()
    if given.url is None:
        reports = asyncio.run(run_demo(options, promises, console))
    else:
        reports = asyncio.run(run_load(given.url, options, promises, console))
    return 0 if all(set(row.errors) <= {"RateLimitError"} and row.completed for row in reports.values()) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="speciate bench",
        description="Load a server and report promises kept. Also: speciate bench tiers | calibrate (--help).",
    )
    parser.add_argument("--url", help="a server that runs (http://host:port); without it one is started and stopped")
    parser.add_argument("--model", default="pocket", help="model name to ask for (default pocket)")
    parser.add_argument("--duration", type=float, default=60.0, help="seconds of arrivals (default 60)")
    parser.add_argument("--rates", type=float, nargs=3, default=(2.0, 4.0, 2.0), metavar=("RT", "INTER", "BATCH"),
                        help="requests a second by tier (default 2 4 2)")  # fmt: skip
    parser.add_argument("--traces", type=Path, help="folder with azure_llm_2023_{conv,code}.csv")
    parser.add_argument("--out", type=Path, default=Path("out/demo"), help="folder for the report (default out/demo)")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument(
        "-c", "--config", type=Path, help="a speciate.yaml: promises, and the started server's settings"
    )
    return parser


def _find_traces() -> Path | None:
    return next((folder for folder in TRACE_FOLDERS if folder.is_dir()), None)
