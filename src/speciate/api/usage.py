"""Token counts in OpenAI's words."""

from collections.abc import Sequence

from msgspec import Struct

from speciate.core.output import Finish
from speciate.core.segment import TIER_RANK, Tier


class PromptDetails(Struct, frozen=True):
    cached_tokens: int
    cache_write_tokens: int = 0
    audio_tokens: int = 0


class CompletionDetails(Struct, frozen=True):
    reasoning_tokens: int = 0
    audio_tokens: int = 0
    accepted_prediction_tokens: int = 0
    rejected_prediction_tokens: int = 0


class CompletionUsage(Struct, frozen=True):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails


def usage_of(finishes: Sequence[Finish], reasoning_tokens: int = 0, *, choices_per_prompt: int = 1) -> CompletionUsage:
    """Over all choices; a prompt counts once however many choices continue it."""
    prompts = finishes[::choices_per_prompt]
    prompt_tokens = sum(f.usage.prompt_tokens for f in prompts)
    completion_tokens = sum(f.usage.completion_tokens for f in finishes)
    return CompletionUsage(
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        total_tokens=prompt_tokens + completion_tokens,
        prompt_tokens_details=PromptDetails(cached_tokens=sum(f.usage.cached_tokens for f in prompts)),
        completion_tokens_details=CompletionDetails(reasoning_tokens),
    )


def served_tier(finishes: Sequence[Finish]) -> Tier:
    """The slowest tier among the choices: the one that the caller was really given."""
    return max((f.tier for f in finishes), key=TIER_RANK.__getitem__)
