"""Interactive decodes that sit a step out for a real-time prompt, while their own promise allows it.

Their work is not saved, only put off: the step that must be short is short. They hold their blocks, and are in the next
step again.
"""

from speciate.scheduling.draft import Draft
from speciate.scheduling.fill import has_place, urgency
from speciate.scheduling.sequence import INTERACTIVE
from speciate.scheduling.state import TokenState


def step_aside(state: TokenState, draft: Draft, own_s: float) -> None:
    """Those that would be in time even after this step, with a prompt of `own_s`, and another one make room; once a
    step."""
    if draft.aside:
        return
    latest_s = draft.now_s + draft.strict_gamma * (2 * draft.used_s + own_s)
    patient = [seq for seq in state.residents.decoding[INTERACTIVE].values() if seq.deadline_s >= latest_s]
    draft.aside = frozenset([seq.seq_id for seq in patient])
    draft.used_s -= draft.decodes_s(patient)


def rejoin(state: TokenState, draft: Draft) -> None:
    """Those that stepped aside and fit after all come back, most urgent first."""
    decodes = state.residents.decoding[INTERACTIVE]
    for seq in sorted((decodes[seq_id] for seq_id in draft.aside if seq_id in decodes), key=urgency):
        cost_s = draft.costs.decodes_s(1, seq.computed)
        if not draft.has_slots or cost_s > draft.room_s:
            return
        if has_place(state, draft, seq):
            draft.used_s += cost_s
            draft.take_decodes([seq])
