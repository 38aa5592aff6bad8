"""Which sequence holds which blocks, and what those that run will still need. Decides nothing about time."""

from collections.abc import Iterable
from sys import maxsize

from speciate.core.engine import TokenEngineShape
from speciate.core.errors import InvariantError
from speciate.core.segment import Tier
from speciate.scheduling.blocks import BlockPool, chain_keys, root_key
from speciate.scheduling.sequence import Sequence


class KvMemory:
    """Block tables of sequences. All of a sequence's tokens get blocks when it starts; then one at a time.

    held           blocks of a tier's evictable sequences that came from the pool, not from shared prefixes
    growth         blocks that a tier's evictable sequences are expected to ask for yet
    pinned         blocks set aside for sequences that are never evicted, at their longest
    pinned_growth  how many of those are not held yet
    """

    def __init__(self, shape: TokenEngineShape, has_prefix_cache: bool) -> None:
        self.block_tokens = shape.block_tokens
        self.pool = BlockPool(shape.num_blocks)
        self._has_prefix_cache = has_prefix_cache
        self.held = dict.fromkeys(Tier, 0)
        self.growth = dict.fromkeys(Tier, 0)
        self.num_pinned = 0
        self.pinned_growth = 0
        self.query_tokens = 0
        self.hit_tokens = 0

    def num_blocks_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self.block_tokens)

    def prepare(self, seq: Sequence) -> None:
        """Hash its prompt before it is planned: it arrives while a step runs, and a plan is waited for."""
        if self._has_prefix_cache:
            self.extend_keys(seq, (seq.num_tokens - 1) // self.block_tokens)

    def find_prefix(self, seq: Sequence) -> list[int]:
        """Reusable blocks of a sequence that waits. Never all of it: its last token is computed anew."""
        if not self._has_prefix_cache:
            return []
        usable = (seq.num_tokens - 1) // self.block_tokens
        self.extend_keys(seq, usable)
        return self.pool.find(seq.keys[:usable])

    def extend_keys(self, seq: Sequence, num_blocks: int) -> None:
        done = len(seq.keys)
        if done < num_blocks:
            parent = seq.keys[-1] if seq.keys else root_key(seq.work.cache_salt)
            tokens = seq.tokens(done * self.block_tokens, num_blocks * self.block_tokens)
            seq.keys += chain_keys(parent, tokens, self.block_tokens)

    def share(self, seq: Sequence, prefix: list[int]) -> None:
        """Take the prefix that was found, before anything is evicted on its behalf."""
        self.pool.take(prefix)
        seq.table = tuple(prefix)
        seq.num_shared = seq.num_published = len(prefix)
        seq.computed = seq.room_tokens = len(prefix) * self.block_tokens

    def unshare(self, seq: Sequence) -> None:
        """Undo `share`."""
        self.pool.release(seq.table)
        self._clear(seq)

    def attach(self, seq: Sequence) -> None:
        """Blocks for all its tokens, after `share`."""
        num_new = self.num_blocks_for(seq.num_tokens) - len(seq.table)
        seq.table += tuple(self.pool.allocate(num_new))
        seq.room_tokens = len(seq.table) * self.block_tokens
        if self._has_prefix_cache:
            seq.publish_at = (seq.num_published + 1) * self.block_tokens
        self._count(seq, 1)
        if not seq.was_started:
            self.query_tokens += seq.num_tokens
            self.hit_tokens += seq.computed

    def grow(self, seq: Sequence, num: int = 1) -> None:
        """So many more blocks; they are available."""
        expected = seq.reserve_blocks - len(seq.table)
        if expected > 0:
            self._count_growth(seq, -min(num, expected))
        if not seq.is_pinned:
            self.held[seq.tier] += num
        seq.table = (*seq.table, *self.pool.allocate(num))
        seq.room_tokens += num * self.block_tokens

    def detach(self, seq: Sequence) -> None:
        """Give all its blocks back; published ones stay findable until they are needed."""
        self._count(seq, -1)
        self.pool.release(seq.table)
        self._clear(seq)

    def publish(self, seq: Sequence) -> None:
        """Make the full blocks findable whose tokens a committed step has computed: once `publish_at` is reached."""
        num_full = seq.computed // self.block_tokens
        self.extend_keys(seq, num_full)
        for index in range(seq.num_published, num_full):
            self.pool.publish(seq.table[index], seq.keys[index])
        seq.num_published = num_full
        seq.publish_at = (num_full + 1) * self.block_tokens

    def _count(self, seq: Sequence, sign: int) -> None:
        """Add its share to the sums, or take it off."""
        self._count_growth(seq, sign * max(0, seq.reserve_blocks - len(seq.table)))
        if seq.is_pinned:
            self.num_pinned += sign * seq.max_blocks
        else:
            self.held[seq.tier] += sign * (len(seq.table) - seq.num_shared)

    def _count_growth(self, seq: Sequence, num_blocks: int) -> None:
        if seq.is_pinned:
            self.pinned_growth += num_blocks
        else:
            self.growth[seq.tier] += num_blocks

    def _clear(self, seq: Sequence) -> None:
        seq.table = ()
        seq.computed = seq.room_tokens = seq.num_shared = seq.num_published = 0
        seq.publish_at = maxsize

    def check(self, holders: Iterable[Sequence]) -> None:
        """Raise InvariantError unless blocks add up and every computed token has its place."""
        holders = list(holders)
        self.pool.check(seq.table for seq in holders)
        for seq in holders:
            if len(seq.table) * self.block_tokens < seq.computed:
                raise InvariantError(f"sequence {seq.seq_id}: {seq.computed} computed tokens, {len(seq.table)} blocks")
        self._check_sums(holders)

    def _check_sums(self, holders: list[Sequence]) -> None:
        counted = (dict(self.held), dict(self.growth), self.num_pinned, self.pinned_growth)
        self.held, self.growth = dict.fromkeys(Tier, 0), dict.fromkeys(Tier, 0)
        self.num_pinned = self.pinned_growth = 0
        for seq in holders:
            self._count(seq, 1)
        summed = (self.held, self.growth, self.num_pinned, self.pinned_growth)
        if summed != counted:
            raise InvariantError(f"held, growth, pinned and pinned growth are {counted}, must be {summed}")
