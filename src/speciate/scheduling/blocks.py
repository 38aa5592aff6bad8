"""KV blocks: who holds which, and which full ones can be reused. Counts blocks; never sees their contents.

Every block is in exactly one place, and `check` proves it:

    free    nobody holds it, contents worthless        _free
    idle    nobody holds it, contents findable by key  _idle, oldest leaf first
    held    one or more sequences hold it              in neither; findable once published; _more: second holders

A key names a block's tokens *and* everything before them (hash chain, as in vLLM and SGLang), so equal keys mean equal
KV. Keys are 128 bits of blake2b: no collision is to be expected before 2^64 blocks.
"""

from array import array
from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from hashlib import blake2b

from speciate.core.errors import InvariantError

KEY_BYTES = 16


def root_key(salt: str) -> bytes:
    """The parent of a first block; differs where KV of equal tokens differs."""
    return blake2b(salt.encode(), digest_size=KEY_BYTES).digest()


def chain_keys(parent: bytes, tokens: Sequence[int], block_tokens: int) -> list[bytes]:
    """Keys of the full blocks that `tokens` fill after `parent`."""
    packed = array("q", tokens).tobytes()
    width = 8 * block_tokens
    keys = []
    for end in range(width, len(packed) + 1, width):
        parent = blake2b(parent + packed[end - width : end], digest_size=KEY_BYTES).digest()
        keys.append(parent)
    return keys


class BlockPool:
    """Hands out block ids. All operations cost O(blocks moved); without keys, no more than copying their ids."""

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self._free = list(range(num_blocks))
        self._idle: OrderedDict[int, None] = OrderedDict()
        self._more: dict[int, int] = {}
        """Holders beyond the first, of blocks that have several; only findable blocks ever do."""
        self._key_of: list[bytes | None] = [None] * num_blocks
        self._by_key: dict[bytes, int] = {}

    @property
    def num_available(self) -> int:
        """Blocks that `allocate` can give, reusable ones included."""
        return len(self._free) + len(self._idle)

    @property
    def num_idle(self) -> int:
        return len(self._idle)

    def find(self, keys: Sequence[bytes]) -> list[int]:
        """Blocks of the longest findable prefix of `keys`. Takes no reference."""
        found = []
        for key in keys:
            block = self._by_key.get(key)
            if block is None:
                break
            found.append(block)
        return found

    def count_idle(self, blocks: Iterable[int]) -> int:
        """How many of them `take` would remove from what is available."""
        return sum(1 for block in blocks if block in self._idle)

    def take(self, blocks: Iterable[int]) -> None:
        """One more holder of blocks that `find` gave."""
        for block in blocks:
            if block in self._idle:
                del self._idle[block]
            else:
                self._more[block] = self._more.get(block, 0) + 1

    def allocate(self, num: int) -> list[int]:
        """Blocks with worthless contents; the oldest idle ones lose their keys when free ones run out."""
        if num > self.num_available:
            raise InvariantError(f"{num} KV blocks asked for, {self.num_available} available; evict first")
        rest = max(0, len(self._free) - num)
        blocks = self._free[rest:]
        del self._free[rest:]
        blocks.reverse()
        return blocks + self._forget_oldest(num - len(blocks)) if len(blocks) < num else blocks

    def _forget_oldest(self, num: int) -> list[int]:
        idle, key_of, by_key = self._idle, self._key_of, self._by_key
        blocks = []
        for _ in range(num):
            block, _ = idle.popitem(last=False)
            key = key_of[block]
            key_of[block] = None
            if key is not None:
                del by_key[key]
            blocks.append(block)
        return blocks

    def publish(self, block: int, key: bytes) -> None:
        """Make a held, full, computed block findable. The first block with a key keeps it."""
        if key not in self._by_key and self._key_of[block] is None:
            self._by_key[key] = block
            self._key_of[block] = key

    def release(self, blocks: Sequence[int]) -> None:
        """Give up one reference to each. Last block first, so that leaves are forgotten before their parents."""
        free, idle, key_of, more = self._free, self._idle, self._key_of, self._more
        if not self._by_key:
            free.extend(blocks)
        else:
            for block in reversed(blocks):
                if block in more:
                    self._release_shared(block)
                elif key_of[block] is None:
                    free.append(block)
                else:
                    idle[block] = None
        if self.num_available > self.num_blocks:
            raise InvariantError(f"KV blocks {list(blocks)[:8]} released more often than taken")

    def _release_shared(self, block: int) -> None:
        if self._more[block] > 1:
            self._more[block] -= 1
        else:
            del self._more[block]

    def check(self, tables: Iterable[Sequence[int]]) -> None:
        """Raise InvariantError unless every block is in one place and has exactly the holders in `tables`."""
        found = Counter(block for table in tables for block in table)
        away = {*self._free, *self._idle}
        expected = {block: 1 + self._more.get(block, 0) for block in range(self.num_blocks) if block not in away}
        if found != expected:
            wrong = [block for block in range(self.num_blocks) if found[block] != expected.get(block, 0)]
            raise InvariantError(f"KV blocks {wrong[:8]}: holders and reference counts differ")
        self._check_places()
        self._check_keys()

    def _check_places(self) -> None:
        free, idle = set(self._free), set(self._idle)
        if len(free) != len(self._free) or free & idle:
            raise InvariantError("a KV block is free twice, or free and idle")
        if set(self._more) & (free | idle):
            raise InvariantError("a KV block that nobody holds has a second holder")

    def _check_keys(self) -> None:
        named = {key: block for block, key in enumerate(self._key_of) if key is not None}
        if named != self._by_key:
            raise InvariantError("the key table and the blocks' keys differ")
        if any(self._key_of[block] is not None for block in self._free):
            raise InvariantError("a free KV block still has a key")
        if any(self._key_of[block] is None for block in self._idle):
            raise InvariantError("an idle KV block has no key")
