"""Admission of pictures and videos to one device: will they be in time? Reads no clock.

in time     they enter
otherwise   batch, if the caller allows it; else refused, with the earliest deadline that could be kept now
"""

from math import ceil, inf

from msgspec import Struct

from speciate.core.admission import Admitted, Refused, Verdict
from speciate.core.denoise_scheduler import DenoiseLoad, Forecast
from speciate.core.segment import Tier

MIN_RETRY_S = 1.0
MAX_RETRY_S = 120.0


class PictureLimits(Struct, frozen=True):
    """Items of a tier that may be pending on one device."""

    realtime: int = 32
    interactive: int = 256
    batch: int = 10_000

    def of(self, tier: Tier) -> int:
        return {Tier.REALTIME: self.realtime, Tier.INTERACTIVE: self.interactive, Tier.BATCH: self.batch}[tier]


class PictureDemand(Struct, frozen=True):
    """`n` pictures of one request enter together or not at all."""

    tier: Tier
    forecast: Forecast
    """Of the last of them."""
    num_items: int = 1
    may_downgrade: bool = False


def admit_picture(demand: PictureDemand, load: DenoiseLoad, limits: PictureLimits, now_s: float) -> Verdict:
    """Whether they may enter now, in their own tier or, if the caller allows it, in batch."""
    refusal = _full_queue(demand.tier, demand, load, limits, now_s) or _late(demand, now_s)
    if refusal is None:
        return Admitted(demand.tier)
    if demand.may_downgrade and demand.tier is not Tier.BATCH:
        return _full_queue(Tier.BATCH, demand, load, limits, now_s) or Admitted(Tier.BATCH)
    return refusal


def _full_queue(
    tier: Tier, demand: PictureDemand, load: DenoiseLoad, limits: PictureLimits, now_s: float
) -> Refused | None:
    waiting = [pending for pending in load.pending if pending.tier is tier]
    room = limits.of(tier) - len(waiting)
    if demand.num_items <= room:
        return None
    ends_s = sorted(pending.eta_s for pending in waiting)
    missing = demand.num_items - room
    wait_s = ends_s[missing - 1] - now_s if missing <= len(ends_s) else inf
    return _refused(f"{len(waiting)} {tier} pictures are pending, at most {limits.of(tier)} may be", wait_s)


def _late(demand: PictureDemand, now_s: float) -> Refused | None:
    forecast = demand.forecast
    if forecast.finish_s <= forecast.due_s and forecast.earliest_due_s <= forecast.due_s:
        return None
    earliest_s = max(forecast.earliest_due_s, forecast.finish_s)
    what = (
        f"the picture is due in {max(0.0, forecast.due_s - now_s):.1f} s, the earliest time that can be kept now is in "
        f"{earliest_s - now_s:.1f} s (its own work takes {forecast.work_s:.1f} s)"
    )
    return _refused(what, earliest_s - forecast.due_s, earliest_s, "ask for a later deadline or fewer steps")


def _refused(
    what: str, wait_s: float, earliest_s: float | None = None, hint: str = "use a slower tier or send less at once"
) -> Refused:
    """`wait_s` is until there is expected to be room."""
    retry_after_s = min(MAX_RETRY_S, max(MIN_RETRY_S, wait_s))
    return Refused(f"{what}; retry in {ceil(retry_after_s)} s, or {hint}", retry_after_s, earliest_s)
