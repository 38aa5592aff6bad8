"""Admission of one request to one replica. Refuses rather than promises what cannot be kept. Reads no clock.

real-time    room in the queue, first token in time, and the running promises leave phi of the device free
interactive  room in the queue, and the wait is within a factor of the TTFT; else batch, if the caller allows it
batch        room in the queue, and it can be done before its deadline
"""

from math import ceil

from msgspec import Struct, structs

from speciate.admission.admit_picture import PictureLimits
from speciate.core.admission import Admitted, Refused, Verdict
from speciate.core.replica import ReplicaLoad, ReservedShare
from speciate.core.segment import TIER_RANK, Segment, Tier

MIN_RETRY_S = 1.0
MAX_RETRY_S = 120.0
MIN_BATCH_SHARE = 0.05
"""Batch work is expected to get at least this much of a device however busy it is."""


class QueueLimits(Struct, frozen=True):
    """Bounds of one tier's queue on one replica."""

    max_waiting: int
    max_tokens: int
    """Prompt tokens that wait."""


class AdmissionOptions(Struct, frozen=True):
    """What an operator may turn."""

    realtime: QueueLimits = QueueLimits(max_waiting=64, max_tokens=65_536)
    interactive: QueueLimits = QueueLimits(max_waiting=512, max_tokens=1_048_576)
    batch: QueueLimits = QueueLimits(max_waiting=20_000, max_tokens=67_108_864)
    phi: float = 0.15
    """Share of the device that promised token rates leave free, so that prompts can be computed at all."""
    ttft_factor: float = 1.0
    """Interactive work is refused when its first token is expected later than this many TTFTs."""

    output_share: float = 0.5
    """Share of `max_tokens` that batch work is expected to write, for windows, before any outputs are known."""
    pictures: PictureLimits = PictureLimits()

    def queue(self, tier: Tier) -> QueueLimits:
        return {Tier.REALTIME: self.realtime, Tier.INTERACTIVE: self.interactive, Tier.BATCH: self.batch}[tier]


class Demand(Struct, frozen=True):
    """What one request asks of a replica. `n` choices are one demand."""

    segment: Segment
    prompt_tokens: int
    max_tokens: int
    num_sequences: int = 1
    cached_tokens: int = 0
    """Prompt tokens expected in the prefix cache."""
    deadline_s: float | None = None
    """Absolute, on the replica's clock."""
    may_downgrade: bool = False
    tenant: str = "default"

    @property
    def new_tokens(self) -> int:
        """Prompt tokens to compute; further choices share them."""
        return max(1, self.prompt_tokens - self.cached_tokens)


def admit(demand: Demand, load: ReplicaLoad, limits: AdmissionOptions, now_s: float) -> Verdict:
    """Whether it may enter now, in its own tier or, if the caller allows it, in batch."""
    tier = demand.segment.tier
    refusal = _refusal(tier, demand, load, limits, now_s)
    if refusal is None:
        return Admitted(tier)
    if demand.may_downgrade and tier is Tier.INTERACTIVE:
        downgraded = _refusal(Tier.BATCH, demand, load, limits, now_s)
        return Admitted(Tier.BATCH) if downgraded is None else refusal
    return refusal


def _refusal(tier: Tier, demand: Demand, load: ReplicaLoad, limits: AdmissionOptions, now_s: float) -> Refused | None:
    return (
        _full_queue(tier, demand, load, limits.queue(tier))
        or _too_much_demand(tier, demand, load, limits)
        or _late_first_token(tier, demand, load, limits)
        or _late_end(tier, demand, load, limits, now_s)
    )


def _full_queue(tier: Tier, demand: Demand, load: ReplicaLoad, limits: QueueLimits) -> Refused | None:
    queue, hint = load.tiers[tier], "use a slower tier" if tier is not Tier.BATCH else "send less at once"
    num_waiting = queue.num_waiting + demand.num_sequences
    if num_waiting > limits.max_waiting:
        what = f"{queue.num_waiting} {tier} requests wait, at most {limits.max_waiting} may"
    elif queue.waiting_tokens + demand.prompt_tokens > limits.max_tokens and queue.num_waiting:
        what = f"{queue.waiting_tokens} {tier} prompt tokens wait, at most {limits.max_tokens} may"
    else:
        return None
    # Room for this one comes when as much as it brings has left; a prompt costs at least a step.
    own_s = demand.num_sequences * queue.backlog_s / max(1, queue.num_waiting)
    return _refused(what, max(own_s, _prompt_s(demand, load)), hint)


