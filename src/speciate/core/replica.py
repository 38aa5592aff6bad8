"""What a replica says about itself: the facts that admission and routing decide on."""

from msgspec import Struct

from speciate.core.segment import Tier


class TierLoad(Struct, frozen=True):
    """One tier's work on a replica."""

    num_waiting: int = 0
    num_running: int = 0
    waiting_tokens: int = 0
    """Prompt tokens not yet computed."""
    backlog_s: float = 0.0
    """Predicted step-seconds until the prompts that wait in this tier are computed."""
    demand: float = 0.0
    """Share of the device, 0..1, that the running sequences of this tier need to keep their promised pace; of real-time
    work also those that wait."""
    output_tokens: int | None = None
    """90th percentile of the lengths of its last outputs; None before enough are known."""


class ReservedShare(Struct, frozen=True):
    """Real-time capacity kept for an owner, and how much of it is in use."""

    tenant: str | None
    """None: whoever asks this replica for real-time work."""
    share: float
    """Of the device, 0..1."""
    used: float


class ReplicaLoad(Struct, frozen=True):
    """A snapshot; `tiers` holds every tier."""

    tiers: dict[Tier, TierLoad]
    free_blocks: int
    """Blocks that can be handed out now, cached ones included."""
    total_blocks: int
    cached_blocks: int = 0
    """Those of the free blocks that still hold reusable prefixes."""
    step_s: float = 0.0
    """Predicted duration of a step with everything that must run now."""
    prefill_token_s: float = 0.0
    """Predicted seconds a prompt token."""
    decode_token_s: float = 0.0
    """Predicted seconds one more decode adds to a step."""
    margin: float = 1.0
    """gamma: observed over predicted step time, 95th percentile."""
    prediction_error: float = 0.0
    """Mean absolute error of predicted step times, relative."""
    wasted_s: float = 0.0
    """Step-seconds spent so far on work that nobody got: cancelled, expired, evicted."""
    num_evictions: int = 0
    prefix_query_tokens: int = 0
    prefix_hit_tokens: int = 0
    reserved: tuple[ReservedShare, ...] = ()
