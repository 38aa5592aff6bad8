"""The step under construction: its budget in predicted seconds, and what was put in so far."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from math import inf
from operator import attrgetter

from speciate.core.engine import SequenceStep, StepSizes
from speciate.core.scheduler import Started
from speciate.core.segment import Tier
from speciate.scheduling.sequence import Sequence
from speciate.scheduling.step_costs import StepCosts, StepFeatures

CUT_SHARE = 0.8
"""A step that fills this much of its limit counts as cut to it."""

_computed_of: Callable[[Sequence], int] = attrgetter("computed")


@dataclass(slots=True)
class Draft:
    """Filled by the stages in order. `used_s` holds the cost of decodes that must run before they are put in."""

    step_id: int
    now_s: float
    costs: StepCosts
    num_streams: int
    """Real-time streams that wait for it."""
    has_prompts: bool
    """Whether interactive prompts are under way or wait."""
    gamma: float
    strict_gamma: float
    """The margin of what running promises depend on, token by token; at least `gamma`."""
    block_tokens: int
    tokens_left: int
    sequences_left: int
    sizes: StepSizes
    limit_s: float = inf
    """Predicted seconds that the step should not exceed; the margin is already divided out."""
    used_s: float = 0.0
    realtime_limit_s: float = inf
    """The part of the limit that running real-time work asks for."""
    whole_limit_s: float = inf
    """The limit before batch work was told to spare arrivals."""
    is_closed: bool = False
    """Real-time work waits for the next step: only decodes that must run may still enter."""
    lacks_memory: bool = False
    """A faster tier waits for KV blocks: batch work starts nothing."""
    has_realtime: bool = False
    aside: frozenset[int] = frozenset()
    """Interactive decodes that make room for a real-time prompt: they can wait for the next step."""
    is_extended: bool = False
    """Urgent batch work has stretched the limit."""
    num_live: int = 0
    """Sequences that there were when it was planned."""
    num_prompts: int = 0
    """Interactive prompts in this step."""
    steps: list[SequenceStep] = field(default_factory=list)
    decodes: list[Sequence] = field(default_factory=list)
    """Those that compute their last token."""
    chunks: list[tuple[Sequence, int, bool]] = field(default_factory=list)
    """Those that compute so many tokens of a prompt, and whether these are its last ones."""
    computing: set[bytes] = field(default_factory=set)
    """Keys of the blocks that this step fills."""
    started: list[Started] = field(default_factory=list)
    relegated: list[tuple[int, Tier]] = field(default_factory=list)
    expired: list[int] = field(default_factory=list)
    evicted: list[int] = field(default_factory=list)
    context: int = 0
    """Tokens that the decodes read."""
    num_prefill: int = 0
    prefill_context: float = 0.0

    @property
    def room_s(self) -> float:
        return self.limit_s - self.used_s

    @property
    def has_slots(self) -> bool:
        return self.tokens_left > 0 and self.sequences_left > 0

    @property
    def num_tokens(self) -> int:
        """What the step computes so far."""
        return len(self.decodes) + self.num_prefill

    @property
    def padding(self) -> int:
        """Tokens of nobody's that the engine would compute beside it."""
        return self.sizes.padded(self.num_tokens) - self.num_tokens

    @property
    def predicted_s(self) -> float:
        return self.used_s + self.costs.prefill_s * self.padding

    def features(self) -> StepFeatures:
        return StepFeatures(len(self.decodes), self.context, self.num_prefill, self.prefill_context, self.padding)

    def decodes_s(self, decodes: Collection[Sequence]) -> float:
        """What they add to a step."""
        return self.costs.decodes_s(len(decodes), sum(map(_computed_of, decodes))) if decodes else 0.0

    def take_decodes(self, sequences: list[Sequence]) -> None:
        """Compute the last token of each. Their cost is the caller's to add. A hot loop: no calls but the one."""
        steps, step_id, context = self.steps, self.step_id, self.context
        for seq in sequences:
            start = seq.computed
            steps.append(SequenceStep(seq.seq_id, (seq.outputs[-1],), start, seq.table, True))
            seq.step_id = step_id
            context += start
        self.decodes += sequences
        self.context = context
        self.tokens_left -= len(sequences)
        self.sequences_left -= len(sequences)

    def take_chunk(self, seq: Sequence, num: int) -> None:
        """Compute its next `num` tokens; it samples if they are the last ones."""
        start, end = seq.computed, seq.computed + num
        samples = end == seq.num_tokens
        self.steps.append(SequenceStep(seq.seq_id, seq.tokens(start, end), start, seq.table, samples))
        self.chunks.append((seq, num, samples))
        seq.step_id = self.step_id
        if seq.keys:
            self.computing.update(seq.keys[start // self.block_tokens : end // self.block_tokens])
        self.used_s += self.costs.chunk_s(num, start)
        self.num_prefill += num
        self.prefill_context += num * (start + num / 2)
        self.tokens_left -= num
        self.sequences_left -= 1

    def chunk(self, seq: Sequence, start: int, at_least: int) -> int:
        """How many tokens after `start` fit the budget; ends on a block border unless it ends the prompt.

        One that does not end its prompt is cut where the step has a size of the engine: padding takes time too.
        """
        remaining = seq.num_tokens - start
        num = min(max(self.costs.largest_chunk(self.room_s, start), at_least), remaining, self.tokens_left)
        if num == remaining:
            return num
        without_padding = self.sizes.filled(self.num_tokens + num) - self.num_tokens
        if without_padding >= max(1, at_least):
            num = without_padding
        aligned = (start + num) // self.block_tokens * self.block_tokens - start
        return aligned if aligned > 0 else num

    def is_computing(self, seq: Sequence, num_cached: int) -> bool:
        """Whether the first block that it lacks is being computed in this step: better to share it in the next."""
        return num_cached < len(seq.keys) and seq.keys[num_cached] in self.computing

    @property
    def is_cut(self) -> bool:
        """Whether the budget, rather than a lack of work, ended this step."""
        is_short = self.num_prefill > 0 or len(self.decodes) < self.num_live
        return is_short and self.used_s >= CUT_SHARE * self.limit_s

    def is_taken(self, seq: Sequence) -> bool:
        return seq.step_id == self.step_id
