"""Lays a StepPlan out as the flat arrays that paged attention reads. numpy only; decides nothing.

sequences    A: 3 tokens at 5      B: 1 token at 9
input_ids    a5 a6 a7              b9
begins       0                     3              4
past_lens    5                     9
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, chain

import numpy as np
from msgspec import Struct

from speciate.core.engine import SequenceStep
from speciate.core.errors import InvariantError
from speciate.engines.openvino.checkpoint import Array


class StepArrays(Struct, frozen=True):
    """Model inputs by name, and the sequences that are sampled, in the order of the logits' rows."""

    inputs: dict[str, Array]
    sampled: tuple[int, ...]


def lay_out(
    sequences: Sequence[SequenceStep], block_tokens: int, adapter_of: Mapping[int, int] | None = None
) -> StepArrays:
    """`adapter_of` maps sequences to adapter numbers, 0 for none; None for a model without adapters. Raises
    InvariantError when a block table is too short for its tokens."""
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
        "sampled_rows": np.array(
            [end - 1 for s, end in zip(sequences, begins[1:], strict=True) if s.samples], np.int32
        ),
    }
    if adapter_of is not None:
        numbers = [adapter_of.get(s.seq_id, 0) for s in sequences]
        inputs["adapter_ids"] = np.repeat(np.array(numbers, np.int32), [len(s.tokens) for s in sequences])
    return StepArrays(inputs, tuple(s.seq_id for s in sequences if s.samples))


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
