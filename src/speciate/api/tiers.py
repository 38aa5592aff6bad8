"""The words that clients have for a class of work, and the tiers that they mean."""

from collections.abc import Mapping
from typing import Literal

from speciate.core.segment import Tier

ServiceTier = Literal["auto", "default", "flex", "scale", "priority", "fast", "ultrafast"]
"""OpenAI's words of November 2026; `fast` is the newer name of `priority`."""

TIER_OF_WORD: dict[str, Tier] = {
    "default": Tier.INTERACTIVE,
    "scale": Tier.INTERACTIVE,
    "flex": Tier.BATCH,
    "priority": Tier.REALTIME,
    "fast": Tier.REALTIME,
    "ultrafast": Tier.REALTIME,
}
WORD_OF_TIER: dict[Tier, str] = {Tier.REALTIME: "priority", Tier.INTERACTIVE: "default", Tier.BATCH: "flex"}

_TIER_OF_OBJECTIVE: dict[bytes, Tier] = {t.value.encode(): t for t in Tier} | {
    word.encode(): tier for word, tier in TIER_OF_WORD.items()
}


def tier_asked(service_tier: str | None, priority: int | None, headers: Mapping[bytes, bytes]) -> Tier | None:
    """The body's word counts first, then vLLM's `priority` (lower is more urgent), then the gateway's header. None
    where nothing was said, or `auto`: the model's policy decides."""
    if service_tier == "auto":
        return None
    if service_tier is not None:
        return TIER_OF_WORD[service_tier]
    if priority is not None:
        return tier_of_priority(priority)
    objective = headers.get(b"x-gateway-inference-objective")
    if objective is not None:
        return _TIER_OF_OBJECTIVE.get(objective.lower())
    return None


def tier_of_priority(priority: int) -> Tier:
    if priority < 0:
        return Tier.REALTIME
    return Tier.INTERACTIVE if priority == 0 else Tier.BATCH
