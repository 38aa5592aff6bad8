"""The stages that fill a step, most urgent first. Each puts in what the budget and memory allow, and nothing else.

limits -> real-time decodes -> whole real-time prompts -> interactive decodes -> interactive prompts
       -> a limit for batch work -> batch decodes (or paused in place) -> batch prompts
       -> one batch sequence if the step is still empty
"""

from collections.abc import Callable, Collection
from enum import Enum
from heapq import nsmallest
from math import inf
from operator import attrgetter

from speciate.core.segment import Tier
from speciate.scheduling.draft import Draft
from speciate.scheduling.evict import evict, grow, start, youngest_evictable
from speciate.scheduling.pace import URGENT
from speciate.scheduling.sequence import BATCH, INTERACTIVE, REALTIME, Phase, Sequence
from speciate.scheduling.state import TokenState, deadline_key, due_key, interactive_keys
from speciate.scheduling.waiting import Candidates, batch_bucket_s, batch_horizon_s, prompt_bucket_s

Stage = Callable[[TokenState, Draft], None]
MAX_SKIPPED = 8
"""Prompts that may wait for a prefix under way, or be relegated, in one step that holds anything: bounds its cost."""
POSTPONED_TTFTS = 10.0
"""By how much the goal of a late interactive prompt moves, once."""
PATIENT_S = 1.0
"""For so long at most nobody asks again whether a batch sequence with time to spare is urgent."""
RELEGATED_TTFTS = 10.0
"""An interactive prompt that was relegated is due this many TTFTs after it should have begun."""

SPARED_BASES = 1.5
"""A step for batch work lasts at least so many times what an empty one takes: shorter ones would waste the device."""
SPARED_SHARE = 0.75
"""But no longer than this share of a step with all batch decodes: shorter ones teach what an empty one takes."""
EVEN_SHARE = 0.87
"""Even gaps may cost so much of a TPOT: on a steady machine p99 gaps then keep to TPOT for 2 % of the batch rate (A100
simulation, 3 % noise); on one with 15 % noise they would cost 17 %, and the buffer has to do."""


_computed_of: Callable[[Sequence], int] = attrgetter("computed")
_deadline_of: Callable[[Sequence], float] = attrgetter("deadline_s")
_tpot_of: Callable[[Sequence], float] = attrgetter("tpot_s")


class Fit(Enum):
    """What became of a candidate."""

    TAKEN = "taken"
    LATER = "later"
    """A prefix that it lacks is computed in this very step."""
    NO_TIME = "no_time"
    NO_MEMORY = "no_memory"


def set_limits(state: TokenState, draft: Draft) -> None:
    """The budget: slack of the decodes that must run and guards for who may arrive; never less than those decodes."""
    realtime = state.residents.decoding[REALTIME].values()
    interactive = state.residents.decoding[INTERACTIVE].values()
    realtime_due_s, realtime_s = _decodes(draft, realtime)
    interactive_due_s, interactive_s = _decodes(draft, interactive)
    draft.used_s = draft.costs.base_s + realtime_s + interactive_s
    slack_s = (realtime_due_s - draft.now_s) / draft.strict_gamma
    draft.realtime_limit_s = slack_s if slack_s >= draft.used_s else inf
    other_s = min((interactive_due_s - draft.now_s) / draft.strict_gamma, _even_s(draft, interactive))
    longest_s = state.options.max_step_s * state.model.confidence
    guards_s = min(_realtime_guard_s(state, draft), _interactive_guard_s(state, draft))
    draft.limit_s = max(draft.used_s, min(slack_s, other_s, guards_s, longest_s))


def _even_s(draft: Draft, decodes: Collection[Sequence]) -> float:
    """Longest step that keeps gaps within TPOT, so that a jitter buffer is there for noise, not for every step."""
    tpot_s = min(map(_tpot_of, decodes), default=inf)
    return tpot_s * max(1.0 / draft.strict_gamma, EVEN_SHARE)


