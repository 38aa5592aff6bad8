"""Who goes first among those that wait: deadlines decide, tenants' service breaks ties inside a deadline bucket."""

from collections.abc import Callable
from heapq import heapify, heappop, heappush

from speciate.core.errors import InvariantError
from speciate.scheduling.sequence import Phase, Sequence
from speciate.scheduling.tenants import Tenant, Tenants

Key = Callable[[Sequence], float]
MAX_TIED = 16
"""Tenants compared inside one bucket; bounds the cost of a choice."""
COMPACT_SLACK = 64

Entry = tuple[float, int, int, Sequence]
"""(key, order, stamp, sequence); void once the sequence's stamp moved on."""
Head = tuple[float, int, Tenant]
"""(key, order) of a tenant's first entry, as far as known."""


class FairQueue:
    """Waiting sequences by key. Entries of sequences that left are skipped when they come up."""

    def __init__(self, key: Key, tenants: Tenants) -> None:
        self._key = key
        self._tenants = tenants
        self._entries: dict[Tenant, list[Entry]] = {}
        self._heads: list[Head] = []
        self._posted: set[tuple[float, int]] = set()
        self._num_entries = 0

    def push(self, seq: Sequence) -> None:
        entry = (self._key(seq), seq.order, seq.stamp, seq)
        entries = self._entries.setdefault(seq.tenant, [])
        heappush(entries, entry)
        self._num_entries += 1
        if entries[0][1] == seq.order:
            self._post((entry[0], entry[1], seq.tenant))

    def pop(self, bucket_s: Callable[[Sequence], float]) -> Sequence | None:
        """Remove and return the first; within `bucket_s(first)` of its key the least served tenant's."""
        first = self._pop_head()
        if first is None:
            return None
        heads = [first]
        limit = first[0] + bucket_s(self._entries[first[2]][0][3])
        while len(heads) < MAX_TIED and self._heads and self._heads[0][0] <= limit:
            head = self._pop_head()
            if head is None:
                break
            heads.append(head)
        chosen = min(heads, key=lambda head: (head[2].served, head[0], head[1]))
        for head in heads:
            if head[1] != chosen[1]:
                self._post(head)
        self._tenants.raise_level(chosen[2])
        seq = self._pop_entry(chosen[2])
        seq.place_s = first[0]
        return seq

    def compact(self, num_live: int) -> None:
        """Drop void entries once they outnumber the live ones; amortised O(1) an entry."""
        if self._num_entries > 2 * num_live + COMPACT_SLACK:
            live = [e for entries in self._entries.values() for e in entries if _is_live(e)]
            self._entries.clear()
            for entry in live:
                self._entries.setdefault(entry[3].tenant, []).append(entry)
            for entries in self._entries.values():
                heapify(entries)
            self._heads = [(entries[0][0], entries[0][1], tenant) for tenant, entries in self._entries.items()]
            heapify(self._heads)
            self._posted = {head[:2] for head in self._heads}
            self._num_entries = len(live)

    def check(self, waiting: list[Sequence]) -> None:
        """Raise InvariantError unless each of them has exactly one live entry below a posted head."""
        found = sorted(e[3].order for entries in self._entries.values() for e in entries if _is_live(e))
        if found != sorted(seq.order for seq in waiting):
            raise InvariantError("a queue lost or doubled a waiting sequence")
        if any(entries[0][:2] not in self._posted for entries in self._entries.values()):
            raise InvariantError("a tenant's first entry has no head in the queue")
        if len(self._posted) != len(self._heads):
            raise InvariantError("queue heads and their index differ")

    def _post(self, head: Head) -> None:
        if head[:2] not in self._posted:
            self._posted.add(head[:2])
            heappush(self._heads, head)

    def _pop_head(self) -> Head | None:
        """The smallest head that is still its tenant's first live entry."""
        while self._heads:
            head = heappop(self._heads)
            self._posted.discard(head[:2])
            entries = self._entries.get(head[2])
            if entries is None or entries[0][:2] != head[:2]:
                continue
            if _is_live(entries[0]):
                return head
            self._pop_entry(head[2])
        return None

    def _pop_entry(self, tenant: Tenant) -> Sequence:
        entries = self._entries[tenant]
        seq = heappop(entries)[3]
        self._num_entries -= 1
        if entries:
            self._post((entries[0][0], entries[0][1], tenant))
        else:
            del self._entries[tenant]
        return seq


def _is_live(entry: Entry) -> bool:
    return entry[3].stamp == entry[2] and entry[3].phase is Phase.WAITING
