"""Room in KV memory: who starts, who grows, and who gives way.

For new work only slower tiers give way. A running sequence that cannot get its next block takes one from a slower tier,
else from the youngest of its own tier that is younger than itself and not in this step yet, else it pauses in place.
Pinned sequences (real-time, not preemptible) never give way: room for their longest is set aside before they start.
So if all pause, somebody evictable holds what a pinned one may claim; the youngest of the slowest tier then goes, until
one can run. Nothing ever waits in a circle.
"""

from math import inf

from speciate.core.scheduler import Started
from speciate.core.segment import TIER_RANK, Tier
from speciate.scheduling.draft import Draft
from speciate.scheduling.sequence import Phase, Sequence
from speciate.scheduling.state import TokenState

SLOWEST_FIRST = sorted(Tier, key=lambda tier: -TIER_RANK[tier])
GROWTH_SHARE = 0.5
"""Share of the running tiers' expected growth that interactive work leaves free when it starts."""


def start(state: TokenState, draft: Draft, seq: Sequence, prefix: list[int]) -> bool:
    """Give a waiting sequence blocks for all its tokens, `prefix` shared. False, and nothing changed, without room."""
    memory = state.memory
    seq.reserve_blocks = _expected_blocks(state, seq)
    num_new = memory.num_blocks_for(seq.num_tokens) - len(prefix)
    if not _has_room(state, draft, seq, num_new + memory.pool.count_idle(prefix)):
        return False
    memory.share(seq, prefix)
    if not make_room(state, draft, num_new, seq.rank):
        memory.unshare(seq)
        return False
    memory.attach(seq)
    state.waiting[seq.tier].remove(seq)
    state.residents.start(seq)
    _note_start(state, draft, seq)
    return True


def grow(state: TokenState, draft: Draft, seq: Sequence) -> bool:
    """Make sure that its next token has a place."""
    if seq.computed < seq.room_tokens:
        return True
    if not make_room(state, draft, 1, seq.rank) and not _take_from_younger(state, draft, seq):
        return False
    state.memory.grow(seq)
    return True


def make_room(state: TokenState, draft: Draft, num_blocks: int, rank: int) -> bool:
    """Evict sequences of slower tiers than `rank`, slowest first, until so many blocks are available."""
    pool = state.memory.pool
    if pool.num_available >= num_blocks:
        return True
    for tier in SLOWEST_FIRST:
        if TIER_RANK[tier] <= rank:
            return False
        for victim in _victims(state, draft, tier):
            evict(state, draft, victim)
            if pool.num_available >= num_blocks:
                return True
    return False


def evict(state: TokenState, draft: Draft, seq: Sequence) -> None:
    """Its tokens stay, its blocks go; it waits again."""
    seq.lost_until = max(seq.lost_until, seq.computed)
    state.residents.remove(seq)
    state.memory.detach(seq)
    seq.phase = Phase.WAITING
    seq.num_evictions += 1
    seq.evicted_step_id = draft.step_id
    seq.place_s = inf
    state.num_evictions += 1
    state.waiting[seq.tier].add(seq)
    draft.evicted.append(seq.seq_id)


def youngest_evictable(state: TokenState) -> Sequence | None:
    """Who gives way when nothing at all can run: the youngest of the slowest tier."""
    for tier in SLOWEST_FIRST:
        evictable = [seq for seq in state.residents.of_tier(tier) if not seq.is_pinned]
        if evictable:
            return max(evictable, key=lambda seq: seq.order)
    return None


def _victims(state: TokenState, draft: Draft, tier: Tier) -> list[Sequence]:
    """Who may go, cheapest recompute per block first; those that just came back last."""
    costs = draft.costs
    rested_s = draft.now_s - state.options.eviction_rest_s

    def key(seq: Sequence) -> tuple[bool, float, int]:
        recompute_s = costs.base_s + costs.chunk_s(seq.computed, 0)
        return seq.resumed_s > rested_s, recompute_s / max(1, len(seq.table) - seq.num_shared), -seq.order

    return sorted((s for s in state.residents.of_tier(tier) if not s.is_pinned and not draft.is_taken(s)), key=key)


def _take_from_younger(state: TokenState, draft: Draft, seq: Sequence) -> bool:
    younger = [
        other
        for other in state.residents.of_tier(seq.tier)
        if other.order > seq.order and not other.is_pinned and not draft.is_taken(other)
    ]
    younger.sort(key=lambda other: -other.order)
    for victim in younger:
        evict(state, draft, victim)
        if state.memory.pool.num_available:
            return True
    return False


def _has_room(state: TokenState, draft: Draft, seq: Sequence, num_blocks: int) -> bool:
    """Whether starting it leaves the others what they will need. An empty device takes anything."""
    memory = state.memory
    if seq.is_pinned and memory.num_pinned + seq.max_blocks > state.shape.num_blocks:
        return False
    if seq.tier is Tier.REALTIME:
        return True
    available = memory.pool.num_available
    if state.residents.count == 0:
        return available >= num_blocks
    if seq.tier is Tier.INTERACTIVE:
        wanted = GROWTH_SHARE * (memory.pinned_growth + memory.growth[Tier.INTERACTIVE])
        return available + memory.held[Tier.BATCH] >= num_blocks + wanted
    growth = max(0, seq.reserve_blocks - memory.num_blocks_for(seq.num_tokens))
    growth += memory.pinned_growth + sum(memory.growth.values())
    reserve = state.options.kv_reserve * state.shape.num_blocks if state.is_fast_armed(draft.now_s) else 0
    return available >= num_blocks + growth + reserve


def _expected_blocks(state: TokenState, seq: Sequence) -> int:
    if seq.is_pinned:
        return seq.max_blocks
    num_outputs = state.lengths[seq.tier].estimate(seq.work.tenant, seq.work.max_tokens, len(seq.outputs))
    num_tokens = len(seq.work.prompt_tokens) + num_outputs - 1
    return min(seq.max_blocks, state.memory.num_blocks_for(num_tokens))


def _note_start(state: TokenState, draft: Draft, seq: Sequence) -> None:
    if seq.was_started:
        seq.resumed_s = draft.now_s
        return
    seq.was_started = True
    state.guards[seq.tier].observe_prompt(seq.remaining)
    draft.started.append(Started(seq.seq_id, seq.computed))
