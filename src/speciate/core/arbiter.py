"""What a scheduler says to the arbiter of its device, so that several share it. Pure."""

from math import inf
from typing import Protocol

from msgspec import Struct

from speciate.core.segment import Tier


class DeviceClaim(Struct, frozen=True):
    """How urgently a scheduler wants the device now."""

    tier: Tier
    """Of its most urgent work."""
    laxity_s: float
    """How long that work may still wait, margin included, and be in time; negative: it is late already."""
    min_step_s: float = 0.0
    """The shortest step that would get it on, margin included."""


class DeviceGuard(Struct, frozen=True):
    """What a scheduler cannot bear of the others, whether or not it has work."""

    tier: Tier
    longest_step_s: float = inf
    """A step of somebody else may last this long so that a request that has not arrived yet is still in time."""


class Sharer(Protocol):
    """A scheduler as its device's arbiter sees it."""

    @property
    def name(self) -> str: ...

    def claim(self, now_s: float) -> DeviceClaim | None:
        """None while it has no work. Changes nothing."""
        ...

    def guards(self, now_s: float) -> tuple[DeviceGuard, ...]:
        """Those that are armed now. Changes nothing."""
        ...
