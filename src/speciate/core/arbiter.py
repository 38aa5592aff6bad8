"""What a scheduler says to the arbiter of its device, so that several share it. Pure."""

from math import inf
from typing import Protocol

from msgspec import Struct

from speciate.core.segment import Tier


class DeviceClaim(Struct, frozen=True):
    """How urgently a scheduler wants the device for its work of one tier."""

    tier: Tier
    laxity_s: float
    """How long its most urgent work may still wait, margin included, and be in time; negative: it is late already;
    infinite: nothing presses."""
    min_step_s: float = 0.0
    """The shortest step that would get it on, margin included."""


class DeviceGuard(Struct, frozen=True):
    """What a scheduler cannot bear of the others, whether or not it has work."""

    tier: Tier
    longest_step_s: float = inf
    """A step of somebody else may last this long so that a request that has not arrived yet is still in time."""


class Wish(Struct, frozen=True):
    """All that a scheduler says at one moment."""

    claims: tuple[DeviceClaim, ...] = ()
    """At most one a tier; none without work that could run now."""
    guards: tuple[DeviceGuard, ...] = ()
    """Those that are armed now."""


class Sharer(Protocol):
    """A scheduler as its device's arbiter sees it."""

    def wish(self, now_s: float) -> Wish:
        """Changes no decision."""
        ...
