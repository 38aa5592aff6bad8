"""What batch work and output lengths look like lately: the estimates behind laxity and KV reservation."""

from math import inf

from speciate.scheduling.sequence import Sequence
from speciate.scheduling.step_costs import StepCosts
from speciate.scheduling.waiting import batch_horizon_s

RATE = 0.05
URGENT = 0.9
SPREADS = 2.0
"""Mean plus this many mean absolute deviations is about the 90th percentile of output lengths."""
LONGER = 1.25
"""An output that outgrew its estimate is expected to end this much further on."""


class OutputLengths:
    """How many tokens outputs of a tier have; only for reserving memory and laxity, never for order."""

    def __init__(self) -> None:
        self._mean: float | None = None
        self._spread = 0.0

    def observe(self, num_tokens: int) -> None:
        if self._mean is None:
            self._mean, self._spread = float(num_tokens), num_tokens / 2
        self._spread += RATE * (abs(num_tokens - self._mean) - self._spread)
        self._mean += RATE * (num_tokens - self._mean)

    def estimate(self, max_tokens: int, generated: int) -> int:
        """About the 90th percentile given what is generated already; half of what is allowed before any is known."""
        guess = max_tokens / 2 if self._mean is None else self._mean + SPREADS * self._spread
        return min(max_tokens, max(int(guess), int(generated * LONGER) + 1))


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
