"""How often what is asked for is already there: caches of so many slots, and one that knows the future."""

from collections import Counter, OrderedDict
from collections.abc import Hashable, Sequence

NEVER = 1 << 60


def lru_hits(sequence: Sequence[Hashable], num_slots: int) -> float:
    """Share 0..1; what was used longest ago leaves."""
    slots: OrderedDict[Hashable, None] = OrderedDict()
    num_hits = 0
    for key in sequence:
        if key in slots:
            num_hits += 1
            slots.move_to_end(key)
            continue
        if len(slots) == num_slots:
            slots.popitem(last=False)
        slots[key] = None
    return num_hits / max(1, len(sequence))


def lfu_hits(sequence: Sequence[Hashable], num_slots: int) -> float:
    """Share 0..1; what was used least often so far leaves."""
    counts: Counter[Hashable] = Counter()
    slots: set[Hashable] = set()
    num_hits = 0
    for key in sequence:
        counts[key] += 1
        if key in slots:
            num_hits += 1
            continue
        if len(slots) == num_slots:
            slots.discard(min(slots, key=lambda held: (counts[held], str(held))))
        slots.add(key)
    return num_hits / max(1, len(sequence))


def belady_hits(sequence: Sequence[Hashable], num_slots: int) -> float:
    """Share 0..1, the most that any policy can reach: what is used furthest in the future leaves, or does not even stay
    (Belady 1966, with bypass)."""
    next_use, slots = _next_uses(sequence), dict[Hashable, int]()
    num_hits = 0
    for index, key in enumerate(sequence):
        num_hits += key in slots
        if key not in slots and len(slots) == num_slots:
            furthest = max(slots, key=slots.__getitem__)
            if slots[furthest] <= next_use[index]:
                continue
            del slots[furthest]
        slots[key] = next_use[index]
    return num_hits / max(1, len(sequence))


def forced_belady_hits(sequence: Sequence[Hashable], num_slots: int) -> float:
    """The same where whatever is used has to be there while it is used: a model cannot run from outside the device."""
    next_use, slots = _next_uses(sequence), dict[Hashable, int]()
    num_hits = 0
    for index, key in enumerate(sequence):
        num_hits += key in slots
        if key not in slots and len(slots) == num_slots:
            del slots[max(slots, key=slots.__getitem__)]
        slots[key] = next_use[index]
    return num_hits / max(1, len(sequence))


def _next_uses(sequence: Sequence[Hashable]) -> list[int]:
    """For each place, the next place of the same key."""
    next_use, last_seen = [NEVER] * len(sequence), dict[Hashable, int]()
    for index in range(len(sequence) - 1, -1, -1):
        next_use[index] = last_seen.get(sequence[index], NEVER)
        last_seen[sequence[index]] = index
    return next_use
