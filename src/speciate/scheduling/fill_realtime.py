"""Real-time work in a step: all its decodes, and whole prompts while all in the step stay in time."""

from speciate.scheduling.aside import step_aside
from speciate.scheduling.draft import Draft
from speciate.scheduling.evict import start
from speciate.scheduling.fill import MAX_SKIPPED, Fit, look_up, take_decodes
from speciate.scheduling.relegate import is_hopeless, relegate
from speciate.scheduling.sequence import REALTIME, Phase, Sequence
from speciate.scheduling.state import TokenState, deadline_key
from speciate.scheduling.waiting import Candidates, prompt_bucket_s


def fill_realtime_decodes(state: TokenState, draft: Draft) -> None:
    take_decodes(state, draft, list(state.residents.decoding[REALTIME].values()))
    draft.has_realtime = bool(draft.steps)


def fill_realtime_prompts(state: TokenState, draft: Draft) -> None:
    """Whole prompts: the first unless it can as well wait, more while all in the step stay in time."""
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
        fit = _take_whole(state, draft, seq, bound_s, is_first=num_taken == 0)
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
    prefix, start_at = look_up(state, draft, seq)
    if seq.work.may_downgrade and is_hopeless(draft, seq, start_at):
        relegate(state, draft, seq)
        return Fit.LATER
    num = seq.num_tokens - start_at
    if num > draft.tokens_left and not is_first:
        return Fit.NO_TIME
    num = min(num, draft.tokens_left)
    own_s = draft.costs.chunk_s(num, start_at)
    due_s = (seq.deadline_s - draft.now_s) / draft.gamma
    if draft.used_s + own_s > min(bound_s, due_s):
        step_aside(state, draft, own_s)
    if draft.used_s + own_s > bound_s and (not is_first or _can_wait(state, draft, own_s, bound_s, due_s)):
        return Fit.NO_TIME
    if seq.phase is Phase.WAITING and not start(state, draft, seq, prefix):
        return Fit.NO_MEMORY
    draft.take_chunk(seq, num)
    return Fit.TAKEN


def _can_wait(state: TokenState, draft: Draft, own_s: float, bound_s: float, due_s: float) -> bool:
    """Whether it would be in time in the next step, without making running real-time work late there."""
    next_s = draft.costs.base_s + draft.decodes_s(state.residents.decoding[REALTIME].values()) + own_s
    return next_s <= bound_s and draft.used_s + next_s <= due_s
