"""Batch work in a step: decodes that fit, prompts in what is left, and the last resorts that keep the device going."""

from math import inf

from speciate.scheduling.draft import Draft
from speciate.scheduling.evict import evict, youngest_evictable
from speciate.scheduling.fill import Fit, has_place, look_up, take_all, take_chunk, take_prompts
from speciate.scheduling.fill_interactive import fill_interactive_decodes
from speciate.scheduling.fill_realtime import fill_realtime_decodes
from speciate.scheduling.pace import URGENT
from speciate.scheduling.sequence import BATCH, Sequence
from speciate.scheduling.state import TokenState, due_key
from speciate.scheduling.waiting import Candidates, batch_bucket_s, batch_horizon_s

PATIENT_S = 1.0
"""For so long at most nobody asks again whether a batch sequence with time to spare is urgent."""


def fill_batch_decodes(state: TokenState, draft: Draft) -> None:
    """All that fit the budget; the others keep their blocks and sit this step out. Urgent first, then longest idle."""
    decodes = list(state.residents.decoding[BATCH].values())
    if draft.is_closed or not decodes:
        return
    cost_s = draft.decodes_s(decodes)
    if cost_s > draft.room_s or len(decodes) > min(draft.tokens_left, draft.sequences_left):
        _take_some_batch(state, draft, decodes)
        return
    draft.used_s += cost_s
    take_all(state, draft, decodes)


def fill_all_batch_decodes(state: TokenState, draft: Draft) -> None:
    """What engines without pausing do; for comparisons."""
    for seq in list(state.residents.decoding[BATCH].values()):
        if draft.has_slots and has_place(state, draft, seq):
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
        if has_place(state, draft, seq):
            draft.used_s += cost_s
            seq.step_id = draft.step_id  # it is in: nobody may take its blocks
            chosen.append(seq)
    draft.take_decodes(chosen)


def _is_urgent(state: TokenState, draft: Draft, seq: Sequence) -> bool:
    """Asked of every batch decode of a full step: of one with time to spare not again before half of it has passed."""
    if draft.now_s < seq.patient_until_s:
        return False
    num_outputs = state.lengths[BATCH].estimate(seq.work.tenant, seq.work.max_tokens, len(seq.outputs))
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
    take_prompts(state, draft, candidates, _take_batch_prompt)
    candidates.close()


def _take_batch_prompt(state: TokenState, draft: Draft, seq: Sequence) -> Fit:
    if _is_urgent(state, draft, seq):
        _extend_for_urgent(state, draft)
    prefix, start_at = look_up(state, draft, seq)
    return take_chunk(state, draft, seq, prefix, start_at, 0)


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
