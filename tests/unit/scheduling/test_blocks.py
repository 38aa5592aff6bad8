"""Block accounting: sharing, reuse, forgetting, and that `check` sees what is wrong."""

import pytest

from speciate.core.errors import InvariantError
from speciate.scheduling.blocks import BlockPool, chain_keys, root_key

KEYS = chain_keys(root_key(""), range(16), 4)


def published(pool: BlockPool, num: int) -> list[int]:
    blocks = pool.allocate(num)
    for block, key in zip(blocks, KEYS, strict=False):
        pool.publish(block, key)
    return blocks


def test_only_full_blocks_have_keys() -> None:
    assert len(chain_keys(root_key(""), range(15), 4)) == 3


def test_a_key_stands_for_all_tokens_before_it_and_for_the_salt() -> None:
    other = chain_keys(root_key(""), [99, *range(1, 16)], 4)
    assert not set(KEYS) & set(other)
    assert not set(KEYS) & set(chain_keys(root_key("adapter"), range(16), 4))


def test_keys_can_be_made_piece_by_piece() -> None:
    first = chain_keys(root_key(""), range(8), 4)
    assert first + chain_keys(first[-1], range(8, 16), 4) == KEYS


def test_blocks_are_not_findable_before_they_are_published() -> None:
    pool = BlockPool(4)
    blocks = pool.allocate(2)
    assert pool.find(KEYS) == []
    pool.publish(blocks[0], KEYS[0])
    assert pool.find(KEYS) == blocks[:1]


def test_released_blocks_stay_findable_and_are_shared_again() -> None:
    pool = BlockPool(4)
    blocks = published(pool, 3)
    pool.release(blocks)
    assert (pool.num_available, pool.num_idle) == (4, 3)
    found = pool.find(KEYS)
    assert found == blocks
    assert pool.count_idle(found) == 3
    pool.take(found)
    pool.take(found)
    assert pool.num_available == 1
    pool.check([found, found])


def test_worthless_blocks_are_used_before_findable_ones_and_leaves_before_parents() -> None:
    pool = BlockPool(4)
    blocks = published(pool, 3)
    pool.release(blocks)
    pool.allocate(1)
    assert pool.find(KEYS) == blocks
    pool.allocate(1)
    assert pool.find(KEYS) == blocks[:2]


def test_the_first_block_with_a_key_keeps_it() -> None:
    pool = BlockPool(4)
    first, second = pool.allocate(2)
    pool.publish(first, KEYS[0])
    pool.publish(second, KEYS[0])
    assert pool.find(KEYS) == [first]
    pool.release([second])
    assert pool.num_idle == 0
    pool.check([[first]])


def test_asking_for_more_than_there_is_raises() -> None:
    with pytest.raises(InvariantError, match="3 KV blocks asked for, 2 available"):
        BlockPool(2).allocate(3)


def test_releasing_twice_raises() -> None:
    pool = BlockPool(2)
    blocks = pool.allocate(1)
    pool.release(blocks)
    with pytest.raises(InvariantError, match="released more often"):
        pool.release(blocks)


def test_check_sees_a_leak() -> None:
    pool = BlockPool(2)
    pool.allocate(1)
    with pytest.raises(InvariantError, match="holders and reference counts differ"):
        pool.check([])


def test_check_sees_a_holder_without_a_reference() -> None:
    with pytest.raises(InvariantError, match="holders and reference counts differ"):
        BlockPool(2).check([[0]])
