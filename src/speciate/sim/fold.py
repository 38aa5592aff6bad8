"""Runs of steps whose plan does not change, folded into one: the same end state for a fraction of the work.

A plan repeats while it holds every live sequence, all of them decodes, and nothing comes from outside: then the next
plan holds the same sequences again until one of them ends. `advance` books such steps as `commit` and `plan` would
have, one after the other, before anything else can happen. It is the one place outside `scheduling` that touches a
scheduler's books, and `test_fold` holds it to them: a folded run must give the unfolded run's report, and its books,
bit by bit.
"""

from speciate.core.scheduler import StepScheduler
from speciate.core.segment import Tier
from speciate.scheduling.baselines.staged import StagedScheduler
from speciate.scheduling.draft import Draft
from speciate.scheduling.sequence import Sequence
from speciate.scheduling.tenants import OUTPUT_WEIGHT
from speciate.scheduling.token import TokenScheduler, in_ticks_s

TOKEN = 0
"""What every output token is: only lengths matter."""


class Folding:
    """Repeats the plan of one scheduler."""

    def __init__(self, scheduler: TokenScheduler) -> None:
        self._scheduler = scheduler
        self._state = scheduler._state
        self._may_pause = not isinstance(scheduler, StagedScheduler)

    def num_equal_steps(self) -> int:
        """How often the plan in flight may run, itself included, before memory could run out; 1 if it may change."""
        state, draft = self._state, self._draft()
        num = len(draft.decodes)
        if num < len(state.live) or state.options.prefix_cache:
            return 1
        if self._may_pause and state.residents.decoding[Tier.BATCH]:
            return 1  # whether batch decodes take part depends on the time of each step
        if state.deadlines.next_s() is not None:
            return 1
        return max(1, (state.memory.pool.num_available // num - 1) * draft.block_tokens)

    def advance(self, durations_s: list[float], ends_s: list[float]) -> None:
        """Book these steps, and plan the same again after each; the last of those plans is then in flight."""
        state, draft = self._state, self._draft()
        sequences, num_steps = draft.decodes, len(durations_s)
        num = len(sequences)
        state.model.observe_repeats(draft.features(), durations_s)
        if state.residents.decoding[Tier.BATCH]:
            self._observe_pace(sequences, ends_s)
        spent_s = 0.0
        for duration_s in durations_s:
            spent_s += in_ticks_s(duration_s / num)
        for seq in sequences:
            _take_tokens(seq, num_steps, spent_s, ends_s[-1])
        self._grow(sequences)
        draft.context += num * num_steps

    def _draft(self) -> Draft:
        draft = self._scheduler._in_flight
        if draft is None:
            raise AssertionError("nothing is in flight to fold")
        return draft

    def _observe_pace(self, sequences: list[Sequence], ends_s: list[float]) -> None:
        first = next((seq for seq in sequences if seq.tier is Tier.BATCH), None)
        if first is not None:
            last_s = first.advanced_s
            for end_s in ends_s:
                self._state.pace.observe(end_s - last_s)
                last_s = end_s

    def _grow(self, sequences: list[Sequence]) -> None:
        """As many blocks as step after step would have taken; which ones decides nothing."""
        memory = self._state.memory
        for seq in sequences:
            lacking = seq.computed + 1 - seq.room_tokens
            if lacking > 0:
                memory.grow(seq, memory.num_blocks_for(lacking))


def folding_of(scheduler: StepScheduler) -> Folding | None:
    """None for schedulers whose plans depend on more than their sequences (gateways in front)."""
    return Folding(scheduler) if isinstance(scheduler, TokenScheduler) else None


def _take_tokens(seq: Sequence, num: int, spent_s: float, end_s: float) -> None:
    """What `commit` does to a decode once for each step. Seconds are whole ticks, so that their sum is exact."""
    seq.spent_s += spent_s
    seq.computed += num
    seq.advanced_s = end_s
    seq.tenant.served += OUTPUT_WEIGHT * num
    seq.outputs.extend([TOKEN] * (num - 1))
    seq.take_token(TOKEN, end_s)
