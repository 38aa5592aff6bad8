from pathlib import Path

import pytest

from speciate.cli import main
from speciate.config import load_settings, parse_settings, settings_schema
from speciate.core.errors import ConfigError
from speciate.core.segment import Slo, Tier


def test_defaults_promise_something_in_every_tier() -> None:
    segments = load_settings(None).segment_table()
    assert segments[Tier.REALTIME].slo.ttft_s == 0.1
    assert not segments[Tier.REALTIME].preemptible
    assert set(segments) == set(Tier)


@pytest.mark.parametrize(
    ("tree", "says"),
    [
        ({"servr": {}}, r"unknown key 'servr' in the top level\. Did you mean 'server'\?"),
        ({"server": {"prot": 1}}, r"unknown key 'prot' in server\. Did you mean 'port'\?"),
        ({"models": [{"name": "a", "wieghts": "int8"}]}, r"unknown key 'wieghts' in models\[0\].*'weights'"),
        ({"models": [{"name": "a", "adapters": [{"nmae": "x"}]}]}, r"'nmae' in models\[0\]\.adapters\[0\].*'name'"),
        ({"segments": {"batch": {"e2e": 1}}}, r"unknown key 'e2e' in segments\.batch.*'e2e_s'"),
        ({"scheduler": {"zzz": 1}}, r"unknown key 'zzz' in scheduler\. Known keys: prior, "),
        ({"server": {"port": "x"}}, r"Expected `int`, got `str` - at `\$\.server\.port`"),
        ({"segments": {"slow": {}}}, r"Invalid enum value 'slow'"),
        ({"models": [{"name": "a", "weights": "int3"}]}, r"Invalid enum value 'int3'"),
        ({"models": []}, "no models"),
        ({"models": [{"name": "a", "aliases": ["a"]}]}, "'a' is used 2 times"),
        ([], "Expected `object`"),
    ],
)
def test_wrong_settings_say_where_and_what(tree: object, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_settings(tree, "speciate.yaml")


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_settings(tmp_path / "none.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("server: [")
    with pytest.raises(ConfigError, match="is not YAML"):
        load_settings(broken)


def test_schema_describes_every_section() -> None:
    assert {"Settings", "ServerSettings", "ModelSettings"} <= set(settings_schema()["$defs"])


def test_command_line_reports_errors_without_a_trace(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["config", str(tmp_path / "none.yaml")]) == 1
    assert "Cannot read settings" in capsys.readouterr().err
    assert main(["config"]) == 0
    assert "ttft_s: 0.1" in capsys.readouterr().out
    assert main(["models", str(tmp_path)]) == 1
    assert "config.json" in capsys.readouterr().err


def test_a_model_may_promise_what_the_server_does_not() -> None:
    tree = {
        "models": [{"name": "big", "default_tier": "batch", "segments": {"realtime": {"ttft_s": 0.4, "tpot_s": 0.2}}},
                   {"name": "small"}],
        "segments": {"interactive": {"ttft_s": 2.0}},
    }  # fmt: skip
    settings = parse_settings(tree, "test")
    big, small = settings.models
    assert settings.model_segments(big)[Tier.REALTIME].slo == Slo(ttft_s=0.4, tpot_s=0.2)
    assert settings.model_segments(small)[Tier.REALTIME].slo.ttft_s == 0.1
    assert settings.model_segments(big)[Tier.INTERACTIVE].slo.ttft_s == 2.0
    assert settings.model_segments(big)[Tier.BATCH] == settings.model_segments(small)[Tier.BATCH]
    assert (big.default_tier, small.default_tier) == (Tier.BATCH, Tier.INTERACTIVE)


def test_a_typing_error_in_a_models_promise_names_its_place() -> None:
    tree = {"models": [{"name": "m", "segments": {"realtime": {"ttft": 0.4}}}]}
    with pytest.raises(ConfigError, match=r"'ttft' in models\[0\]\.segments\.realtime\. Did you mean 'ttft_s'"):
        parse_settings(tree, "test")
