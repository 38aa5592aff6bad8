"""Lays a StepPlan out as the flat arrays that paged attention reads. numpy only; decides nothing.

sequences    A: 3 tokens at 5      B: 1 token at 9      padding, if the count of tokens asks for it
input_ids    a5 a6 a7              b9                   0 0
begins       0                     3                    4      6
past_lens    5                     9                    0

The runtime makes kernels for every number of rows that it meets: 15 ms and a megabyte each, once a shape. So steps are
padded to a small set of sizes (docs/decisions/0016), by a sequence of nobody's that writes to scratch blocks.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, chain

import numpy as np
from msgspec import Struct

from speciate.core.engine import SequenceStep, StepSizes
from speciate.core.errors import InvariantError
from speciate.engines.openvino.checkpoint import Array

PADDING = -1
"""The sequence id of padding."""
SIZES = StepSizes(exact=16, grains=((64, 4), (128, 8), (512, 16), (2048, 32)), widest=64)
"""At most a quarter padding, 1 to 4 % on average above 64."""


class StepArrays(Struct, frozen=True):
    """Model inputs by name, and the sequences that are sampled, in the order of the logits' first rows."""

    inputs: dict[str, Array]
    sampled: tuple[int, ...]


def sizes(most_rows: int) -> list[int]:
    """All sizes up to that of `most_rows`."""
    return sorted({SIZES.padded(num_rows) for num_rows in range(1, most_rows + 1)})


def lay_out(
    sequences: Sequence[SequenceStep],
    block_tokens: int,
    scratch_blocks: tuple[int, ...],
    adapter_of: Mapping[int, int] | None = None,
) -> StepArrays:
    """`scratch_blocks` hold `SIZES.widest` tokens that nobody reads. `adapter_of` maps sequences to adapter numbers, 0
    for none; None for a model without adapters. Raises InvariantError when a block table is too short."""
    num_tokens = sum(len(s.tokens) for s in sequences)
    sampled = tuple(s.seq_id for s in sequences if s.samples)
    if num_padding := SIZES.padded(num_tokens) - num_tokens:
        sequences = (*sequences, SequenceStep(PADDING, (0,) * num_padding, 0, scratch_blocks, False))
    tables = [_table(sequence, block_tokens) for sequence in sequences]
    begins = _begins(sequence.tokens for sequence in sequences)
    inputs = {
        "input_ids": np.fromiter(chain.from_iterable(s.tokens for s in sequences), np.int64),
        "position_ids": np.concatenate(
            [np.arange(s.start, s.start + len(s.tokens), dtype=np.int64) for s in sequences]
        ),
        "past_lens": np.array([s.start for s in sequences], np.int32),
        "subsequence_begins": np.array(begins, np.int32),
        "block_indices": np.fromiter(chain.from_iterable(tables), np.int32),
        "block_indices_begins": np.array(_begins(tables), np.int32),
        "max_context_len": np.array(max(s.start + len(s.tokens) for s in sequences), np.int32),
        "sampled_rows": _sampled_rows([end - 1 for s, end in zip(sequences, begins[1:], strict=True) if s.samples]),
    }
    if adapter_of is not None:
        numbers = [adapter_of.get(s.seq_id, 0) for s in sequences]
        inputs["adapter_ids"] = np.repeat(np.array(numbers, np.int32), [len(s.tokens) for s in sequences])
    return StepArrays(inputs, sampled)


def _sampled_rows(rows: list[int]) -> Array:
    """Padded too: the output head is the largest matrix. What is more than asked for repeats the last."""
    return np.array([*rows, *rows[-1:] * (SIZES.padded(len(rows)) - len(rows))], np.int32)


def _table(sequence: SequenceStep, block_tokens: int) -> tuple[int, ...]:
    """The blocks that the sequence's tokens reach after this step."""
    length = sequence.start + len(sequence.tokens)
    num_blocks = -(-length // block_tokens)
    if num_blocks > len(sequence.block_ids):
        raise InvariantError(
            f"sequence {sequence.seq_id} reaches token {length} with {len(sequence.block_ids)} blocks of {block_tokens}"
        )
    return sequence.block_ids[:num_blocks]


def _begins(rows: Iterable[Sequence[int]]) -> list[int]:
    """Where each row starts when all are laid end to end, and where the last one ends."""
    return list(accumulate((len(row) for row in rows), initial=0))
