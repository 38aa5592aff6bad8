"""How much more may enter a tier now: the numbers behind `x-ratelimit-*`, from the limits and the load that `admit`
decides on.

limit       what an idle device takes: the tier's queue, or less where its promise allows less at the measured speed
remaining   what it takes beside the work that is there and this request
"""

from math import floor
from typing import Literal

from speciate.admission.admit import AdmissionOptions, Demand, predict_ttft_s
from speciate.core.admission import Allowance, Refused, Room
from speciate.core.replica import ReplicaLoad
from speciate.core.segment import TIER_RANK, Tier


def room_beside(tier: Tier, demand: Demand, load: ReplicaLoad, limits: AdmissionOptions) -> Room:
    """After `demand` was admitted in `tier`; `load` is from before. All of it is free again when the prompts up to this
    one are computed."""
    reset_s = predict_ttft_s(tier, demand, load)
    most_requests, requests = _requests(tier, demand, load, limits)
    most_tokens, tokens = _tokens(tier, demand, load, limits)
    return Room(
        _allowance(most_requests, min(requests, tokens) - demand.num_sequences, reset_s),
        _allowance(most_tokens, tokens - demand.new_tokens, reset_s),
    )


def room_after_refusal(
    tier: Tier, demand: Demand, load: ReplicaLoad, limits: AdmissionOptions, refused: Refused
) -> Room:
    """Nothing like `demand` may enter before its time to retry; shorter prompts may."""
    most_requests, _ = _requests(tier, demand, load, limits)
    most_tokens, tokens = _tokens(tier, demand, load, limits)
    return Room(
        _allowance(most_requests, 0, refused.retry_after_s),
        _allowance(most_tokens, min(tokens, demand.new_tokens - 1), refused.retry_after_s),
    )


def _allowance(limit: float, remaining: float, reset_s: float) -> Allowance:
    return Allowance(max(0, floor(limit)), max(0, floor(min(remaining, limit))), reset_s)


def _requests(tier: Tier, demand: Demand, load: ReplicaLoad, limits: AdmissionOptions) -> tuple[float, float]:
    """Requests on an idle device, and now: what may wait; for real-time work also what can be kept at its pace."""
    most = limits.queue(tier).max_waiting
    left = most - load.tiers[tier].num_waiting
    tpot_s = demand.segment.slo.tpot_s
    if tier is not Tier.REALTIME or tpot_s is None or not load.decode_token_s:
        return most, left
    own = load.decode_token_s / tpot_s
    share = (1.0 - limits.phi) / load.margin
    return min(most, share / own), min(left, (share - _up_to(tier, load, "demand")) / own)


def _tokens(tier: Tier, demand: Demand, load: ReplicaLoad, limits: AdmissionOptions) -> tuple[float, float]:
    """Prompt tokens on an idle device, and now: what may wait, and of that what would have its first token in time."""
    most = limits.queue(tier).max_tokens
    left = most - load.tiers[tier].waiting_tokens
    ttft_s = demand.segment.slo.ttft_s
    if tier is Tier.BATCH or ttft_s is None or not load.prefill_token_s:
        return most, left
    promise_s = ttft_s * (1.0 if tier is Tier.REALTIME else limits.ttft_factor) / load.margin
    ahead_s = load.step_s + _up_to(tier, load, "backlog_s")
    return min(most, promise_s / load.prefill_token_s), min(left, (promise_s - ahead_s) / load.prefill_token_s)


def _up_to(tier: Tier, load: ReplicaLoad, quantity: Literal["demand", "backlog_s"]) -> float:
    """Summed over this tier and faster ones."""
    return float(sum(getattr(load.tiers[t], quantity) for t in Tier if TIER_RANK[t] <= TIER_RANK[tier]))
