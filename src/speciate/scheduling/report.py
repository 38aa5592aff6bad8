"""What a token scheduler says about itself to admission and routing."""

from dataclasses import dataclass
from math import inf

from speciate.core.replica import ReplicaLoad, ReservedShare, TierLoad
from speciate.core.segment import Tier
from speciate.scheduling.options import Reservation
from speciate.scheduling.sequence import Sequence
from speciate.scheduling.state import TokenState


@dataclass(slots=True)
class ResidentTier:
    """What a tier's sequences with blocks add to its load. No struct: this module has a compiled form."""

    num_running: int
    num_tokens: int
    """Prompt tokens not yet computed."""
    demand: float


@dataclass(slots=True)
class ResidentLoad:
    """The part of the load that only changes when a step is planned or booked, or a sequence leaves."""

    tiers: dict[Tier, ResidentTier]
    step_s: float


def resident_load(state: TokenState) -> ResidentLoad:
    """O(running)."""
    costs = state.model.costs
    must = [state.residents.decoding[tier].values() for tier in (Tier.REALTIME, Tier.INTERACTIVE)]
    context = sum(seq.computed for group in must for seq in group)
    return ResidentLoad(
        tiers={tier: _resident_tier(state, tier) for tier in Tier},
        step_s=costs.base_s + costs.decodes_s(sum(len(group) for group in must), context),
    )


def _resident_tier(state: TokenState, tier: Tier) -> ResidentTier:
    prefilling, decoding = state.residents.prefilling[tier], state.residents.decoding[tier]
    return ResidentTier(
        num_running=len(prefilling) + len(decoding),
        num_tokens=sum(seq.remaining for seq in prefilling.values()),
        demand=sum(_demand(state, seq) for seq in decoding.values()),
    )


def replica_load(state: TokenState, resident: ResidentLoad) -> ReplicaLoad:
    """A snapshot; O(real-time sequences)."""
    costs, memory = state.model.costs, state.memory
    return ReplicaLoad(
        tiers={tier: _tier_load(state, tier, resident.tiers[tier]) for tier in Tier},
        free_blocks=memory.pool.num_available,
        total_blocks=state.shape.num_blocks,
        cached_blocks=memory.pool.num_idle,
        step_s=resident.step_s,
        prefill_token_s=costs.prefill_s,
        decode_token_s=costs.decode_s,
        margin=state.model.margin.gamma,
        prediction_error=state.model.error.mean,
        wasted_s=state.wasted_s,
        num_evictions=state.num_evictions,
        prefix_query_tokens=memory.query_tokens,
        prefix_hit_tokens=memory.hit_tokens,
        reserved=tuple(_reserved(state, reservation) for reservation in state.options.reservations),
    )


def _reserved(state: TokenState, reservation: Reservation) -> ReservedShare:
    owner = reservation.tenant
    used = sum(_demand(state, seq) for seq in state.realtime.values() if owner is None or owner == seq.work.tenant)
    return ReservedShare(owner, reservation.step_share, used)


def _demand(state: TokenState, seq: Sequence) -> float:
    """Share of the device that its promised pace takes once it decodes."""
    return state.model.costs.decodes_s(1, seq.num_tokens) / seq.tpot_s if seq.tpot_s < inf else 0.0


def _tier_load(state: TokenState, tier: Tier, resident: ResidentTier) -> TierLoad:
    """Real-time work is promised its pace while it waits, too."""
    costs, queue = state.model.costs, state.waiting[tier]
    num_tokens = queue.num_tokens + resident.num_tokens
    num_steps = -(-num_tokens // state.shape.max_step_tokens)
    is_realtime = tier is Tier.REALTIME
    return TierLoad(
        num_waiting=queue.num_waiting,
        num_running=resident.num_running,
        waiting_tokens=num_tokens,
        backlog_s=num_steps * costs.base_s + num_tokens * costs.prefill_s,
        demand=sum(_demand(state, seq) for seq in state.realtime.values()) if is_realtime else resident.demand,
        output_tokens=state.lengths[tier].typical(),
    )
