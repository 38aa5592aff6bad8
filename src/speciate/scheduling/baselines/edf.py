"""Earliest deadline first with chunked prefill: "Sarathi-EDF" of QoServe's evaluation (Goel et al., ASPLOS 2026).

Prompts in order of the moment their first token is due (their end, for batch work). Knob: the fixed token budget.
"""

from speciate.core.engine import TokenEngineShape
from speciate.scheduling.baselines.staged import (
    StagedScheduler,
    above_watermark,
    all_decodes,
    due,
    fixed_budget,
    prompt_chunks,
)
from speciate.scheduling.options import TokenSchedulerOptions


def edf(shape: TokenEngineShape, options: TokenSchedulerOptions, *, step_tokens: int = 512) -> StagedScheduler:
    stages = (fixed_budget(step_tokens), all_decodes(due), prompt_chunks(due, above_watermark))
    return StagedScheduler(shape, options, due, stages)
