"""Settings of the front door."""

from msgspec import Struct, field

from speciate.core.segment import Segment, Slo, Tier


class ApiKey(Struct, frozen=True):
    """A secret and whose it is."""

    key: str
    tenant: str = "default"


def default_segments() -> dict[Tier, Segment]:
    """One text segment a tier, with the promises that the tiers are named for."""
    return {
        Tier.REALTIME: Segment(
            "realtime-text", Tier.REALTIME, Slo(ttft_s=0.1, tpot_s=0.05, share=0.99), preemptible=False
        ),
        Tier.INTERACTIVE: Segment("interactive-text", Tier.INTERACTIVE, Slo(ttft_s=1.0, tpot_s=0.1)),
        Tier.BATCH: Segment("batch-text", Tier.BATCH, Slo(e2e_s=24 * 3600.0)),
    }


class ApiOptions(Struct, frozen=True):
    """How requests are read, how long clients may take, and which segment serves which tier."""

    api_keys: tuple[ApiKey, ...] = ()
    """Empty: everybody may enter."""
    segments: dict[Tier, Segment] = field(default_factory=default_segments)
    """The segment of each tier that the wire can name; all three tiers."""
    max_body_bytes: int = 8 * 1024 * 1024
    heartbeat_s: float = 15.0
    """A comment is sent on a stream that has been silent this long, before the first token too."""
    write_stall_s: float = 60.0
    """A client that takes nothing for this long is given up, and its work stops."""
    max_stored_responses: int = 1024
    """Responses kept in memory for `previous_response_id` and retrieval; the oldest finished one leaves first."""
    max_background_responses: int = 256
    """Responses that may be running in the background at once; more are refused with 429."""
    cors_origins: tuple[str, ...] = ()
    """Browser origins that may call; empty sends no CORS headers."""
