"""The answers of admission. Refusals are values here and become exceptions once, in the gateway."""

from msgspec import Struct

from speciate.core.segment import Tier


class Allowance(Struct, frozen=True):
    """Of one quantity: what an idle server takes, what it still takes now, and when it takes all of it again."""

    limit: int
    remaining: int
    reset_s: float


class Room(Struct, frozen=True):
    """What one tier of one model still takes, told to clients so that they pace themselves."""

    requests: Allowance
    tokens: Allowance
    """Prompt tokens."""


class Admitted(Struct, frozen=True, tag="admitted"):
    """It may enter, in this tier (slower than asked for only if the caller allowed it)."""

    tier: Tier


class Refused(Struct, frozen=True, tag="refused"):
    """It may not enter now."""

    reason: str
    """What is full, the value, and what to do."""
    retry_after_s: float
    """When the queue that refused it is expected to have room; 0 < s <= 120."""
    earliest_deadline_s: float | None = None
    """The earliest deadline that would be accepted now, absolute; None where no deadline stood in the way."""


Verdict = Admitted | Refused
