"""How fast batch work goes lately, and how little time that leaves a sequence: laxity."""

from math import inf

from speciate.scheduling.sequence import Sequence
from speciate.scheduling.step_costs import StepCosts
from speciate.scheduling.waiting import batch_horizon_s

RATE = 0.05
URGENT = 0.9


class BatchPace:
    """Observed seconds between a batch sequence's tokens, pauses included."""

    def __init__(self) -> None:
        self._token_s: float | None = None

    def observe(self, interval_s: float) -> None:
        old = interval_s if self._token_s is None else self._token_s
        self._token_s = old + RATE * (interval_s - old)

    def urgency(self, seq: Sequence, num_outputs: int, costs: StepCosts, step_s: float, now_s: float) -> float:
        """0..1: how little of its horizon is left beside the work itself, at the observed pace and `step_s` a token."""
        horizon_s = batch_horizon_s(seq)
        if horizon_s == inf:
            return 0.0
        token_s = max(step_s, self._token_s or 0.0)
        work_s = costs.chunk_s(seq.remaining, seq.computed) + max(0, num_outputs - len(seq.outputs)) * token_s
        laxity_s = seq.due_s - now_s - work_s
        return 1.0 if horizon_s <= 0 else min(1.0, max(0.0, 1.0 - laxity_s / horizon_s))
