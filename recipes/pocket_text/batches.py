# ruff: noqa: N815 - a tensor's name ends in its shape
"""Turns tasks into packed batches of token ids, with a mark on each token whose successor the model must say."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor

from recipes.pocket_text.attention import Rows
from recipes.pocket_text.tokenizer import END, START
from speciate.models.pocket.prompts import render_solved
from speciate.models.pocket.task import Task

_LENGTH_STEP = 32
_IGNORED = -100
_NUM_ENCODED_AT_ONCE = 64

Sequences = list[list[int]]


@dataclass(frozen=True, slots=True)
class Batch:
    """Packed sequences of T tokens in all. `targets_T` holds -100 where the next token is not the model's to say."""

    ids_T: Tensor
    positions_T: Tensor
    targets_T: Tensor
    next_ids_T: Tensor
    groups: list[Rows]


def small_batches(tasks: Iterator[Task], tokenizer: Tokenizer, most_tokens: int) -> Iterator[Sequences]:
    """Encoded tasks, in their order, in groups of at most `most_tokens` tokens (one longer task stands alone)."""
    held: Sequences = []
    num_held = 0
    for ids in _encoded(tasks, tokenizer):
        if held and num_held + len(ids) > most_tokens:
            yield held
            held, num_held = [], 0
        held.append(ids)
        num_held += len(ids)


def pack(sequences: Sequences, tokenizer: Tokenizer) -> Batch:
    """Lays sequences one after another."""
    starts = [0]
    for ids in sequences:
        starts.append(starts[-1] + len(ids))
    targets = [target for ids in sequences for target in answer_targets(ids, tokenizer)]
    flat = torch.tensor([token for ids in sequences for token in ids])
    positions = torch.cat([torch.arange(len(ids)) for ids in sequences])
    return Batch(flat, positions, torch.tensor(targets), flat.roll(-1), _group(sequences, starts))


def answer_targets(ids: list[int], tokenizer: Tokenizer) -> list[int]:
    """For each token the next one where that belongs to an assistant's answer or ends it, else -100."""
    start, end = tokenizer.token_to_id(START), tokenizer.token_to_id(END)
    header = [start, *tokenizer.encode("assistant\n").ids]
    targets = [_IGNORED] * len(ids)
    is_answering = False
    for i in range(len(ids) - 1):
        if ids[i] == header[-1] and ids[max(0, i + 1 - len(header)) : i + 1] == header:
            is_answering = True
        if is_answering:
            targets[i] = ids[i + 1]
            is_answering = ids[i + 1] != end
    return targets


def _encoded(tasks: Iterator[Task], tokenizer: Tokenizer) -> Iterator[list[int]]:
    while chunk := [task for _, task in zip(range(_NUM_ENCODED_AT_ONCE), tasks, strict=False)]:
        for encoding in tokenizer.encode_batch([render_solved(task) for task in chunk]):
            yield encoding.ids


def _group(sequences: Sequences, starts: list[int]) -> list[Rows]:
    """Rows of sequences whose lengths round up to the same step."""
    by_length: dict[int, list[int]] = {}
    for i, ids in enumerate(sequences):
        step = _LENGTH_STEP if len(ids) <= 256 else 4 * _LENGTH_STEP
        by_length.setdefault(-(-len(ids) // step) * step, []).append(i)
    return [_rows([(starts[i], len(sequences[i])) for i in members], starts[-1]) for members in by_length.values()]


def _rows(spans: list[tuple[int, int]], num_tokens: int) -> Rows:
    longest = max(length for _, length in spans)
    rows = torch.full((len(spans), longest), num_tokens)
    for row, (start, length) in enumerate(spans):
        rows[row, :length] = torch.arange(start, start + length)
    return Rows(rows)
