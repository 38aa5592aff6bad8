"""Segments: rows of promises and limits. Data, never a class hierarchy; no code branches on a segment's name."""

from enum import StrEnum

from msgspec import Struct


class Tier(StrEnum):
    """The class of a promise. Order between tiers is `TIER_RANK`, never the enum's own order."""

    REALTIME = "realtime"
    INTERACTIVE = "interactive"
    BATCH = "batch"


TIER_RANK: dict[Tier, int] = {Tier.REALTIME: 0, Tier.INTERACTIVE: 1, Tier.BATCH: 2}
"""Lower rank is more urgent. A tier may be evicted only for one of lower rank."""


class Slo(Struct, frozen=True):
    """A promise in seconds; None promises nothing about that quantity."""

    ttft_s: float | None = None
    """Arrival to first token."""
    tpot_s: float | None = None
    """Between output tokens."""
    e2e_s: float | None = None
    """Arrival to last token (a completion window for batch work)."""
    share: float = 0.95
    """Share of requests, 0..1, that must meet the promise."""


class Segment(Struct, frozen=True):
    """One row: what is promised to a kind of work, and what may be done to it."""

    name: str
    tier: Tier
    slo: Slo
    modality: str = "text"
    preemptible: bool = True
    """Whether its running work may be evicted from KV memory (and recomputed) for a more urgent tier."""
    jitter_buffer: float = 0.0
    """beta: by how much of a TPOT one gap may exceed the promise when earlier tokens came early."""
