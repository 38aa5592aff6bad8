"""Seconds of a pass: measured where measured, between by interpolation, beyond by physics."""

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.core.denoise import Stage
from speciate.core.errors import ConfigError
from speciate.costs.pass_table import PassCost, PassTable, load_pass_table

CELLS = tuple(
    PassCost("ink", Stage.PASS, tokens, rows, seconds)
    for tokens, rows, seconds in ((256, 1, 0.1), (256, 4, 0.16), (1024, 1, 0.4), (1024, 4, 1.5))
)
TABLE = PassTable("test", (*CELLS, PassCost("ink", Stage.ENCODE, 0, 1, 0.02)))


def seconds(tokens: int, rows: int, stage: Stage = Stage.PASS, model: str = "ink") -> tuple[float, str]:
    found = TABLE.curves().estimate(model, stage, tokens, rows)
    return round(found.seconds, 6), found.source


def test_cells_are_what_was_measured() -> None:
    for cell in CELLS:
        assert seconds(cell.num_tokens, cell.num_rows) == (cell.seconds, "measured")


def test_between_rows_it_is_a_line_and_between_sizes_a_power() -> None:
    assert seconds(256, 2) == (0.12, "interpolated")
    assert seconds(512, 1) == (0.2, "interpolated")


def test_beyond_it_is_in_proportion_or_the_measured_power() -> None:
    assert seconds(256, 8) == (0.32, "extrapolated")
    assert seconds(4096, 1) == (1.6, "extrapolated")
    assert seconds(128, 1) == (0.05, "extrapolated")


def test_encoding_does_not_depend_on_size() -> None:
    assert seconds(0, 1, Stage.ENCODE) == (0.02, "measured")
    assert seconds(0, 2, Stage.ENCODE) == (0.04, "extrapolated")


def test_an_unknown_model_costs_in_proportion() -> None:
    one, source = seconds(1024, 1, model="oil")
    assert source == "unknown"
    assert seconds(2048, 2, model="oil")[0] == pytest.approx(4 * one)


@given(st.integers(1, 9000), st.integers(1, 64))
def test_more_rows_never_take_less_time(tokens: int, rows: int) -> None:
    assert 0 < seconds(tokens, rows)[0] <= seconds(tokens, rows + 1)[0]


@given(st.integers(1, 9000), st.integers(1, 64))
def test_more_tokens_never_take_less_time(tokens: int, rows: int) -> None:
    assert seconds(tokens, rows)[0] <= seconds(tokens + 1, rows)[0]


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    path.write_bytes(msgspec.json.encode(TABLE))
    assert load_pass_table(path) == TABLE
    path.write_text('{"hardware": "x"}')
    with pytest.raises(ConfigError, match="cells"):
        load_pass_table(path)
    with pytest.raises(ConfigError, match="Check the path"):
        load_pass_table(tmp_path / "none.json")