def _decodes(draft: Draft, decodes: Collection[Sequence]) -> tuple[float, float]:
    """(when the first of them is due, what they add to a step)."""
    if not decodes:
        return inf, 0.0
    context = sum(map(_computed_of, decodes))
    return min(map(_deadline_of, decodes)), draft.costs.decodes_s(len(decodes), context)


def _realtime_guard_s(state: TokenState, draft: Draft) -> float:
    guard, gamma = state.guards[REALTIME], draft.gamma
    if not guard.is_armed(draft.now_s):
        return inf
    own_s = draft.used_s + draft.costs.chunk_s(guard.prompt_tokens, 0)
    return guard.bound_s(gamma * own_s) / gamma


def _interactive_guard_s(state: TokenState, draft: Draft) -> float:
    guard, gamma = state.guards[INTERACTIVE], draft.gamma
    if not guard.is_armed(draft.now_s):
        return inf
    own_s = draft.used_s + draft.costs.chunk_s(guard.prompt_tokens, 0)
    return guard.soft_bound_s(gamma * own_s) / gamma


def fill_realtime_decodes(state: TokenState, draft: Draft) -> None:
    _take_decodes(state, draft, REALTIME)
    draft.has_realtime = bool(draft.steps)


def fill_realtime_prompts(state: TokenState, draft: Draft) -> None:
    """Whole prompts: the first whatever it takes, more while all in the step stay in time."""
    queue = state.waiting[REALTIME]
    started = state.residents.prefilling[REALTIME]
    if not queue.num_waiting and not started:
        return
    candidates = Candidates(list(started.values()), deadline_key, queue.order(0), prompt_bucket_s(draft.now_s))
    bound_s = min(draft.realtime_limit_s, state.guards[REALTIME].ttft_s / draft.strict_gamma)
    num_taken = num_skipped = 0
    while draft.has_slots and (num_skipped < MAX_SKIPPED or not draft.steps):
        seq = candidates.next()
        if seq is None:
            break
        fit = _take_whole(state, draft, seq, bound_s if num_taken else inf, num_taken == 0)
        if fit is Fit.NO_TIME:
            draft.is_closed = True
            break
        if fit is Fit.NO_MEMORY:
            candidates.skip_waiting()
            draft.lacks_memory = True
        num_skipped += fit is Fit.LATER
        if fit is Fit.TAKEN:
            num_taken += 1
            left_s = seq.deadline_s - draft.now_s
            if draft.used_s <= left_s:  # it can be in time: nothing more may enter that puts this in doubt
                bound_s = min(bound_s, max(draft.used_s, left_s / draft.strict_gamma))
    candidates.close()
    if num_taken:
        draft.has_realtime = True
        draft.realtime_limit_s = bound_s
        draft.limit_s = max(draft.used_s, min(draft.limit_s, bound_s))


def _take_whole(state: TokenState, draft: Draft, seq: Sequence, bound_s: float, is_first: bool) -> Fit:
    prefix, start_at = _look_up(state, draft, seq)
    if seq.work.may_downgrade and _is_hopeless(draft, seq, start_at):
        relegate(state, draft, seq)
        return Fit.LATER
    num = seq.num_tokens - start_at
    if num > draft.tokens_left:
        if not is_first:
            return Fit.NO_TIME
        num = draft.tokens_left
    if draft.used_s + draft.costs.chunk_s(num, start_at) > bound_s:
        return Fit.NO_TIME
    if seq.phase is Phase.WAITING and not start(state, draft, seq, prefix):
        return Fit.NO_MEMORY
    draft.take_chunk(seq, num)
    return Fit.TAKEN


def fill_interactive_decodes(state: TokenState, draft: Draft) -> None:
    _take_decodes(state, draft, INTERACTIVE)


def _take_decodes(state: TokenState, draft: Draft, tier: Tier) -> None:
    decodes = list(state.residents.decoding[tier].values())
    slots = min(draft.sequences_left, draft.tokens_left)
    if len(decodes) > slots:
        decodes = nsmallest(slots, decodes, key=lambda seq: (seq.deadline_s, seq.advanced_s, seq.order))
    _take_all(state, draft, decodes)


