"""Windows: what they are called, how long they are, what can be kept."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speciate.batch.windows import offered_window, parse_window
from speciate.core.errors import InvalidRequest


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("24h", 86_400), ("2h", 7200), ("90m", 5400), ("3d", 259_200), ("PT24H", 86_400), ("P1DT12H", 129_600),
     ("P2W", 1_209_600), ("PT1.5H", 5400), ("PT90M", 5400), ("PT120S", 120)],
)  # fmt: skip
def test_windows_are_read(text: str, seconds: float) -> None:
    assert parse_window(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "P", "PT", "24", "h", "24 h", "-2h", "P1Y", "P1M", "PT1H1D", "soon", "1s", "PT59S", "P999D", "99999h"]
)
def test_what_is_no_window_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_window(text)


@given(st.floats(0.0, 2.5e7))
def test_an_offered_window_can_be_asked_for_and_is_longer(earliest_s: float) -> None:
    assert parse_window(offered_window(earliest_s)) >= earliest_s
