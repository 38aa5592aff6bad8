"""Interactive work in a step: all its decodes, and chunks of prompts that fit the slack."""

from itertools import islice

from speciate.scheduling.aside import rejoin
from speciate.scheduling.draft import Draft
from speciate.scheduling.fill import Fit, look_up, take_chunk, take_decodes, take_prompts
from speciate.scheduling.on_time import Prompt, PromptPace, giving_way
from speciate.scheduling.relegate import is_hopeless, postpone, relegate
from speciate.scheduling.sequence import INTERACTIVE, Sequence
from speciate.scheduling.state import TokenState, interactive_keys
from speciate.scheduling.waiting import Candidates, prompt_bucket_s

NUM_RANKED = 8
"""So many of the first prompts are looked at together; bounds the cost of a step."""


def fill_interactive_decodes(state: TokenState, draft: Draft) -> None:
    """All; those that stepped aside for a real-time prompt only if there is room after all."""
    decodes = list(state.residents.decoding[INTERACTIVE].values())
    if not draft.aside:
        take_decodes(state, draft, decodes)
        return
    take_decodes(state, draft, [seq for seq in decodes if seq.seq_id not in draft.aside])
    if not draft.is_closed:
        rejoin(state, draft)


def fill_interactive_prompts(state: TokenState, draft: Draft) -> None:
    """In chunks that fit the slack, by deadline plus alpha times what remains; first those that can all be in time."""
    queue = state.waiting[INTERACTIVE]
    started = state.residents.prefilling[INTERACTIVE]
    if draft.is_closed or not (queue.num_waiting or started):
        return
    level = state.interactive_level()
    key = interactive_keys(state.model, state.options)[level]
    candidates = Candidates(list(started.values()), key, queue.order(level), prompt_bucket_s(draft.now_s))
    _rank(state, draft, candidates)
    take_prompts(state, draft, candidates, _take_interactive)
    candidates.close()


def _rank(state: TokenState, draft: Draft, candidates: Candidates) -> None:
    """If not all of the next few can be in time, the longest of them give way."""
    first = list(islice(iter(candidates.next, None), NUM_RANKED))
    late: frozenset[int] = frozenset()
    if len(first) > 1:
        pace = PromptPace(draft.now_s, draft.used_s, draft.limit_s)
        late = giving_way([_prompt(state, draft, seq) for seq in first], pace)
    in_time = [seq for position, seq in enumerate(first) if position not in late]
    candidates.put_back(in_time + [first[position] for position in sorted(late)])


def _prompt(state: TokenState, draft: Draft, seq: Sequence) -> Prompt:
    _, start_at = look_up(state, draft, seq)
    return Prompt(draft.costs.chunk_s(seq.num_tokens - start_at, start_at), seq.deadline_s, seq.tenant.served)


def _take_interactive(state: TokenState, draft: Draft, seq: Sequence) -> Fit:
    if is_hopeless(draft, seq, seq.num_tokens):  # even if all of it were cached: spares the look-up
        (relegate if seq.work.may_downgrade else postpone)(state, draft, seq)
        return Fit.LATER
    prefix, start_at = look_up(state, draft, seq)
    if is_hopeless(draft, seq, start_at):
        (relegate if seq.work.may_downgrade else postpone)(state, draft, seq)
        return Fit.LATER
    at_least = 0 if draft.num_prompts else state.options.min_chunk_tokens
    if draft.used_s + draft.costs.chunk_s(at_least, start_at) > draft.realtime_limit_s:
        at_least = 0
    fit = take_chunk(state, draft, seq, prefix, start_at, at_least)
    if fit is Fit.TAKEN:
        draft.num_prompts += 1
        _keep_in_time(draft, seq)
    return fit


def _keep_in_time(draft: Draft, seq: Sequence) -> None:
    """If its first token comes at the end of this step, nothing more may enter that puts this in doubt."""
    left_s = (seq.deadline_s - draft.now_s) / draft.gamma
    if draft.chunks[-1][2] and draft.used_s <= left_s:
        draft.limit_s = min(draft.limit_s, left_s)
