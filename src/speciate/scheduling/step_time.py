"""How long a step takes, learnt while running. Knows counts and seconds, not sequences.

    T = base + decode * D + context * C + prefill * X + prefill_context * XC

D decodes that read C tokens of context; X prompt tokens; XC = sum of x * (mean context of the chunk's tokens).
Recursive least squares with forgetting over *relative* errors, so that short steps count as much as long ones.
"""

from math import inf, sqrt
from sys import maxsize

import numpy as np
from msgspec import Struct

from speciate.scheduling.margin import Margin
from speciate.scheduling.options import StepTimePrior

FORGETTING = 0.995
NOISE = 0.05
"""Relative noise of one observation, assumed."""
PRIOR_SPREAD = 2.0
"""A coefficient is assumed known to about this many times itself where nothing was observed lately."""
MIN_SHARE = 1e-3
"""No coefficient falls below this share of its prior: all stay positive."""
CLIP = 3.0
"""An error beyond this many typical ones counts as this many (Huber): a pause must not teach."""
MIN_SPREAD = 0.02
SPREAD_RATE = 0.1
DRIFT_RATE = 0.15
DRIFT_CLIP = 0.4
DRIFT_LIMIT = 0.2
"""A smoothed relative error (each clipped, so that lone pauses do not count) beyond this: the machine changed."""
DRIFT_SPREAD = 0.4
NUM_SCALING = 3
"""The first steps teach the scale of all coefficients together: priors are often wrong by a common factor."""
NUM_CAUTIOUS = 10
"""Steps before `costs` are trusted fully."""
FOREVER_S = 1e6


class StepFeatures(Struct, frozen=True):
    """What the model sees of a step."""

    decodes: int = 0
    context: int = 0
    prefill: int = 0
    prefill_context: float = 0.0


class StepCosts(Struct, frozen=True):
    """The coefficients at one moment, in seconds; all positive."""

    base_s: float
    decode_s: float
    context_s: float
    prefill_s: float
    prefill_context_s: float

    def predict_s(self, step: StepFeatures) -> float:
        decodes = self.base_s + self.decode_s * step.decodes + self.context_s * step.context
        return decodes + self.prefill_s * step.prefill + self.prefill_context_s * step.prefill_context

    def decodes_s(self, num: int, context: int) -> float:
        return self.decode_s * num + self.context_s * context

    def chunk_s(self, num: int, start: int) -> float:
        """What `num` prompt tokens after `start` computed ones add to a step."""
        return num * (self.prefill_s + self.prefill_context_s * (start + num / 2))

    def largest_chunk(self, room_s: float, start: int) -> int:
        """Most prompt tokens after `start` that add at most `room_s`: the positive root of `chunk_s(x) = room_s`."""
        if room_s <= 0:
            return 0
        room_s = min(room_s, FOREVER_S)
        if room_s == inf:
            return maxsize
        linear = self.prefill_s + self.prefill_context_s * start
        root = sqrt(linear * linear + 2 * self.prefill_context_s * room_s)
        return int(2 * room_s / (linear + root) * (1 + 1e-12))


class StepTimeModel:
    """`costs` now, `observe` after each step.

    A step's row r is its counts over its predicted seconds, so errors are relative. The update is least squares with
    forgetting and a bounded gain, which stays stable where steps do not excite every direction:

        A <- f A + r r'        theta <- theta + (A + R)^-1 r * error        R: how well the prior is known
    """

    def __init__(self, prior: StepTimePrior, min_margin: float = 1.05, max_margin: float = 4.0) -> None:
        start = (prior.base_s, prior.decode_s, prior.context_s, prior.prefill_s, prior.prefill_context_s)
        self._scale = np.maximum(np.array(start), 1e-15)
        self._theta = np.ones(5)  # in units of the prior, which keeps the matrices well conditioned
        self._information = np.zeros((5, 5))
        self._spread = 1.0
        self._drift = 0.0
        self._num_observed = 0
        self.margin = Margin(min_margin, max_margin)
        self.costs = StepCosts(*start)

    @property
    def confidence(self) -> float:
        """0..1: how far to trust `costs`; below 1 for the first few steps."""
        return min(1.0, (1 + self._num_observed) / NUM_CAUTIOUS)

    def observe(self, step: StepFeatures, observed_s: float, is_cut: bool = False) -> None:
        """Learn from one step; `is_cut` if the budget bounded it. Costs about 20 microseconds."""
        if observed_s <= 0:
            return
        predicted_s = self.costs.predict_s(step)
        self.margin.observe(observed_s, predicted_s, is_cut)
        self._num_observed += 1
        if self._num_observed <= NUM_SCALING:
            self._rescale(observed_s / predicted_s)
            return
        error = observed_s / predicted_s - 1.0
        self._watch_drift(error)
        limit = CLIP * max(self._spread, MIN_SPREAD)
        self._spread += SPREAD_RATE * (min(1.0, abs(error)) - self._spread)
        self._update(step, predicted_s, max(-limit, min(limit, error)))

    def _rescale(self, ratio: float) -> None:
        self._scale *= ratio
        self.costs = StepCosts(*(self._theta * self._scale).tolist())

    def _watch_drift(self, error: float) -> None:
        """Relative errors that stay on one side mean that the machine changed: forget, so that the next steps count."""
        self._drift += DRIFT_RATE * (max(-DRIFT_CLIP, min(DRIFT_CLIP, error)) - self._drift)
        if abs(self._drift) > DRIFT_LIMIT:
            self._information[:] = 0.0
            self._spread, self._drift = DRIFT_SPREAD, 0.0
            self.margin.forget()

    def _update(self, step: StepFeatures, predicted_s: float, error: float) -> None:
        counts = np.array((1.0, step.decodes, step.context, step.prefill, step.prefill_context))
        row = counts * self._scale / predicted_s
        self._information *= FORGETTING
        self._information += row[:, None] * row
        information = self._information.copy()
        information.flat[::6] += (NOISE / PRIOR_SPREAD) ** 2 / (self._theta * self._theta)
        theta = self._theta + np.linalg.solve(information, row) * error
        self._theta = np.maximum(theta, MIN_SHARE)
        self.costs = StepCosts(*(self._theta * self._scale).tolist())
