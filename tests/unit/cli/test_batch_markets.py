"""What `speciate batch estimate` and `status` say, from answers of the server."""

import time
from typing import Any

import msgspec
import pytest

from speciate.api.batch_outlook import outlook_answer, way_answer
from speciate.batch.holding import JobOutlook
from speciate.cli.batch_markets import outlook_text, print_estimate
from speciate.scaling.runs import MarketHistory
from speciate.scaling.spec import parse_markets, scheduled
from speciate.scaling.waiting import Stance
from speciate.scaling.ways import RENTED, LocalWork, ways

HOUR_S = 3600.0
NOON_S = time.mktime((2026, 11, 25, 12, 0, 0, 0, 0, 0))
MARKETS = {
    "here": {"hourly": [{"hour": 6, "value": 0.3}, {"hour": 22, "value": 0.1}], "power_kw": 0.5, "gco2_per_kwh": 400.0},
    "offers": [{"name": "big", "kind": "on_demand", "usd_per_h": 2.0, "speed": 4.0}],
    "max_machines": 2,
    "utc_offset_h": -time.timezone / HOUR_S,
}


def _answer(work_h: float, tree: Any, **more: Any) -> dict[str, Any]:
    spec = parse_markets(tree)
    work = LocalWork(work_h * HOUR_S, HOUR_S, NOON_S + 24 * HOUR_S, NOON_S, 0.9)
    told = [way_answer(way) for way in ways(spec, scheduled(spec), work, MarketHistory(), 4)]
    return {
        "num_lines": 14_400, "lines_per_second": 14_400 / (work_h * HOUR_S), "is_measured": True, "is_feasible": True,
        "ahead_seconds": HOUR_S, "deadline_at": int(NOON_S + 24 * HOUR_S), "usd_per_hour_here": 0.3,
        "ways": msgspec.to_builtins(told), **more,
    }  # fmt: skip


def test_ways_side_by_side_and_their_course(capsys: pytest.CaptureFixture[str]) -> None:
    print_estimate(_answer(4, MARKETS), "24h")
    text = capsys.readouterr().out
    assert "14,400 lines at 1 lines/s (seen): 4.0 h of work here, after 60 min of earlier deadlines." in text
    assert "fits." in text
    assert "here, when it is cheap *" in text
    assert " 1.20 " in text
    assert "0.400" in text
    assert "waits" in text
    assert "runs here, 0.500 USD (the cheapest way on)" in text
    assert "kg CO2" in text
    assert "Renting needs a fleet" in text


def test_too_much_for_this_machine_is_rented_in_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    print_estimate(_answer(80, MARKETS, is_feasible=False, earliest_window="PT90H"), "24h")
    text = capsys.readouterr().out
    assert "does not fit; the earliest that does is PT90H" in text
    assert "on-demand alone" in text
    assert "rents big" in text
    assert "not sure" in text


def test_what_nobody_knows_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    print_estimate(_answer(1, {}, usd_per_hour_here=None), "24h")
    assert "markets.here.usd_per_h" in capsys.readouterr().out
    print_estimate(_answer(1, {}, lines_per_second=None, ways=[]), "24h")
    assert "any window would be accepted" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("stance", "said"),
    [
        (None, "its pace is not known yet"),
        (Stance("1", False, "cheapest", 4 * HOUR_S, NOON_S), "Waits for cheaper hours of this machine"),
        (Stance("1", True, "flat", 4 * HOUR_S), "no hour before its deadline is cheaper; 4.0 h of slack"),
        (Stance("1", True, "wall", 60.0), "its slack ran out; 60 s of slack"),
        (Stance("1", True, "before", 60.0), "later jobs need the time"),
    ],
)
def test_an_outlook_in_a_sentence(stance: Stance | None, said: str) -> None:
    found = outlook_answer(JobOutlook(NOON_S, stance, None))
    assert said in outlook_text(msgspec.to_builtins(found))


def test_what_a_fleet_would_rent_and_that_there_is_none() -> None:
    spec = parse_markets(MARKETS)
    work = LocalWork(80 * HOUR_S, 0.0, NOON_S + 24 * HOUR_S, NOON_S, 0.9)
    rented = next(way for way in ways(spec, scheduled(spec), work, MarketHistory(), 4) if way.name == RENTED)
    found = outlook_answer(JobOutlook(NOON_S, Stance("1", True, "wall", 0.0), rented))
    text = outlook_text(msgspec.to_builtins(found))
    assert "A fleet would start" in text
    assert "x big at " in text
    assert text.endswith("no fleet is configured.")
