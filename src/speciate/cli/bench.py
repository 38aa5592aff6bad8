"""`speciate bench`: the demo with a server of its own, or the same load against a server that runs.

`speciate bench tiers` and `speciate bench calibrate` have modules of their own.
"""

import argparse
import asyncio
import importlib
from collections.abc import Sequence
from pathlib import Path
from urllib.error import URLError

from rich.console import Console

from speciate.bench.demo import DemoOptions, run_demo, run_load
from speciate.bench.server import get_text
from speciate.cli.parser import Parser, not_negative, positive
from speciate.config import load_settings
from speciate.core.errors import ConfigError

TRACE_FOLDERS = (Path("../shared/data"), Path("data"))
"""Where real traces are looked for when none is named."""


def main(arguments: Sequence[str]) -> int:
    """Status 0 when every request was answered or honestly refused (429); the report says how many."""
    if arguments and arguments[0] in ("tiers", "calibrate"):
        command = importlib.import_module(f"speciate.cli.bench_{arguments[0]}")
        return int(command.main(arguments[1:]))
    given = _parser().parse_args(arguments)
    _check(given)
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
        asyncio.run(_check_server(given.url))
        reports = asyncio.run(run_load(given.url, options, promises, console))
    return 0 if all(set(row.errors) <= {"RateLimitError"} and row.completed for row in reports.values()) else 1


def _parser() -> Parser:
    parser = Parser(
        prog="speciate bench", usage="speciate bench [OPTIONS]",
        description="Load a server with real documents in three tiers, open loop, and report the promises kept. "
        "Also: speciate bench tiers | calibrate (--help).",
    )  # fmt: skip
    add = parser.add_argument
    add("--url", help="a server that runs (default: start one, and stop it afterwards)")
    add("--model", default="pocket", metavar="NAME", help="model to ask for (default pocket)")
    add("--duration", type=positive, default=60.0, metavar="SECONDS", help="of arrivals (default 60)")
    add("--rates", type=not_negative, nargs=3, default=(2.0, 4.0, 2.0), metavar=("RT", "INTER", "BATCH"),
        help="requests a second by tier (default 2 4 2)")  # fmt: skip
    add("--traces", type=Path, metavar="FOLDER", help="folder with azure_llm_2023_{conv,code}.csv")
    add("--out", type=Path, default=Path("out/demo"), metavar="FOLDER", help="for the report (default out/demo)")
    add("--seed", type=int, default=7, metavar="N", help="of documents and generated arrivals (default 7)")
    add(
        "-c", "--config", type=Path, metavar="FILE", help="a speciate.yaml: promises, and the started server's settings"
    )
    return parser


def _check(given: argparse.Namespace) -> None:
    """What can be told before anything is started. Raises ConfigError."""
    if not any(given.rates):
        raise ConfigError("All rates are 0: nothing would be sent. Give --rates at least one that is above 0.")
    if given.traces is not None and not given.traces.is_dir():
        raise ConfigError(f"{given.traces} is not a folder; --traces takes the one with azure_llm_2023_conv.csv.")
    try:
        given.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"Cannot write to --out {given.out}: {error.strerror}. Choose another folder.") from error


async def _check_server(url: str) -> None:
    try:
        await get_text(f"{url.rstrip('/')}/ready")
    except (OSError, ValueError) as error:
        why = error.reason if isinstance(error, URLError) else error
        raise ConfigError(f"No server is ready at {url}: {why}. Start one with speciate serve.") from error


def _find_traces() -> Path | None:
    return next((folder for folder in TRACE_FOLDERS if folder.is_dir()), None)
