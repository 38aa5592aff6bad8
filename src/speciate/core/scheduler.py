"""What a token scheduler takes and gives. Pure: time and data in, data out; every policy speaks this protocol."""

from typing import Protocol

from msgspec import Struct

from speciate.core.engine import StepPlan
from speciate.core.replica import ReplicaLoad
from speciate.core.segment import Segment, Tier


class TokenWork(Struct, frozen=True):
    """A sequence to schedule."""

    seq_id: int
    prompt_tokens: tuple[int, ...]
    segment: Segment
    arrival_s: float
    max_tokens: int
    """Most output tokens; prompt plus this fits the engine's context."""
    tenant: str = "default"
    deadline_s: float | None = None
    """Past it the work is dropped and reported in `Decision.expired`."""
    cache_salt: str = ""
    """KV of equal tokens is shared only between equal salts (an adapter's name)."""
    may_downgrade: bool = False
    """Whether the scheduler may relegate it to a slower tier; otherwise it stays in its tier, late or not."""


class Started(Struct, frozen=True, gc=False):
    """A sequence's first tokens are in this plan; `cached_tokens` of its prompt were found in the prefix cache."""

    seq_id: int
    cached_tokens: int


class Decision(Struct, frozen=True):
    """What to do now. `plan` is None when nothing can run before the next arrival, or before `wake_s` if set."""

    plan: StepPlan | None
    predicted_s: float = 0.0
    """The step's expected duration, without margin."""
    started: tuple[Started, ...] = ()
    relegated: tuple[tuple[int, Tier], ...] = ()
    """(seq_id, the tier it now runs in): told to the client."""
    expired: tuple[int, ...] = ()
    """Dropped because their deadline passed; already forgotten."""
    evicted: tuple[int, ...] = ()
    """Lost their KV blocks and will be computed again."""
    wake_s: float | None = None


class StepOutcome(Struct, frozen=True):
    """What a step did: observed duration, and the token each sampling sequence got."""

    plan: StepPlan
    observed_s: float
    tokens: tuple[tuple[int, int], ...]
    """(seq_id, token_id)."""
    finished: frozenset[int] = frozenset()
    """Sequences that end with this token; the scheduler forgets them."""
    lost: frozenset[int] = frozenset()
    """Sequences whose share of the step failed: no KV was written. The scheduler forgets them and publishes none of
    this step's blocks for them."""


class StepScheduler(Protocol):
    """Decides what one device runs next. `plan` and `commit` alternate; `add` and `abort` may come in between."""

    def add(self, work: TokenWork, now_s: float) -> None:
        """Queue a sequence. Raises InvalidRequest if it can never fit."""
        ...

    def abort(self, seq_id: int, now_s: float) -> None:
        """Forget a sequence at this step boundary (or at the next, if it is in the step that runs); unknown ids are
        ignored."""
        ...

    def plan(self, now_s: float) -> Decision: ...

    def commit(self, outcome: StepOutcome, now_s: float) -> None: ...

    def load(self, now_s: float) -> ReplicaLoad: ...

    def check(self) -> None:
        """Raise InvariantError if blocks or sequences do not add up."""
        ...
