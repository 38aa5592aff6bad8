"""The command end to end: drawn zones, traces, and what it refuses."""

import json
from pathlib import Path

import pytest

from speciate.cli import main


def test_drawn_zones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "out.json"
    arguments = ["simulate", "market", "--days", "9", "--work", "2", "--starts", "1", "--deadlines", "1.5"]
    assert main([*arguments, "--json", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "uniform progress" in shown
    figures = {row["policy"]: row for row in json.loads(path.read_bytes())}
    assert figures["speciate"]["met_share"] == 1.0
    assert figures["on-demand only"]["of_alone"] == pytest.approx(1.0)
    assert 1.0 <= figures["speciate"]["of_best"] <= figures["on-demand only"]["of_best"]


def test_a_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "group.csv"
    trace.write_text("0,4\n30000,4\n", encoding="ascii")
    arguments = ["simulate", "market", "--trace", str(trace), "--work", "2", "--starts", "1", "--machines", "4"]
    assert main(arguments) == 0
    assert "group x4" in capsys.readouterr().out


def test_what_does_not_fit_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "group.csv"
    trace.write_text("0,4\n3000,4\n", encoding="ascii")
    assert main(["simulate", "market", "--trace", str(trace)]) == 1
    assert "no job fits" in capsys.readouterr().err
    assert main(["simulate", "market", "--zones", "mars"]) == 1
    assert "There is no zone mars" in capsys.readouterr().err
