"""The written-out algebra against numpy's."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from speciate.scheduling.least_squares import NOTHING, remember, solve

ROWS = st.lists(st.tuples(*[st.floats(0.0, 3.0)] * 5), min_size=1, max_size=12)
RIDGES = st.tuples(*[st.floats(1e-4, 10.0)] * 5)


@settings(max_examples=200, deadline=None)
@given(rows=ROWS, ridge=RIDGES)
def test_it_solves_what_numpy_solves(
    rows: list[tuple[float, float, float, float, float]], ridge: tuple[float, float, float, float, float]
) -> None:
    information, matrix = NOTHING, np.zeros((5, 5))
    for row in rows:
        information = remember(information, row, 0.995)
        matrix = 0.995 * matrix + np.outer(row, row)
    expected = np.linalg.solve(matrix + np.diag(ridge), np.array(rows[-1]))
    np.testing.assert_allclose(solve(information, ridge, rows[-1]), expected, rtol=1e-6, atol=1e-9)
