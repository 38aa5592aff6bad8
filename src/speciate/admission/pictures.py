"""Admission of one picture to one replica: room in its tier's queue, and done when it was promised. Reads no clock.

Whoever comes first was promised first: a newcomer is refused where it could be in time only by making others late.
"""

from math import inf

from msgspec import Struct

from speciate.admission.admit import MAX_RETRY_S, MIN_RETRY_S
from speciate.admission.picture_limits import PictureLimits
from speciate.core.admission import Admitted, Refused, Verdict
from speciate.core.denoise_scheduler import DenoiseLoad, Forecast
from speciate.core.segment import Tier


class PictureDemand(Struct, frozen=True):
    """What is asked, and what would become of it."""

    tier: Tier
    forecast: Forecast
    downgraded: Forecast | None = None
    """As batch work, where the caller allows that."""


def admit_picture(demand: PictureDemand, load: DenoiseLoad, limits: PictureLimits, now_s: float) -> Verdict:
    """In its own tier or, if the caller allows it, in batch."""
    refusal = _refusal(demand.tier, demand.forecast, load, limits, now_s)
    if refusal is None:
        return Admitted(demand.tier)
    if demand.downgraded is None or demand.tier is Tier.BATCH:
        return refusal
    is_refused = _refusal(Tier.BATCH, demand.downgraded, load, limits, now_s)
    return refusal if is_refused else Admitted(Tier.BATCH)


def _refusal(tier: Tier, forecast: Forecast, load: DenoiseLoad, limits: PictureLimits, now_s: float) -> Refused | None:
    ends_s = sorted(pending.eta_s for pending in load.pending if pending.tier is tier)
    most = limits.of(tier)
    if len(ends_s) >= most:
        return Refused(
            f"{len(ends_s)} {tier.value} pictures are pending here, and at most {most} may be. Come again later.",
            _bounded(ends_s[len(ends_s) - most] - now_s),
        )
    if forecast.finish_s <= forecast.due_s:
        return None
    late_s = forecast.finish_s - forecast.due_s
    earliest_s = forecast.earliest_due_s if forecast.earliest_due_s < inf else None
    return Refused(
        f"This picture takes {forecast.work_s:.1f} s and would be {late_s:.1f} s late behind what was promised before. "
        "Come again later, allow more time, or ask for fewer steps or a smaller size.",
        _bounded(late_s),
        earliest_s,
    )


def _bounded(retry_s: float) -> float:
    return min(MAX_RETRY_S, max(MIN_RETRY_S, retry_s))
