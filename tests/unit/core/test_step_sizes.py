"""Sizes that an engine computes at once: padding goes to the next, filling stops at the last."""

import pytest

from speciate.core.engine import EVERY_SIZE, StepSizes
from speciate.engines.openvino.batch import SIZES


@pytest.mark.parametrize("sizes", [EVERY_SIZE, SIZES, StepSizes(widest=8)])
def test_padded_is_the_least_size_that_holds_and_filled_the_largest_that_is_held(sizes: StepSizes) -> None:
    found = sorted({sizes.padded(num) for num in range(1, 6000)})
    for num in range(1, 5000):
        assert sizes.padded(num) == next(size for size in found if size >= num)
        assert sizes.filled(num) == max((size for size in found if size <= num), default=0)


def test_without_sizes_nothing_is_padded() -> None:
    assert EVERY_SIZE.padded(4321) == EVERY_SIZE.filled(4321) == 4321