def _too_much_demand(tier: Tier, demand: Demand, load: ReplicaLoad, limits: AdmissionOptions) -> Refused | None:
    """Running promises of this tier and faster ones, plus its own, must leave phi of the device free, and what others
    reserved. Interactive work is held to it only where somebody reserved. A reservation's owner has its own part."""
    tpot_s = demand.segment.slo.tpot_s
    if tier is Tier.BATCH or tpot_s is None or (tier is Tier.INTERACTIVE and not load.reserved):
        return None
    promised = sum(load.tiers[t].demand for t in Tier if TIER_RANK[t] <= TIER_RANK[tier])
    own = demand.num_sequences * load.decode_token_s / tpot_s
    if any(_owns(tier, demand, r) and load.margin * (r.used + own) <= r.share for r in load.reserved):
        return None
    kept = sum(max(0.0, r.share - load.margin * r.used) for r in load.reserved if not _owns(tier, demand, r))
    most = max(0.0, 1.0 - limits.phi - kept)
    if load.margin * (promised + own) <= most:
        return None
    what = (
        f"running {tier} work has {promised:.0%} of the device, this needs {own:.0%} more, at most {most:.0%} is given "
        f"(times a safety margin of {load.margin:.2f})"
    )
    running = load.tiers[tier]
    return _refused(what, demand.max_tokens * tpot_s / max(1, running.num_running))


def _owns(tier: Tier, demand: Demand, reserved: ReservedShare) -> bool:
    return tier is Tier.REALTIME and reserved.tenant in (None, demand.tenant)


def _late_first_token(tier: Tier, demand: Demand, load: ReplicaLoad, limits: AdmissionOptions) -> Refused | None:
    ttft_s = demand.segment.slo.ttft_s
    if tier is Tier.BATCH or ttft_s is None:
        return None
    promise_s = ttft_s * (1.0 if tier is Tier.REALTIME else limits.ttft_factor)
    expected_s = predict_ttft_s(tier, demand, load)
    if expected_s <= promise_s:
        return None
    what = f"the first token is expected after {expected_s:.2f} s, promised are {promise_s:.2f} s"
    return _refused(what, expected_s - promise_s)


def predict_ttft_s(tier: Tier, demand: Demand, load: ReplicaLoad) -> float:
    """The step in flight, the prompts of this tier and faster ones that wait, then its own; with the margin."""
    ahead_s = sum(load.tiers[t].backlog_s for t in Tier if TIER_RANK[t] <= TIER_RANK[tier])
    return load.margin * (load.step_s + ahead_s + _prompt_s(demand, load))


def _late_end(tier: Tier, demand: Demand, load: ReplicaLoad, limits: AdmissionOptions, now_s: float) -> Refused | None:
    """Work that is not done in its window even if all goes as predicted helps nobody."""
    left_s = _window_s(tier, demand, now_s)
    if left_s is None:
        return None
    earliest_s = predict_e2e_s(tier, demand, load, limits)
    if earliest_s <= left_s:
        return None
    what = f"the deadline is in {left_s:.2f} s, the earliest that can be kept now is in {earliest_s:.2f} s"
    refusal = _refused(what, earliest_s - left_s, hint="ask for a later one")
    return structs.replace(refusal, earliest_deadline_s=now_s + earliest_s)


def _window_s(tier: Tier, demand: Demand, now_s: float) -> float | None:
    if demand.deadline_s is not None:
        return demand.deadline_s - now_s
    return demand.segment.slo.e2e_s if tier is Tier.BATCH else None


def predict_e2e_s(tier: Tier, demand: Demand, load: ReplicaLoad, limits: AdmissionOptions) -> float:
    """Until the last token. Batch gets what the promises of faster tiers leave; others are only held to one token."""
    if tier is not Tier.BATCH:
        return predict_ttft_s(tier, demand, load)
    num_outputs = expected_outputs(demand, load, limits)
    ahead_s = sum(load.tiers[t].backlog_s for t in Tier)
    work_s = _prompt_s(demand, load) + num_outputs * (load.step_s + load.decode_token_s)
    promised = sum(load.tiers[t].demand for t in (Tier.REALTIME, Tier.INTERACTIVE))
    return load.margin * (ahead_s + work_s) / max(MIN_BATCH_SHARE, 1.0 - promised)


def expected_outputs(demand: Demand, load: ReplicaLoad, limits: AdmissionOptions) -> int:
    """Output tokens that batch work is expected to have: what it lately had, before that a share of what is allowed."""
    known = load.tiers[Tier.BATCH].output_tokens
    return ceil(limits.output_share * demand.max_tokens) if known is None else min(known, demand.max_tokens)


def _prompt_s(demand: Demand, load: ReplicaLoad) -> float:
    return demand.new_tokens * load.prefill_token_s


def _refused(what: str, wait_s: float, hint: str = "use a slower tier") -> Refused:
    """`wait_s` is until the queue that refused it is expected to have room."""
    retry_after_s = min(MAX_RETRY_S, max(MIN_RETRY_S, wait_s))
    return Refused(f"{what}; retry in {ceil(retry_after_s)} s or {hint}", retry_after_s)