def _take_all(state: TokenState, draft: Draft, decodes: list[Sequence]) -> None:
    """Those among them that have or get a place for their next token."""
    lacking = [seq for seq in decodes if seq.computed >= seq.room_tokens]
    if len(lacking) <= state.memory.pool.num_available:
        for seq in lacking:
            state.memory.grow(seq)
        draft.take_decodes(decodes)
        return
    for seq in decodes:
        if _has_place(state, draft, seq):
            draft.take_decodes([seq])


def _has_place(state: TokenState, draft: Draft, seq: Sequence) -> bool:
    """False too for one that was evicted for another earlier in this step."""
    return seq.computed < seq.room_tokens or (seq.phase is Phase.DECODE and grow(state, draft, seq))


def fill_interactive_prompts(state: TokenState, draft: Draft) -> None:
    """By deadline plus alpha times what remains, in chunks that fit the slack."""
    queue = state.waiting[INTERACTIVE]
    started = state.residents.prefilling[INTERACTIVE]
    if draft.is_closed or not (queue.num_waiting or started):
        return
    level = state.interactive_level()
    key = interactive_keys(state.model, state.options)[level]
    candidates = Candidates(list(started.values()), key, queue.order(level), prompt_bucket_s(draft.now_s))
    _take_prompts(state, draft, candidates, _take_interactive)
    candidates.close()


