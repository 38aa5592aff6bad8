"""`speciate simulate`: from arguments to table and JSON."""

import json
from pathlib import Path

import pytest

from speciate.cli.simulate import main
from speciate.core.errors import ConfigError


def test_a_small_run_prints_a_table_and_writes_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.json"
    arguments = "--rates 1 1 0 --backlog 5 --duration 10 --policy speciate fcfs-512 --seeds 1 2 --noise 0.05 --json"
    assert main([*arguments.split(), str(out)]) == 0
    shown = capsys.readouterr().out
    assert "speciate" in shown
    assert "fcfs-512" in shown
    reports = json.loads(out.read_bytes())
    assert [(r["policy"], r["seed"]) for r in reports] == [
        ("speciate", 1),
        ("speciate", 2),
        ("fcfs-512", 1),
        ("fcfs-512", 2),
    ]
    assert reports[0]["num_requests"] == reports[2]["num_requests"], "seeds are paired over policies"


def test_traces_set_tiers_and_load_sets_the_pace(tmp_path: Path) -> None:
    trace, out = tmp_path / "trace.csv", tmp_path / "out.json"
    trace.write_text("at_s,prompt_tokens,output_tokens\n" + "".join(f"{i},50,5\n" for i in range(10)))
    arguments = ["--trace", f"realtime={trace}", "--duration", "4.4", "--drain", "5", "--json", str(out)]
    for load, num_requests in (("1", 5), ("2", 9)):
        assert main([*arguments, "--load", load]) == 0
        assert json.loads(out.read_bytes())[0]["tiers"]["realtime"]["offered"] == num_requests


def test_promises_on_the_command_line_count(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    arguments = ["--rates", "0", "1", "0", "--duration", "5", "--json", str(out), "--interactive-slo"]
    kept = []
    for slo in (["0.0001", "0.0001"], ["10", "10"]):
        assert main([*arguments, *slo, "--no-admission"]) == 0
        kept.append(json.loads(out.read_bytes())[0]["tiers"]["interactive"]["kept"]["mean"])
    assert kept == [0.0, 1.0]


@pytest.mark.parametrize("pattern", ["poisson", "bursts", "day", "sessions"])
def test_every_pattern_draws_about_the_rate_that_was_asked_for(tmp_path: Path, pattern: str) -> None:
    out = tmp_path / "out.json"
    arguments = ["--rates", "0.5", "2", "0", "--arrivals", pattern, "--duration", "200", "--no-admission"]
    assert main([*arguments, "--json", str(out)]) == 0
    tiers = json.loads(out.read_bytes())[0]["tiers"]
    assert 60 <= tiers["realtime"]["offered"] <= 140
    assert 200 <= tiers["interactive"]["offered"] <= 600
    assert tiers["interactive"]["finished"] == tiers["interactive"]["offered"]


def test_an_unknown_policy_or_calibration_names_what_exists() -> None:
    with pytest.raises(ConfigError, match="fcfs-512"):
        main(["--policy", "magic"])
    with pytest.raises(ConfigError, match="a100-llama3-8b"):
        main(["--calibration", "nowhere.json"])
