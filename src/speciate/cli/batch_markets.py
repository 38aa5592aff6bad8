"""What the market decisions say of a batch, for the terminal: ways to do it in a table, its outlook in a sentence."""

import sys
import time
from typing import Any

from rich.console import Console
from rich.table import Table

WIDTH = 100
"""Where no terminal says how wide it is."""
DAY_S = 86_400.0
WHY = {
    "wall": "no slack is left to wait for anything cheaper",
    "cheapest": "the cheapest way on",
    "stay": "a change would not pay",
    "done": "the work is done",
}


def print_estimate(found: dict[str, Any], window: str) -> None:
    """Pace and verdict, then the ways side by side, then the course of what can be chosen."""
    console = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False)
    console.print(_verdict(found, window))
    if not found["ways"]:
        return
    console.print(_table(found))
    for way in found["ways"]:
        if len(way["stretches"]) > 1:
            console.print(f"[bold]{way['name']}[/bold]: what happens when")
            for stretch in way["stretches"]:
                console.print(_told(stretch, "idle steps here" if way["num_machines"] else "waits"))
    for note in _notes(found):
        console.print(note, style="dim")


def outlook_text(outlook: dict[str, Any]) -> str:
    """What this server does with the job, and what a fleet would do."""
    return " ".join(part for part in (_here(outlook), _rented(outlook["rented"])) if part)


def _verdict(found: dict[str, Any], window: str) -> str:
    lines = f"{found['num_lines']:,} lines"
    if found["lines_per_second"] is None:
        return f"{lines}; nothing is known of the pace yet, any window would be accepted"
    how = "seen" if found["is_measured"] else "predicted"
    work_s = found["num_lines"] / found["lines_per_second"]
    ahead = f", after {_span(found['ahead_seconds'])} of earlier deadlines" if found["ahead_seconds"] > 0 else ""
    verdict = "fits" if found["is_feasible"] else f"does not fit; the earliest that does is {found['earliest_window']}"
    return (
        f"{lines} at {found['lines_per_second']:.3g} lines/s ({how}): {_span(work_s)} of work here{ahead}.\n"
        f"The window {window} (to {_clock(found['deadline_at'])}) {verdict}."
    )


def _table(found: dict[str, Any]) -> Table:
    has_carbon = any(way["co2_kg"] > 0 for way in found["ways"])
    table = Table("way", header_style="bold")
    for name in ("USD", "p10 to p90", "ends", "p10 to p90", "in time"):
        table.add_column(name, justify="right")
    if has_carbon:
        table.add_column("kg CO2", justify="right")
    for way in found["ways"]:
        cells = [_name(way), *_money(way, found), *_ends(way["ends_at"]), "yes" if way["is_in_time"] else "not sure"]
        table.add_row(*cells, *([f"{way['co2_kg']:.2f}"] if has_carbon else []))
    return table


def _name(way: dict[str, Any]) -> str:
    mark = " *" if way["is_done_here"] else ""
    return f"{way['name']}{mark}" + (f" ({way['num_machines']} machines)" if way["num_machines"] > 1 else "")


def _money(way: dict[str, Any], found: dict[str, Any]) -> tuple[str, str]:
    cost = way["cost_usd"]
    if found["usd_per_hour_here"] is None and cost["p90"] == 0:
        return "-", ""
    return _usd(cost["p50"]), "" if cost["p10"] == cost["p90"] else f"{_usd(cost['p10'])} to {_usd(cost['p90'])}"


def _ends(ends: dict[str, float]) -> tuple[str, str]:
    spread = "" if ends["p90"] - ends["p10"] < 60 else f"{_clock(ends['p10'])} to {_clock(ends['p90'])}"
    return _clock(ends["p50"]), spread


def _told(stretch: dict[str, Any], waiting: str) -> str:
    market = stretch["market"]
    what = waiting if market is None else "runs here" if market == "here" else f"rents {market}"
    usd = f", {_usd(stretch['usd'])} USD" if stretch["usd"] else ""
    return f"  {_clock(stretch['from_at'])} to {_clock(stretch['to_at'])}  {what}{usd} ({WHY[stretch['rule']]})"


def _notes(found: dict[str, Any]) -> list[str]:
    notes = ["* what this server does"]
    if found["usd_per_hour_here"] is None:
        notes.append("What this machine costs is not known (markets.here.usd_per_h): it counts as nothing.")
    if any(way["num_machines"] for way in found["ways"]):
        notes.append("Renting needs a fleet, and none is configured: those rows are for comparison.")
    return notes


def _here(outlook: dict[str, Any]) -> str:
    if outlook["rule"] is None:
        return "Runs here: its pace is not known yet."
    slack = f"{_span(outlook['slack_seconds'])} of slack"
    if not outlook["may_run"]:
        when = f", the next from {_clock(outlook['cheaper_at'])}" if outlook["cheaper_at"] is not None else ""
        return f"Waits for cheaper hours of this machine{when}; {slack}."
    why = {
        "flat": "no hour before its deadline is cheaper",
        "wall": "its slack ran out",
        "before": "later jobs need the time after it",
    }.get(outlook["rule"], "these hours are the cheapest that do")
    return f"Runs here: {why}; {slack}."


def _rented(rented: dict[str, Any] | None) -> str:
    if rented is None:
        return ""
    if rented["market"] is None:
        return "Renting would not make it cheaper."
    return (
        f"A fleet would start {rented['num_machines']} x {rented['market']} at {_clock(rented['starts_at'])} and "
        f"be done by {_clock(rented['ends_at'])} for {_usd(rented['cost_usd'])} USD; no fleet is configured."
    )


def _clock(at_s: float) -> str:
    """The day only where it is not today's."""
    then = time.localtime(at_s)
    return time.strftime("%H:%M" if then[:3] == time.localtime()[:3] else "%b %d %H:%M", then)


def _span(seconds: float) -> str:
    if seconds < 0:
        return f"-{_span(-seconds)}"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _usd(value: float) -> str:
    return f"{value:.2f}" if value >= 0.995 else f"{value:.3f}" if value >= 0.01 else f"{value:.2g}"
