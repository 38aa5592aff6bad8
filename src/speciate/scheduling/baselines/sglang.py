"""SGLang with `--enable-priority-scheduling` (sglang/srt/managers/schedule_policy.py, 2026).

Prefill first: while prompts can start, steps hold prompts alone, and decodes wait (#32549); mixed chunks
(`--enable-mixed-chunk`) add the decodes. Waiting prompts go by (priority, arrival). One that lacks memory takes it from
running requests whose priority is lower by more than a threshold, least important and newest first; their KV is
released. A prompt starts only if it and a share (new_token_ratio) of what all running ones may yet write has room.
Knobs: chunk size, mixed or not, the threshold.
"""

from collections.abc import Callable
from functools import partial

from msgspec import Struct

from speciate.core.engine import TokenEngineShape
from speciate.core.segment import TIER_RANK, Tier
from speciate.scheduling.baselines.staged import (
    Prompts,
    StagedScheduler,
    all_decodes,
    decoding,
    fixed_budget,
    take_chunk,
)
from speciate.scheduling.baselines.vllm_priority import by_priority
from speciate.scheduling.draft import Draft
from speciate.scheduling.evict import evict
from speciate.scheduling.fill import Stage
from speciate.scheduling.options import TokenSchedulerOptions
from speciate.scheduling.sequence import Phase, Sequence
from speciate.scheduling.state import TokenState

PRIORITY = {Tier.REALTIME: 100, Tier.INTERACTIVE: 50, Tier.BATCH: 0}
CLIPPED_OUTPUT = 4096
"""At most so many future tokens of a request are planned for (CLIP_MAX_NEW_TOKENS_ESTIMATION)."""


class SglangOptions(Struct, frozen=True):
    """Its command line, where it matters here."""

    chunk_tokens: int = 2048
    preemption_threshold: int = 10
    new_token_ratio: float = 0.3
    """It moves from 0.7 to about 0.1 while a server runs; here one value."""


def sglang(shape: TokenEngineShape, options: TokenSchedulerOptions, knobs: SglangOptions) -> StagedScheduler:
    """The default: prompts and decodes in separate steps."""
    stages = (fixed_budget(knobs.chunk_tokens), _prompts(knobs), _if_empty(_unbounded_decodes(shape)))
    return StagedScheduler(shape, options, by_priority, stages)


def sglang_mixed(shape: TokenEngineShape, options: TokenSchedulerOptions, knobs: SglangOptions) -> StagedScheduler:
    """With mixed chunks: decodes ride along with each prompt chunk."""
    stages = (fixed_budget(knobs.chunk_tokens), _prompts(knobs), _unbounded_decodes(shape))
    return StagedScheduler(shape, options, by_priority, stages)


def _prompts(knobs: SglangOptions) -> Stage:
    room = partial(_has_room, knobs)

    def stage(state: TokenState, draft: Draft) -> None:
        prompts = Prompts(state, by_priority)
        while draft.has_slots and (seq := prompts.next()) is not None:
            if not take_chunk(state, draft, seq, room) and not _preempt_for(state, draft, seq, knobs):
                prompts.skip_waiting()
        prompts.close()

    return stage


def _preempt_for(state: TokenState, draft: Draft, seq: Sequence, knobs: SglangOptions) -> bool:
    """Evict less important decodes until it could start, then start it; nothing is evicted if that is not enough."""
    if seq.phase is not Phase.WAITING or seq.evicted_step_id == draft.step_id:
        return False
    limit = PRIORITY[seq.tier] - knobs.preemption_threshold
    victims = sorted(
        (other for other in decoding(state) if PRIORITY[other.tier] < limit and not draft.is_taken(other)),
        key=lambda other: (-TIER_RANK[other.tier], -other.order),
    )
    needed = state.memory.num_blocks_for(seq.num_tokens) + _planned_blocks(state, seq, knobs)
    recovered, chosen = state.memory.pool.num_available - _all_planned_blocks(state, knobs), []
    for victim in victims:
        if recovered >= needed:
            break
        chosen.append(victim)
        recovered += len(victim.table) - victim.num_shared + _planned_blocks(state, victim, knobs)
    if not chosen or recovered < needed:
        return False
    for victim in chosen:
        evict(state, draft, victim)
    return take_chunk(state, draft, seq, _always)


def _unbounded_decodes(shape: TokenEngineShape) -> Stage:
    """The chunk size bounds prompts, not decodes."""
    decodes = all_decodes(by_priority)

    def stage(state: TokenState, draft: Draft) -> None:
        draft.tokens_left = shape.max_step_tokens - draft.num_prefill
        decodes(state, draft)

    return stage


def _if_empty(inner: Callable[[TokenState, Draft], None]) -> Stage:
    def stage(state: TokenState, draft: Draft) -> None:
        if not draft.steps:
            inner(state, draft)

    return stage


def _has_room(knobs: SglangOptions, state: TokenState, seq: Sequence, num_blocks: int) -> bool:
    planned = _all_planned_blocks(state, knobs) + _planned_blocks(state, seq, knobs)
    return state.memory.pool.num_available >= num_blocks + planned


def _all_planned_blocks(state: TokenState, knobs: SglangOptions) -> int:
    return sum(_planned_blocks(state, seq, knobs) for seq in decoding(state))


def _planned_blocks(state: TokenState, seq: Sequence, knobs: SglangOptions) -> int:
    left = min(seq.work.max_tokens - len(seq.outputs), CLIPPED_OUTPUT)
    return state.memory.num_blocks_for(int(left * knobs.new_token_ratio))


def _always(state: TokenState, seq: Sequence, num_blocks: int) -> bool:
    del state, seq, num_blocks
    return True
