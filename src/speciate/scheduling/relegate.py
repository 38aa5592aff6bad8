"""Prompts that would be late even if they ran now: behind those that can be in time, or in a slower tier."""

from math import inf

from speciate.scheduling.draft import Draft
from speciate.scheduling.sequence import BATCH, INTERACTIVE, REALTIME, Sequence
from speciate.scheduling.state import TokenState

POSTPONED_TTFTS = 10.0
"""By how much the goal of a late interactive prompt moves, once."""
RELEGATED_TTFTS = 10.0
"""An interactive prompt that was relegated is due this many TTFTs after it should have begun."""


def is_hopeless(draft: Draft, seq: Sequence, start_at: int) -> bool:
    """Whether its first token would be late even if it ran whole in this step. Asked once: then it has a new goal."""
    if seq.was_started or seq.was_relegated:
        return False
    own_s = draft.costs.chunk_s(seq.num_tokens - start_at, start_at)
    return draft.now_s + draft.gamma * (draft.used_s + own_s) > seq.deadline_s


def postpone(state: TokenState, draft: Draft, seq: Sequence) -> None:
    """Late either way: those that can still be in time go first, for a while. It stays in its tier."""
    state.waiting[seq.tier].remove(seq)
    seq.was_relegated = True
    seq.deadline_s += POSTPONED_TTFTS * seq.ttft_s
    state.waiting[seq.tier].add(seq)


def relegate(state: TokenState, draft: Draft, seq: Sequence) -> None:
    """Move a waiting sequence to the next slower tier, once, with a promise of that tier."""
    options, arrival_s = state.options, seq.work.arrival_s
    state.waiting[seq.tier].remove(seq)
    state.realtime.pop(seq.seq_id, None)
    seq.was_relegated = True
    if seq.tier is REALTIME:
        seq.tier = INTERACTIVE
        seq.ttft_s, seq.tpot_s = options.relegated_ttft_s, options.relegated_tpot_s
        seq.max_gap_s = seq.tpot_s
        seq.deadline_s = arrival_s + seq.ttft_s
    else:
        seq.tier = BATCH
        seq.due_s = min(seq.due_s, seq.deadline_s + RELEGATED_TTFTS * seq.ttft_s)
        seq.ttft_s = seq.tpot_s = seq.max_gap_s = seq.deadline_s = inf
    state.waiting[seq.tier].add(seq)
    draft.relegated.append((seq.seq_id, seq.tier))
