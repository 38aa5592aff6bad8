"""First come, first served with chunked prefill: Sarathi-Serve (Agrawal et al., OSDI 2024), vLLM's default policy.

Decodes first, so that prompts never stall them; what is left of a fixed token budget goes to prompts in order of
arrival. The budget is the knob: small keeps gaps short, large computes prompts faster.
"""

from speciate.core.engine import TokenEngineShape
from speciate.scheduling.baselines.staged import (
    StagedScheduler,
    above_watermark,
    all_decodes,
    arrival,
    fixed_budget,
    prompt_chunks,
)
from speciate.scheduling.options import TokenSchedulerOptions


def fcfs(shape: TokenEngineShape, options: TokenSchedulerOptions, *, step_tokens: int = 512) -> StagedScheduler:
    stages = (fixed_budget(step_tokens), all_decodes(arrival), prompt_chunks(arrival, above_watermark))
    return StagedScheduler(shape, options, arrival, stages)
