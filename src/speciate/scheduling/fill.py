"""How work gets into a step: what the stages share. Each puts in what the budget and memory allow, and nothing else.

limits -> real-time decodes -> whole real-time prompts -> interactive decodes -> interactive prompts
       -> a limit for batch work -> batch decodes (or paused in place) -> batch prompts
       -> one batch sequence if the step is still empty

The stages are in `limits`, `fill_realtime`, `fill_interactive` and `fill_batch`.
"""

from collections.abc import Callable
from enum import Enum
from heapq import nsmallest

from speciate.scheduling.draft import Draft
from speciate.scheduling.evict import grow, start
from speciate.scheduling.sequence import Phase, Sequence
from speciate.scheduling.state import TokenState
from speciate.scheduling.waiting import Candidates

Stage = Callable[[TokenState, Draft], None]
MAX_SKIPPED = 8
"""Prompts that may wait for a prefix under way, or be relegated, in one step that holds anything: bounds its cost."""


class Fit(Enum):
    """What became of a candidate."""

    TAKEN = "taken"
    LATER = "later"
    """A prefix that it lacks is computed in this very step."""
    NO_TIME = "no_time"
    NO_MEMORY = "no_memory"


def urgency(seq: Sequence) -> tuple[float, float, int]:
    """Of decodes: the first due first, then the longest idle."""
    return seq.deadline_s, seq.advanced_s, seq.order


def take_decodes(state: TokenState, draft: Draft, decodes: list[Sequence]) -> None:
    """All that there are slots for; their cost is in the budget already."""
    slots = min(draft.sequences_left, draft.tokens_left)
    if len(decodes) > slots:
        decodes = nsmallest(slots, decodes, key=urgency)
    take_all(state, draft, decodes)


def take_all(state: TokenState, draft: Draft, decodes: list[Sequence]) -> None:
    """Those among them that have or get a place for their next token."""
    lacking = [seq for seq in decodes if seq.computed >= seq.room_tokens]
    if len(lacking) <= state.memory.pool.num_available:
        for seq in lacking:
            state.memory.grow(seq)
        draft.take_decodes(decodes)
        return
    for seq in decodes:
        if has_place(state, draft, seq):
            draft.take_decodes([seq])


def has_place(state: TokenState, draft: Draft, seq: Sequence) -> bool:
    """False too for one that was evicted for another earlier in this step."""
    return seq.computed < seq.room_tokens or (seq.phase is Phase.DECODE and grow(state, draft, seq))


def take_prompts(
    state: TokenState, draft: Draft, candidates: Candidates, take: Callable[[TokenState, Draft, Sequence], Fit]
) -> None:
    num_skipped = 0
    while draft.has_slots and (num_skipped < MAX_SKIPPED or not draft.steps):
        seq = candidates.next()
        if seq is None:
            return
        fit = take(state, draft, seq)
        if fit is Fit.NO_TIME:
            return
        if fit is Fit.NO_MEMORY:
            candidates.skip_waiting()
            draft.lacks_memory = True
        num_skipped += fit is Fit.LATER


def look_up(state: TokenState, draft: Draft, seq: Sequence) -> tuple[list[int], int]:
    """(reusable blocks, where computing would begin)."""
    if seq.phase is not Phase.WAITING:
        return [], seq.computed
    prefix = state.memory.find_prefix(seq)
    return prefix, len(prefix) * draft.block_tokens


def take_chunk(state: TokenState, draft: Draft, seq: Sequence, prefix: list[int], start_at: int, at_least: int) -> Fit:
    num = draft.chunk(seq, start_at, at_least)
    if num <= 0:
        return Fit.NO_TIME
    if seq.phase is Phase.WAITING:
        if seq.evicted_step_id == draft.step_id:
            return Fit.NO_MEMORY
        if draft.is_computing(seq, len(prefix)):
            return Fit.LATER
        if not start(state, draft, seq, prefix):
            return Fit.NO_MEMORY
    draft.take_chunk(seq, num)
    return Fit.TAKEN
