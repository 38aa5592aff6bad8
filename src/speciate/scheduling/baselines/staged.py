"""What the baselines share: `TokenScheduler`'s books under other stages and another order of the waiting.

A baseline is a key (who goes first) and a tuple of stages. Ports of engines that other people tuned: each names its
source and keeps the source's units and defaults; what is ours (prefix cache, blocks of a whole prompt taken at once)
is the same for all.
"""

from collections.abc import Callable, Iterable
from math import inf

from speciate.core.engine import TokenEngineShape
from speciate.core.scheduler import Started
from speciate.core.segment import Tier
from speciate.scheduling.draft import Draft
from speciate.scheduling.evict import evict
from speciate.scheduling.fill import Stage
from speciate.scheduling.options import TokenSchedulerOptions
from speciate.scheduling.order import Key
from speciate.scheduling.sequence import Phase, Sequence
from speciate.scheduling.state import TokenState
from speciate.scheduling.token import TokenScheduler
from speciate.scheduling.waiting import Candidates, TierQueue

Room = Callable[[TokenState, Sequence, int], bool]
"""Whether a waiting sequence that needs so many blocks may start now."""
WATERMARK = 0.01
"""Share of the blocks that vLLM's block manager leaves free when it starts a sequence."""


class StagedScheduler(TokenScheduler):
    """A `StepScheduler` that fills its steps by `stages` and lets prompts wait in the order of `key`."""

    def __init__(
        self, shape: TokenEngineShape, options: TokenSchedulerOptions, key: Key, stages: tuple[Stage, ...]
    ) -> None:
        super().__init__(shape, options)
        self._state.waiting = {tier: TierQueue((key,), self._state.tenants) for tier in Tier}
        self._stages = stages


class Prompts:
    """Prompts of all tiers, under way or waiting, in one order. `close` when done."""

    def __init__(self, state: TokenState, key: Key, tiers: Iterable[Tier] = Tier) -> None:
        started = state.residents.prefilling
        self._key = key
        self._sources = [
            Candidates(list(started[tier].values()), key, state.waiting[tier].order(0), _no_bucket)
            for tier in tiers
            if started[tier] or state.waiting[tier].num_waiting
        ]
        self._heads: list[Sequence | None] = [None] * len(self._sources)

    def next(self) -> Sequence | None:
        for index, source in enumerate(self._sources):
            if self._heads[index] is None:
                self._heads[index] = source.next()
        present = [(self._key(seq), seq.order, index) for index, seq in enumerate(self._heads) if seq is not None]
        if not present:
            return None
        index = min(present)[2]
        seq, self._heads[index] = self._heads[index], None
        return seq

    def skip_waiting(self) -> None:
        """Only prompts under way from here on: the first has no room, and nobody overtakes it."""
        for index, source in enumerate(self._sources):
            source.skip_waiting()
            head = self._heads[index]
            if head is not None and head.phase is Phase.WAITING:
                self._heads[index] = None

    def close(self) -> None:
        for source in self._sources:
            source.close()


def fixed_budget(num_tokens: int) -> Stage:
    """At most so many tokens a step, decodes included (Sarathi-Serve's chunk, vLLM's max_num_batched_tokens)."""

    def stage(state: TokenState, draft: Draft) -> None:
        del state
        draft.used_s = draft.costs.base_s
        draft.tokens_left = min(draft.tokens_left, num_tokens)

    return stage


def all_decodes(key: Key) -> Stage:
    """Every running decode, most important first; one that lacks a block takes it from the least important."""

    def stage(state: TokenState, draft: Draft) -> None:
        for seq in sorted(decoding(state), key=lambda seq: (key(seq), seq.order)):
            if not draft.has_slots:
                return
            if seq.phase is Phase.DECODE and _grow(state, draft, seq, key):
                take_decode(draft, seq)

    return stage


def take_decode(draft: Draft, seq: Sequence) -> None:
    draft.used_s += draft.costs.decodes_s(1, seq.computed)
    draft.take_decodes([seq])


def prompt_chunks(key: Key, room: Room) -> Stage:
    """What is left of the token budget goes to prompts in order; the first one without room ends the starts."""

    def stage(state: TokenState, draft: Draft) -> None:
        prompts = Prompts(state, key)
        if draft.evicted:
            prompts.skip_waiting()
        while draft.has_slots and (seq := prompts.next()) is not None:
            if not take_chunk(state, draft, seq, room):
                prompts.skip_waiting()
        prompts.close()

    return stage


def take_chunk(state: TokenState, draft: Draft, seq: Sequence, room: Room) -> bool:
    """As much of it as the token budget allows. False, and nothing changed, if it cannot start."""
    if seq.phase is Phase.WAITING and not start(state, draft, seq, room):
        return False
    draft.take_chunk(seq, min(seq.remaining, draft.tokens_left))
    return True


def start(state: TokenState, draft: Draft, seq: Sequence, room: Room) -> bool:
    """Blocks for all its tokens, if `room` agrees. An empty device takes anything."""
    memory = state.memory
    prefix = memory.find_prefix(seq)
    if draft.is_computing(seq, len(prefix)):
        return False
    num_new = memory.num_blocks_for(seq.num_tokens) - len(prefix)
    num_needed = num_new + memory.pool.count_idle(prefix)
    if num_needed > memory.pool.num_available or (state.residents.count and not room(state, seq, num_needed)):
        return False
    memory.share(seq, prefix)
    memory.attach(seq)
    state.waiting[seq.tier].remove(seq)
    state.residents.start(seq)
    if not seq.was_started:
        seq.was_started = True
        draft.started.append(Started(seq.seq_id, seq.computed))
    return True


def above_watermark(state: TokenState, seq: Sequence, num_blocks: int) -> bool:
    """vLLM: start whatever fits above a small reserve."""
    del seq
    return state.memory.pool.num_available - num_blocks >= WATERMARK * state.shape.num_blocks


def decoding(state: TokenState) -> list[Sequence]:
    return [seq for tier in Tier for seq in state.residents.decoding[tier].values()]


def arrival(seq: Sequence) -> float:
    """First come, first served."""
    return seq.order


def due(seq: Sequence) -> float:
    """When the first token is due; for work that is only promised an end, when that is."""
    return seq.deadline_s if seq.deadline_s < inf else seq.due_s


def _grow(state: TokenState, draft: Draft, seq: Sequence, key: Key) -> bool:
    """A place for its next token. The least important gives its blocks up, and if that is itself, it waits again."""
    memory = state.memory
    if seq.computed < seq.room_tokens:
        return True
    while not memory.pool.num_available:
        victim = max(_evictable(state, draft), key=lambda other: (key(other), other.order))
        evict(state, draft, victim)
        if victim is seq:
            return False
    memory.grow(seq)
    return True


def _evictable(state: TokenState, draft: Draft) -> list[Sequence]:
    return [seq for tier in Tier for seq in state.residents.of_tier(tier) if not draft.is_taken(seq)]


def _no_bucket(first: Sequence) -> float:
    del first
    return 0.0
