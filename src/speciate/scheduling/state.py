"""What the stages of a step share: who waits, who runs, memory, and what was learnt. One owner: the scheduler."""

from dataclasses import dataclass, field

from speciate.core.engine import TokenEngineShape
from speciate.core.segment import Tier
from speciate.scheduling.guard import ArrivalGuard
from speciate.scheduling.lengths import OutputLengths
from speciate.scheduling.memory import KvMemory
from speciate.scheduling.options import TokenSchedulerOptions
from speciate.scheduling.order import Key
from speciate.scheduling.pace import BatchPace
from speciate.scheduling.sequence import Phase, Sequence
from speciate.scheduling.step_time import StepTimeModel
from speciate.scheduling.tenants import Tenants
from speciate.scheduling.waiting import Deadlines, TierQueue

BUSY_TTFT = 0.8
"""Interactive prompts that wait for more than this share of a TTFT mean high load."""


class Residents:
    """The sequences that hold blocks, by tier: prompts under way and decodes, each in the order they got there."""

    def __init__(self) -> None:
        self.prefilling: dict[Tier, dict[int, Sequence]] = {tier: {} for tier in Tier}
        self.decoding: dict[Tier, dict[int, Sequence]] = {tier: {} for tier in Tier}
        self.count = 0

    def start(self, seq: Sequence) -> None:
        seq.phase = Phase.PREFILL
        self.prefilling[seq.tier][seq.seq_id] = seq
        self.count += 1

    def begin_decoding(self, seq: Sequence) -> None:
        del self.prefilling[seq.tier][seq.seq_id]
        seq.phase = Phase.DECODE
        self.decoding[seq.tier][seq.seq_id] = seq

    def remove(self, seq: Sequence) -> None:
        group = self.prefilling if seq.phase is Phase.PREFILL else self.decoding
        del group[seq.tier][seq.seq_id]
        self.count -= 1

    def of_tier(self, tier: Tier) -> list[Sequence]:
        return [*self.prefilling[tier].values(), *self.decoding[tier].values()]


@dataclass(slots=True)
class TokenState:
    """Everything a stage may read or change."""

    shape: TokenEngineShape
    options: TokenSchedulerOptions
    model: StepTimeModel
    memory: KvMemory
    tenants: Tenants
    waiting: dict[Tier, TierQueue]
    guards: dict[Tier, ArrivalGuard]
    lengths: dict[Tier, OutputLengths]
    residents: Residents = field(default_factory=Residents)
    deadlines: Deadlines = field(default_factory=Deadlines)
    pace: BatchPace = field(default_factory=BatchPace)
    live: dict[int, Sequence] = field(default_factory=dict)
    """Every sequence by id, until it finished, expired or was aborted."""
    realtime: dict[int, Sequence] = field(default_factory=dict)
    """Those of `live` that are served as real-time work."""
    wasted_s: float = 0.0
    num_evictions: int = 0

    def interactive_level(self) -> int:
        """0 or 1: which of the two interactive orders the load asks for."""
        backlog_s = self.waiting[Tier.INTERACTIVE].num_tokens * self.model.costs.prefill_s
        return int(backlog_s > BUSY_TTFT * self.guards[Tier.INTERACTIVE].ttft_s)

    def is_fast_armed(self, now_s: float) -> bool:
        """Whether tiers faster than batch may want memory soon."""
        return any(self.guards[tier].is_armed(now_s) for tier in (Tier.REALTIME, Tier.INTERACTIVE))

    def leave(self, seq: Sequence) -> None:
        """It ended or is dropped; it must hold nothing any more."""
        seq.phase = Phase.GONE
        seq.stamp += 1
        self.tenants.leave(seq.tenant)
        del self.live[seq.seq_id]
        self.realtime.pop(seq.seq_id, None)


def make_state(shape: TokenEngineShape, options: TokenSchedulerOptions) -> TokenState:
    model = StepTimeModel(options.prior, options.min_margin, options.max_margin)
    tenants = Tenants()
    keys: dict[Tier, tuple[Key, ...]] = {
        Tier.REALTIME: (deadline_key,),
        Tier.INTERACTIVE: interactive_keys(model, options),
        Tier.BATCH: (due_key,),
    }
    state = TokenState(
        shape=shape,
        options=options,
        model=model,
        memory=KvMemory(shape, options.prefix_cache),
        tenants=tenants,
        waiting={tier: TierQueue(keys[tier], tenants) for tier in Tier},
        guards={tier: ArrivalGuard(options.arm_s, options.guard_epsilon_s) for tier in Tier},
        lengths={tier: OutputLengths() for tier in Tier},
    )
    for reservation in options.reservations:
        state.guards[Tier.REALTIME].reserve(reservation.ttft_s, reservation.prompt_tokens)
    return state


def deadline_key(seq: Sequence) -> float:
    return seq.deadline_s


def due_key(seq: Sequence) -> float:
    return seq.due_s


def interactive_keys(model: StepTimeModel, options: TokenSchedulerOptions) -> tuple[Key, ...]:
    """Deadline plus alpha times the prompt's own prefill time: nearly deadline order, and nearly shortest first."""

    def key(alpha: float) -> Key:
        return lambda seq: seq.deadline_s + alpha * model.costs.prefill_s * seq.remaining

    return key(options.alpha_low), key(options.alpha_high)
