"""`speciate simulate market`: what a batch job costs on spot by policy, beside an optimum that knows the future."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.console import Console

from speciate.core.errors import ConfigError
from speciate.sim.market_compare import Comparison, compare
from speciate.sim.market_report import figures, table
from speciate.sim.market_traces import PUBLISHED_ZONES, drawn_scene, traced_scene

WIDTH = 150
"""Of the table where no terminal says how wide it is."""


def main(arguments: Sequence[str]) -> int:
    """Status 0 when every policy but spot alone met every deadline."""
    given = _parser().parse_args(arguments)
    rows = [
        row
        for made in _comparisons(given)
        for row in compare(made.scene.name, made, tuple(given.deadlines), given.starts, given.seed)
    ]
    if not rows:
        raise ConfigError("no job fits: the traces are shorter than the deadlines; give less --work or more --days")
    if given.json is not None:
        given.json.write_bytes(msgspec.json.format(msgspec.json.encode(figures(rows)), indent=2))
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    for scene in dict.fromkeys(row.scene for row in rows):
        console.print(table([row for row in rows if row.scene == scene], scene))
    return 0 if all(row.is_met for row in rows if row.policy.startswith("speciate")) else 1


def _comparisons(given: argparse.Namespace) -> list[Comparison]:
    work_s = given.work * 3600.0
    if given.trace:
        return [Comparison(traced_scene(path, given.machines), work_s, learn_days=0.0) for path in given.trace]
    zones = [zone for zone in PUBLISHED_ZONES if zone.name in given.zones]
    unknown = set(given.zones) - {zone.name for zone in zones}
    if unknown:
        known = ", ".join(zone.name for zone in PUBLISHED_ZONES)
        raise ConfigError(f"There is no zone {', '.join(sorted(unknown))}. Known: {known}.")
    return [Comparison(drawn_scene(zones, given.days, given.seed, name=", ".join(given.zones)), work_s)]


def _positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def _ratio(text: str) -> float:
    value = float(text)
    if not value > 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 1: a deadline needs room for a machine's start")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="speciate simulate market", description=__doc__)
    add = parser.add_argument
    add("--trace", type=Path, nargs="+", default=[], metavar="FILE", help="`time,instances` CSV files, one zone each")
    add(
        "--machines", type=int, default=1, help="a traced zone is up while its group holds at least so many (default 1)"
    )
    add("--zones", nargs="+", default=["us-east-2b"], metavar="NAME", help="drawn zones instead (default us-east-2b)")
    add("--days", type=_positive, default=20.0, help="of drawn zones; jobs start after the seventh (default 20)")
    add("--work", type=_positive, default=4.0, metavar="HOURS", help="on one on-demand machine (default 4)")
    add("--deadlines", type=_ratio, nargs="+", default=[1.2, 2.0], help="times the work (default 1.2 2)")
    add("--starts", type=int, default=4, help="moments at which the job starts (default 4)")
    add("--seed", type=int, default=1)
    add("--json", type=Path, help="also write the figures here")
    return parser
