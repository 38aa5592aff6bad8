"""vLLM V1 with `--scheduling-policy priority` (vllm/v1/core/sched/scheduler.py, 2026).

Key (priority, arrival), the tier's rank being the priority. All running decodes are in every step; a waiting request
never displaces a running one; only a decode that lacks a KV block evicts, and then the last by (priority, arrival),
by freeing and recomputing. The knob is max_num_batched_tokens: 2048 is the default, 256 trades throughput for gaps.
"""

from speciate.core.engine import TokenEngineShape
from speciate.scheduling.baselines.staged import (
    StagedScheduler,
    above_watermark,
    all_decodes,
    fixed_budget,
    prompt_chunks,
)
from speciate.scheduling.options import TokenSchedulerOptions
from speciate.scheduling.sequence import Sequence

RANK_STEP = 1e12
"""Above any number of arrivals, and far below where a float loses whole numbers."""


def by_priority(seq: Sequence) -> float:
    """(rank, order of arrival) as one exact number."""
    return seq.rank * RANK_STEP + seq.order


def vllm_priority(
    shape: TokenEngineShape, options: TokenSchedulerOptions, *, step_tokens: int = 2048
) -> StagedScheduler:
    stages = (fixed_budget(step_tokens), all_decodes(by_priority), prompt_chunks(by_priority, above_watermark))
    return StagedScheduler(shape, options, by_priority, stages)