def _take_prompts(
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


def _take_interactive(state: TokenState, draft: Draft, seq: Sequence) -> Fit:
    if _is_hopeless(draft, seq, seq.num_tokens):  # even if all of it were cached: spares the look-up
        (relegate if seq.work.may_downgrade else postpone)(state, draft, seq)
        return Fit.LATER
    prefix, start_at = _look_up(state, draft, seq)
    if _is_hopeless(draft, seq, start_at):
        (relegate if seq.work.may_downgrade else postpone)(state, draft, seq)
        return Fit.LATER
    at_least = 0 if draft.num_prompts else state.options.min_chunk_tokens
    if draft.used_s + draft.costs.chunk_s(at_least, start_at) > draft.realtime_limit_s:
        at_least = 0
    fit = _take_chunk(state, draft, seq, prefix, start_at, at_least)
    draft.num_prompts += fit is Fit.TAKEN
    return fit


def _look_up(state: TokenState, draft: Draft, seq: Sequence) -> tuple[list[int], int]:
    """(reusable blocks, where computing would begin)."""
    if seq.phase is not Phase.WAITING:
        return [], seq.computed
    prefix = state.memory.find_prefix(seq)
    return prefix, len(prefix) * draft.block_tokens


def _take_chunk(state: TokenState, draft: Draft, seq: Sequence, prefix: list[int], start_at: int, at_least: int) -> Fit:
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


def _is_hopeless(draft: Draft, seq: Sequence, start_at: int) -> bool:
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


def spare_arrivals(state: TokenState, draft: Draft) -> None:
    """Whoever arrives next waits for this step: batch work may make it as long as a share of what an interactive
    prompt's own step takes, even where promises would allow more. Urgent batch work asks for no leave."""
    draft.whole_limit_s = draft.limit_s
    guard = state.guards[INTERACTIVE]
    if guard.is_armed(draft.now_s):
        own_s = draft.costs.base_s + draft.costs.chunk_s(guard.prompt_tokens, 0)
        _, batch_s = _decodes(draft, state.residents.decoding[BATCH].values())
        least_s = min(SPARED_BASES * draft.costs.base_s, SPARED_SHARE * (draft.used_s + batch_s))
        spared_s = max(least_s, state.options.batch_delay * own_s)
        draft.limit_s = max(draft.used_s, min(draft.limit_s, spared_s))


def fill_batch_decodes(state: TokenState, draft: Draft) -> None:
    """All that fit the budget; the others keep their blocks and sit this step out. Urgent first, then longest idle."""
    decodes = list(state.residents.decoding[BATCH].values())
    if draft.is_closed or not decodes:
        return
    _, cost_s = _decodes(draft, decodes)
    if cost_s > draft.room_s or len(decodes) > min(draft.tokens_left, draft.sequences_left):
        _take_some_batch(state, draft, decodes)
        return
    draft.used_s += cost_s
    _take_all(state, draft, decodes)


def fill_all_batch_decodes(state: TokenState, draft: Draft) -> None:
    """What engines without pausing do; for comparisons."""
    for seq in list(state.residents.decoding[BATCH].values()):
        if draft.has_slots and _has_place(state, draft, seq):
            draft.used_s += draft.costs.decodes_s(1, seq.computed)
            draft.take_decodes([seq])


def _take_some_batch(state: TokenState, draft: Draft, decodes: list[Sequence]) -> None:
    ranked = sorted([(not _is_urgent(state, draft, seq), seq.advanced_s, seq.order, seq) for seq in decodes])
    chosen: list[Sequence] = []
    slots = min(draft.tokens_left, draft.sequences_left)
    for is_patient, _, _, seq in ranked:
        if not is_patient:
            _extend_for_urgent(state, draft)
        cost_s = draft.costs.decodes_s(1, seq.computed)
        if len(chosen) >= slots or cost_s > draft.limit_s - draft.used_s:
            break
        if _has_place(state, draft, seq):
            draft.used_s += cost_s
            seq.step_id = draft.step_id  # it is in: nobody may take its blocks
            chosen.append(seq)
    draft.take_decodes(chosen)


def _is_urgent(state: TokenState, draft: Draft, seq: Sequence) -> bool:
    """Asked of every batch decode of a full step: of one with time to spare not again before half of it has passed."""
    if draft.now_s < seq.patient_until_s:
        return False
    num_outputs = state.lengths[BATCH].estimate(seq.work.max_tokens, len(seq.outputs))
    urgency = state.pace.urgency(seq, num_outputs, draft.costs, draft.used_s, draft.now_s)
    spare_s = (URGENT - urgency) * batch_horizon_s(seq)
    seq.patient_until_s = draft.now_s + min(PATIENT_S, spare_s / 2)
    return urgency > URGENT


def _extend_for_urgent(state: TokenState, draft: Draft) -> None:
    """The floor: work that would miss its window may stretch a step a little, never one with real-time work."""
    if not draft.is_extended:
        draft.is_extended = True
        draft.limit_s = draft.whole_limit_s
        if not draft.has_realtime:
            draft.limit_s *= 1.0 + state.options.batch_floor


def fill_batch_prompts(state: TokenState, draft: Draft) -> None:
    """What is left goes to batch prompts in order of their due times."""
    queue = state.waiting[BATCH]
    started = state.residents.prefilling[BATCH]
    if draft.is_closed or not draft.has_slots or not (queue.num_waiting or started):
        return
    candidates = Candidates(list(started.values()), due_key, queue.order(0), batch_bucket_s(draft.now_s))
    if draft.lacks_memory:
        candidates.skip_waiting()
    _take_prompts(state, draft, candidates, _take_batch_prompt)
    candidates.close()


def _take_batch_prompt(state: TokenState, draft: Draft, seq: Sequence) -> Fit:
    if _is_urgent(state, draft, seq):
        _extend_for_urgent(state, draft)
    prefix, start_at = _look_up(state, draft, seq)
    return _take_chunk(state, draft, seq, prefix, start_at, 0)


def force_batch(state: TokenState, draft: Draft) -> None:
    """No budget, however tight, leaves the device idle: one batch sequence makes the smallest useful progress."""
    if not draft.steps:
        draft.limit_s = draft.whole_limit_s = inf
        draft.sequences_left = 1
        draft.tokens_left = min(draft.tokens_left, state.options.min_chunk_tokens)
        fill_batch_decodes(state, draft)
        fill_batch_prompts(state, draft)


def break_standstill(state: TokenState, draft: Draft) -> None:
    """All that hold blocks wait for one: evict, one sequence at a time, until something runs."""
    while not draft.steps and (victim := youngest_evictable(state)) is not None:
        evict(state, draft, victim)
        for stage in (fill_realtime_decodes, fill_interactive_decodes, force_batch):
            stage(state, draft)
