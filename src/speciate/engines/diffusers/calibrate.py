"""Measures a loaded engine's steps, which warms it too: the table that the scheduler decides by until it has seen more.

Rows are doubled while the budget lasts; a model whose passes take seconds is measured at one row and learnt from there.
"""

import time
from collections.abc import Iterator

from speciate.core.denoise import DenoiseEngine, DenoisePlan, DenoiseSpec, ItemStep, Stage
from speciate.costs.pass_table import PassCost, PassTable

BUDGET_S = 3.0
_FIRST_ITEM = 1 << 40
"""Far from the numbers that a replica gives."""

_NUM_STEPS = 2


def measure_passes(engine: DenoiseEngine, hardware: str, budget_s: float = BUDGET_S) -> PassTable:
    """Of the default size. Items are added and removed; nothing stays."""
    ends_s = time.perf_counter() + budget_s
    cells = list(_cells(engine, ends_s))
    return PassTable(hardware, tuple(cells))


def _cells(engine: DenoiseEngine, ends_s: float) -> Iterator[PassCost]:
    num_rows = 1
    while num_rows <= engine.shape.max_rows:
        began_s = time.perf_counter()
        yield from _measured(engine, num_rows, is_whole=num_rows == 1)
        took_s = time.perf_counter() - began_s
        num_rows *= 2
        if time.perf_counter() + 2 * took_s > ends_s:
            return


def _measured(engine: DenoiseEngine, num_rows: int, *, is_whole: bool) -> Iterator[PassCost]:
    """Items of one row each; the first pass of a size is not counted. With one item also its encoding and decoding."""
    model, (width, height) = engine.shape.model, engine.shape.default_size
    ids = [_FIRST_ITEM + n for n in range(num_rows)]
    specs = [DenoiseSpec(i, "warm up", width, height, _NUM_STEPS, seed=0) for i in ids]
    facts = [engine.add(spec) for spec in specs]
    tokens = facts[0].num_tokens
    try:
        encode_s = _timed(engine, Stage.ENCODE, ids, 0)
        _timed(engine, Stage.PASS, ids, 0)
        yield PassCost(model, Stage.PASS, tokens, num_rows, _timed(engine, Stage.PASS, ids, 1))
        if is_whole:
            slices_s = [_timed(engine, Stage.DECODE, ids, n) for n in range(facts[0].num_decode_slices)]
            yield PassCost(model, Stage.ENCODE, 0, 1, encode_s)
            yield PassCost(model, Stage.DECODE, tokens, 1, max(slices_s))
    finally:
        for item_id in ids:
            engine.remove(item_id)


def _timed(engine: DenoiseEngine, stage: Stage, ids: list[int], index: int) -> float:
    began_s = time.perf_counter()
    engine.step(DenoisePlan(0, engine.shape.model, stage, tuple(ItemStep(i, index) for i in ids)))
    return time.perf_counter() - began_s
