"""One sequence's private state inside the scheduler. Computed tokens catch up with tokens; that is all there is."""

from dataclasses import dataclass, field
from enum import Enum
from math import inf
from sys import maxsize
from typing import Final

from speciate.core.scheduler import TokenWork
from speciate.core.segment import TIER_RANK, Tier
from speciate.scheduling.tenants import Tenant

REALTIME: Final = Tier.REALTIME
INTERACTIVE: Final = Tier.INTERACTIVE
BATCH: Final = Tier.BATCH
"""For hot code: looking a member up in its enum costs more than what is then done with it."""


class Phase(Enum):
    """Where a sequence is."""

    WAITING = "waiting"
    """Holds no blocks."""
    PREFILL = "prefill"
    """Holds blocks for all its tokens; more than one is not computed."""
    DECODE = "decode"
    """All but the last token are computed."""
    GONE = "gone"


@dataclass(slots=True, eq=False)
class Sequence:
    """Owned by the scheduler that made it."""

    work: TokenWork
    seq_id: int
    order: int
    """Position among all arrivals: the last tie-break everywhere."""
    tier: Tier
    """The tier that serves it now."""
    tenant: Tenant
    ttft_s: float
    tpot_s: float
    max_gap_s: float
    """Longest gap between tokens that was promised: the TPOT and its jitter buffer."""
    deadline_s: float
    """When its next token is due."""
    due_s: float
    """When its last token is due; orders batch work."""
    max_blocks: int
    """Blocks it needs at its longest."""
    max_outputs: int = maxsize
    """Most output tokens that it may get."""
    phase: Phase = Phase.WAITING
    stamp: int = 0
    """Grows when it leaves a queue: older queue entries are void."""
    place_s: float = inf
    """The key of the one whose turn it took, when fairness let it go first: what it began it may also finish."""
    outputs: list[int] = field(default_factory=list)
    computed: int = 0
    table: tuple[int, ...] = ()
    room_tokens: int = 0
    """How many tokens the blocks of `table` have room for."""
    num_shared: int = 0
    """Leading blocks of `table` that came from the prefix cache."""
    keys: list[bytes] = field(default_factory=list)
    """Keys of its full blocks, as far as they were needed."""
    num_published: int = 0
    """Leading blocks of `table` that are findable."""
    publish_at: int = maxsize
    """With so many tokens computed, one more block is full and may be published."""
    reserve_blocks: int = 0
    """Blocks it is expected to hold in the end."""
    step_id: int = -1
    """The last step it took part in."""
    evicted_step_id: int = -1
    """The last step that was planned without it because its blocks were needed."""
    advanced_s: float = 0.0
    """When it last got a token or a chunk."""
    first_s: float | None = None
    """When its first token came."""
    resumed_s: float = -inf
    """When it last came back from eviction."""
    patient_until_s: float = -inf
    """Before this nobody need ask whether it is urgent batch work."""
    was_started: bool = False
    was_relegated: bool = False
    num_evictions: int = 0
    lost_until: int = 0
    """Tokens before this were computed once and evicted: computing them again is waste."""
    spent_s: float = 0.0
    """Step-seconds spent on it, waste already counted excepted."""

    @property
    def rank(self) -> int:
        return TIER_RANK[self.tier]

    @property
    def num_tokens(self) -> int:
        return len(self.work.prompt_tokens) + len(self.outputs)

    @property
    def remaining(self) -> int:
        """Tokens to compute before the next one can be sampled."""
        return self.num_tokens - self.computed

    @property
    def is_pinned(self) -> bool:
        """Whether its blocks stay until it ends: room for its longest is set aside when it starts."""
        return self.tier is REALTIME or not self.work.segment.preemptible

    def tokens(self, start: int, end: int) -> tuple[int, ...]:
        prompt = self.work.prompt_tokens
        if end <= len(prompt):
            return prompt[start:end]
        if start >= len(prompt):
            return tuple(self.outputs[start - len(prompt) : end - len(prompt)])
        return prompt[start:] + tuple(self.outputs[: end - len(prompt)])

    def take_token(self, token_id: int, now_s: float) -> int:
        """Append an output token and set when the next is due: on the promised line, and no stall after early ones.
        Returns how many there are."""
        self.outputs.append(token_id)
        if self.first_s is None:
            self.first_s = now_s
        num = len(self.outputs)
        line_s = self.first_s + num * self.tpot_s
        latest_s = now_s + self.max_gap_s
        self.deadline_s = line_s if line_s < latest_s else latest_s
        return num
