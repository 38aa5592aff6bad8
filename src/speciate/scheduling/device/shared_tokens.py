"""The token scheduler on a device that it shares: says how urgent its work is, and keeps a step to a budget.

A shell around `TokenScheduler`: what runs is decided there, with a bound on the step that is the arbiter's for once.
"""

from heapq import heappop, heappush
from math import inf

from msgspec import structs

from speciate.core.arbiter import DeviceClaim, DeviceGuard, Wish
from speciate.core.replica import ReplicaLoad
from speciate.core.scheduler import Decision, StepOutcome, TokenWork
from speciate.core.segment import Tier
from speciate.scheduling.sequence import BATCH, INTERACTIVE, REALTIME, Phase, Sequence
from speciate.scheduling.token import TokenScheduler


class SharedTokenScheduler:
    """Implements `StepScheduler` and `Sharer`."""

    def __init__(self, scheduler: TokenScheduler) -> None:
        self._scheduler = scheduler
        self._state = scheduler._state
        self._within_s = inf
        self._waiting: dict[Tier, list[tuple[float, int, Sequence]]] = {tier: [] for tier in (REALTIME, INTERACTIVE)}
        """Prompts that may wait, the first due first; entries of those that left are skipped."""

    def add(self, work: TokenWork, now_s: float) -> None:
        """As `TokenScheduler.add`."""
        self._scheduler.add(work, now_s)
        self._await(work.seq_id)

    def abort(self, seq_id: int, now_s: float) -> None:
        self._scheduler.abort(seq_id, now_s)

    def allow(self, within_s: float) -> None:
        """The next plan should take at most so long, margin included."""
        self._within_s = within_s

    def plan(self, now_s: float) -> Decision:
        """The next step, as long as was allowed unless the decodes that must run take longer."""
        state, options = self._state, self._state.options
        longest_s = min(options.max_step_s, self._within_s / state.model.margin.gamma)
        state.options = structs.replace(options, max_step_s=longest_s)
        try:
            decision = self._scheduler.plan(now_s)
        finally:
            state.options = options
        for seq_id in decision.evicted:
            self._await(seq_id)
        return decision

    def commit(self, outcome: StepOutcome, now_s: float) -> None:
        self._scheduler.commit(outcome, now_s)

    def load(self, now_s: float) -> ReplicaLoad:
        return self._scheduler.load(now_s)

    def check(self) -> None:
        self._scheduler.check()

    def wish(self, now_s: float) -> Wish:
        """O(running decodes)."""
        state = self._state
        if not state.live:
            return Wish((), self._guards(now_s))
        must_s = self._must_s()
        claims = [claim for tier in (REALTIME, INTERACTIVE) if (claim := self._claim(tier, must_s, now_s)) is not None]
        if state.waiting[BATCH].num_waiting or state.residents.of_tier(BATCH):
            claims.append(DeviceClaim(BATCH, inf, must_s))
        return Wish(tuple(claims), self._guards(now_s))

    def _await(self, seq_id: int) -> None:
        seq = self._state.live.get(seq_id)
        if seq is not None and seq.tier in self._waiting:
            heappush(self._waiting[seq.tier], (seq.deadline_s, seq.order, seq))

    def _must_s(self) -> float:
        """The shortest step: all decodes that are never left out, with the margin."""
        state, costs = self._state, self._state.model.costs
        decodes = [seq for tier in (REALTIME, INTERACTIVE) for seq in state.residents.decoding[tier].values()]
        context = sum(seq.computed for seq in decodes)
        return state.model.margin.gamma * (costs.base_s + costs.decodes_s(len(decodes), context))

    def _claim(self, tier: Tier, must_s: float, now_s: float) -> DeviceClaim | None:
        state, gamma = self._state, self._state.model.margin.gamma
        decoding, prefilling = state.residents.decoding[tier], state.residents.prefilling[tier]
        laxities = [seq.deadline_s - now_s - must_s for seq in decoding.values()]
        first = self._first_waiting(tier)
        prompts = [*prefilling.values(), *(() if first is None else (first,))]
        for seq in prompts:
            own_s = gamma * state.model.costs.chunk_s(seq.remaining, seq.computed)
            laxities.append(seq.deadline_s - now_s - must_s - own_s)
        return DeviceClaim(tier, min(laxities), must_s) if laxities else None

    def _first_waiting(self, tier: Tier) -> Sequence | None:
        heap = self._waiting[tier]
        while heap and (heap[0][2].phase is not Phase.WAITING or heap[0][2].tier is not tier):
            heappop(heap)
        return heap[0][2] if heap else None

    def _guards(self, now_s: float) -> tuple[DeviceGuard, ...]:
        """What its next arrivals can bear of others: their TTFT less a step of their own beside what must run."""
        state, gamma, must_s = self._state, self._state.model.margin.gamma, self._must_s()
        found = []
        for tier in (REALTIME, INTERACTIVE):
            guard = state.guards[tier]
            if guard.is_armed(now_s) and guard.ttft_s < inf:
                own_s = must_s + gamma * state.model.costs.chunk_s(guard.prompt_tokens, 0)
                longest_s = guard.bound_s(own_s) if tier is REALTIME else guard.soft_bound_s(own_s)
                found.append(DeviceGuard(tier, max(0.0, longest_s)))
        return tuple(found)
