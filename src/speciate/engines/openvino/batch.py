"""Lays a StepPlan out as the flat arrays that paged attention reads. numpy only; decides nothing.

sequences    A: 3 tokens at 5      B: 1 token at 9
input_ids    a5 a6 a7              b9
begins       0                     3              4
past_lens    5                     9
"""

from collections.abc import Mapping, Sequence

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
    sequences: Sequence[SequenceStep],
    block_tokens: int,
    adapter_of: Mapping[int, int] | None = None,
) -> StepArrays:
    """`adapter_of` maps sequences to adapter numbers, 0 for none; None for a model without adapters. Raises
    InvariantError when a block table is too short for its tokens."""
    tokens: list[int] = []
    begins, block_begins, blocks, past, positions = [0], [0], list[int](), list[int](), list[Array]()
    sampled_rows: list[int] = []
    for sequence in sequences:
        length = sequence.start + len(sequence.tokens)
        num_blocks = -(-length // block_tokens)
        if num_blocks > len(sequence.block_ids):
            raise InvariantError(
                f"sequence {sequence.seq_id} reaches token {length} with {len(sequence.block_ids)} blocks of "
                f"{block_tokens}"
            )
        tokens.extend(sequence.tokens)
        positions.append(np.arange(sequence.start, length, dtype=np.int64))
        past.append(sequence.start)
        blocks.extend(sequence.block_ids[:num_blocks])
        begins.append(len(tokens))
        block_begins.append(len(blocks))
        if sequence.samples:
            sampled_rows.append(len(tokens) - 1)
    inputs = {
        "input_ids": np.array(tokens, np.int64),
        "position_ids": np.concatenate(positions),
        "past_lens": np.array(past, np.int32),
        "subsequence_begins": np.array(begins, np.int32),
        "block_indices": np.array(blocks, np.int32),
        "block_indices_begins": np.array(block_begins, np.int32),
        "max_context_len": np.array(max(s.start + len(s.tokens) for s in sequences), np.int32),
        "sampled_rows": np.array(sampled_rows, np.int32),
    }
    if adapter_of is not None:
        inputs["adapter_ids"] = _adapter_ids(sequences, len(tokens), adapter_of)
    return StepArrays(inputs, tuple(s.seq_id for s in sequences if s.samples))


def _adapter_ids(sequences: Sequence[SequenceStep], num_tokens: int, adapter_of: Mapping[int, int]) -> Array:
    ids = np.zeros(num_tokens, np.int32)
    first = 0
    for sequence in sequences:
        ids[first : first + len(sequence.tokens)] = adapter_of.get(sequence.seq_id, 0)
        first += len(sequence.tokens)
    return ids
