"""Steps run in a small set of sizes, and padding is nobody's."""

import pytest

from speciate.core.engine import SequenceStep
from speciate.core.errors import InvariantError
from speciate.engines.openvino.batch import SIZES, lay_out, sizes
from speciate.engines.openvino.blocks import BLOCK_TOKENS, SCRATCH_BLOCKS

SCRATCH = (90, 91)


def test_sizes_are_few_and_near() -> None:
    for num_rows in range(1, 5000):
        size = SIZES.padded(num_rows)
        assert num_rows <= size <= max(num_rows, min(1.25 * num_rows + 1, num_rows + SIZES.widest - 1))
        assert SIZES.padded(size) == size
    assert len(sizes(4096)) < 150
    assert sizes(20) == [*range(1, 17), 20]


def test_scratch_holds_the_most_padding() -> None:
    assert SIZES.widest - 1 <= SCRATCH_BLOCKS * BLOCK_TOKENS


def test_padding_writes_to_scratch_and_is_not_sampled() -> None:
    steps = (SequenceStep(7, tuple(range(100, 118)), 32, (3, 4), False), SequenceStep(8, (5,), 9, (6,), True))
    arrays = lay_out(steps, BLOCK_TOKENS, SCRATCH)
    inputs = arrays.inputs
    assert arrays.sampled == (8,)
    assert inputs["input_ids"].tolist() == [*range(100, 118), 5, 0]
    assert inputs["subsequence_begins"].tolist() == [0, 18, 19, 20]
    assert inputs["past_lens"].tolist() == [32, 9, 0]
    assert inputs["block_indices"].tolist() == [3, 4, 6, 90]
    assert inputs["sampled_rows"].tolist() == [18]


def test_sampled_rows_are_padded_by_the_last_of_them() -> None:
    steps = tuple(SequenceStep(i, (i,), 0, (i,), True) for i in range(18))
    arrays = lay_out(steps, BLOCK_TOKENS, SCRATCH)
    assert arrays.inputs["sampled_rows"].tolist() == [*range(18), 17, 17]
    assert arrays.sampled == tuple(range(18))


def test_a_step_of_a_known_size_is_not_padded() -> None:
    arrays = lay_out((SequenceStep(1, (1, 2, 3), 0, (0,), True),), BLOCK_TOKENS, SCRATCH)
    assert arrays.inputs["input_ids"].tolist() == [1, 2, 3]
    with pytest.raises(InvariantError, match="reaches token 33 with 1 blocks of 32"):
        lay_out((SequenceStep(1, (1, 2, 3), 30, (0,), True),), BLOCK_TOKENS, SCRATCH)
