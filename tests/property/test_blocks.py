"""The block pool against a plain model: who holds what, and what each findable block contains."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speciate.scheduling.blocks import BlockPool, chain_keys, root_key

BLOCK = 2


def churn(random: Random, num_blocks: int, num_events: int) -> None:
    """Sequences over a tiny alphabet come and go; every block found by key must hold the tokens asked for."""
    pool = BlockPool(num_blocks)
    contents: dict[int, tuple[int, ...]] = {}
    tables: list[list[int]] = []
    for _ in range(num_events):
        if tables and random.random() < 0.45:
            pool.release(tables.pop(random.randrange(len(tables))))
        else:
            tokens = tuple(random.randint(0, 1) for _ in range(BLOCK * random.randint(1, 4)))
            table = open_table(pool, tokens, contents)
            if table is not None:
                tables.append(table)
        pool.check(tables)
        held = {block for table in tables for block in table}
        assert pool.num_available == num_blocks - len(held)
    for table in tables:
        pool.release(table)
    pool.check([])
    assert pool.num_available == num_blocks


def open_table(pool: BlockPool, tokens: tuple[int, ...], contents: dict[int, tuple[int, ...]]) -> list[int] | None:
    keys = chain_keys(root_key(""), tokens, BLOCK)
    found = pool.find(keys)
    for index, block in enumerate(found):
        assert contents[block] == tokens[: (index + 1) * BLOCK]
    num_new = len(keys) - len(found)
    if pool.num_available - pool.count_idle(found) < num_new:
        return None
    pool.take(found)
    table = found + pool.allocate(num_new)
    assert len(set(table)) == len(table)
    for index in range(len(found), len(table)):
        contents[table[index]] = tokens[: (index + 1) * BLOCK]
        pool.publish(table[index], keys[index])
    return table


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), num_blocks=st.integers(1, 12))
def test_blocks_are_conserved_and_findable_ones_are_true(seed: int, num_blocks: int) -> None:
    churn(Random(seed), num_blocks, 60)


@pytest.mark.slow
def test_blocks_for_long() -> None:
    for seed in range(100):
        churn(Random(seed), 1 + seed % 17, 300)
