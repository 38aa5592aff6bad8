"""The budget of a step: slack of the decodes that must run, and guards for who may arrive."""

from collections.abc import Callable, Collection
from math import inf
from operator import attrgetter

from speciate.scheduling.draft import Draft
from speciate.scheduling.sequence import BATCH, INTERACTIVE, REALTIME, Sequence
from speciate.scheduling.state import TokenState

JOINT = 0.75
"""An arrival waits for one step and needs another. Their errors are two draws: the 95th percentile of the sum is about
so much of the way to the sum of the two 95th percentiles."""
SPARED_BASES = 1.5
"""A step for batch work lasts at least so many times what an empty one takes: shorter ones would waste the device."""
SPARED_SHARE = 0.75
"""But no longer than this share of a step with all batch decodes: shorter ones teach what an empty one takes."""
EVEN_SHARE = 0.87
"""Even gaps may cost so much of a TPOT: on a steady machine p99 gaps then keep to TPOT for 2 % of the batch rate (A100
simulation, 3 % noise); on one with 15 % noise they would cost 17 %, and the buffer has to do."""

_deadline_of: Callable[[Sequence], float] = attrgetter("deadline_s")
_tpot_of: Callable[[Sequence], float] = attrgetter("tpot_s")


def set_limits(state: TokenState, draft: Draft) -> None:
    """The budget: slack of the decodes that must run and guards for who may arrive; never less than those decodes."""
    realtime = state.residents.decoding[REALTIME].values()
    interactive = state.residents.decoding[INTERACTIVE].values()
    draft.used_s = draft.costs.base_s + draft.decodes_s(realtime) + draft.decodes_s(interactive)
    slack_s = (_first_due_s(realtime) - draft.now_s) / draft.strict_gamma
    draft.realtime_limit_s = slack_s if slack_s >= draft.used_s else inf
    other_s = min((_first_due_s(interactive) - draft.now_s) / draft.strict_gamma, _even_s(draft, interactive))
    longest_s = state.options.max_step_s * state.model.confidence
    guards_s = min(_realtime_guard_s(state, draft), _interactive_guard_s(state, draft))
    draft.limit_s = max(draft.used_s, min(slack_s, other_s, guards_s, longest_s))


def spare_arrivals(state: TokenState, draft: Draft) -> None:
    """Whoever arrives next waits for this step: batch work may make it as long as a share of what an interactive
    prompt's own step takes, even where promises would allow more. Urgent batch work asks for no leave."""
    draft.whole_limit_s = draft.limit_s
    guard = state.guards[INTERACTIVE]
    if guard.is_armed(draft.now_s):
        own_s = draft.costs.base_s + draft.costs.chunk_s(guard.prompt_tokens, 0)
        batch_s = draft.decodes_s(state.residents.decoding[BATCH].values())
        least_s = min(SPARED_BASES * draft.costs.base_s, SPARED_SHARE * (draft.used_s + batch_s))
        spared_s = max(least_s, state.options.batch_delay * own_s)
        draft.limit_s = max(draft.used_s, min(draft.limit_s, spared_s))


def _even_s(draft: Draft, decodes: Collection[Sequence]) -> float:
    """Longest step that keeps gaps within TPOT, so that a jitter buffer is there for noise, not for every step."""
    tpot_s = min(map(_tpot_of, decodes), default=inf)
    return tpot_s * max(1.0 / draft.strict_gamma, EVEN_SHARE)


def _first_due_s(decodes: Collection[Sequence]) -> float:
    return min(map(_deadline_of, decodes), default=inf)


def _realtime_guard_s(state: TokenState, draft: Draft) -> float:
    guard, gamma = state.guards[REALTIME], draft.gamma
    if not guard.is_armed(draft.now_s):
        return inf
    must_s = draft.used_s - _patient_s(state, draft, guard.ttft_s)
    joint = 1.0 + JOINT * (gamma - 1.0)
    own_steps_s = [joint * (must_s + draft.costs.chunk_s(num, 0)) for num in guard.sampled_prompts()]
    return guard.shared_bound_s(own_steps_s, state.model.margin.late_arrivals) / joint


def _patient_s(state: TokenState, draft: Draft, ttft_s: float) -> float:
    """What the decodes add to a step that would step aside for an arrival: their tokens are not due so soon."""
    return draft.decodes_s([seq for seq in state.residents.decoding[INTERACTIVE].values() if seq.tpot_s >= ttft_s])


def _interactive_guard_s(state: TokenState, draft: Draft) -> float:
    guard, gamma = state.guards[INTERACTIVE], draft.gamma
    if not guard.is_armed(draft.now_s):
        return inf
    own_s = draft.used_s + draft.costs.chunk_s(guard.prompt_tokens, 0)
    return guard.soft_bound_s(gamma * own_s) / gamma
