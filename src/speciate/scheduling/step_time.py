"""How long a step takes, learnt while running. Knows counts and seconds, not sequences.

    T = base + decode * D + context * C + prefill * X + prefill_context * XC

D decodes that read C tokens of context; X prompt tokens, and what pads the step to a size that the engine has;
XC = sum of x * (mean context of the chunk's tokens).
Recursive least squares with forgetting over *relative* errors, so that short steps count as much as long ones.
"""

from speciate.scheduling.least_squares import NOTHING, remember, solve
from speciate.scheduling.margin import MIN_OBSERVATIONS, Margin
from speciate.scheduling.options import StepTimePrior
from speciate.scheduling.recent_error import RecentError
from speciate.scheduling.step_costs import StepCosts, StepFeatures

FORGETTING = 0.995
NOISE = 0.05
"""Relative noise of one observation, assumed."""
PRIOR_SPREAD = 2.0
"""A coefficient is assumed known to about this many times itself where nothing was observed lately."""
KNOWN = (NOISE / PRIOR_SPREAD) ** 2
TINY = 1e-15
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
MAX_STRIDE = 32
"""Steps with equal decodes and no prompt teach at the 1st, 2nd, 4th, 8th, 16th, then at each 32nd of them."""
CALM_DRIFT = 0.05
"""A surprise, or a smoothed error beyond this, and every step teaches again."""


class StepTimeModel:
    """`costs` now, `observe` after each step.

    Decodes that go on unchanged repeat the step before, and teach little that is new: while they take what was expected
    most of them are only counted, so that a window of observations spans more kinds of steps (and more time).

    A step's row r is its counts over its predicted seconds, so errors are relative. The update is least squares with
    forgetting and a bounded gain, which stays stable where steps do not excite every direction:

        A <- f A + r r'        theta <- theta + (A + R)^-1 r * error        R: how well the prior is known
    """

    def __init__(self, prior: StepTimePrior, min_margin: float = 1.05, max_margin: float = 4.0) -> None:
        start = (prior.base_s, prior.decode_s, prior.context_s, prior.prefill_s, prior.prefill_context_s)
        b, d, c, p, q = start
        self._scale = (max(b, TINY), max(d, TINY), max(c, TINY), max(p, TINY), max(q, TINY))
        self._theta = (1.0, 1.0, 1.0, 1.0, 1.0)
        """In units of `_scale`, which keeps the matrix well conditioned."""
        self._information = NOTHING
        self._spread = 1.0
        self._drift = 0.0
        self._num_observed = 0
        self._repeated_decodes = -1
        self._num_repeats = 0
        self._num_untaught = 0
        """Steps since the last one that was learnt from, if they were of one kind."""
        self.error = RecentError()
        self.margin = Margin(min_margin, max_margin)
        self.costs = StepCosts(*start)

    @property
    def confidence(self) -> float:
        """0..1: how far to trust `costs`; below 1 for the first few steps."""
        return min(1.0, (1 + self._num_observed) / NUM_CAUTIOUS)

    def observe(
        self,
        step: StepFeatures,
        observed_s: float,
        is_cut: bool = False,
        num_streams: int = 0,
        has_prompts: bool = False,
    ) -> None:
        """Learn from one step, unless it repeats others that were as expected; always if the budget bounded it
        (`is_cut`). Costs about 7 microseconds."""
        num_ahead = self._num_ahead(step)
        self._num_repeats += 1
        self._num_untaught += 1
        if (num_ahead == 1 or is_cut) and observed_s > 0:
            self.margin.observe(observed_s, self.costs.predict_s(step), is_cut, num_streams, has_prompts)
            self._learn(step, observed_s)

    def observe_repeats(self, step: StepFeatures, durations_s: list[float]) -> None:
        """The same as to `observe` such steps one after the other, each with a token more of context a decode; none of
        them is cut."""
        done, num = 0, len(durations_s)
        while done < num:
            num_ahead = min(num - done, self._num_ahead(step))
            self._num_repeats += num_ahead - 1
            self._num_untaught += num_ahead - 1
            done += num_ahead
            context = step.context + (done - 1) * step.decodes
            self.observe(StepFeatures(step.decodes, context, padding=step.padding), durations_s[done - 1])

    def _num_ahead(self, step: StepFeatures) -> int:
        """Which step from here on is the next to learn from, if all are like this one; 1: this one."""
        if step.prefill or step.decodes != self._repeated_decodes:
            self._repeated_decodes = -1 if step.prefill else step.decodes
            self._num_repeats = self._num_untaught = 0
        num = self._num_repeats
        if num < 1 or self._num_observed < MIN_OBSERVATIONS:
            return 1
        return MAX_STRIDE - num % MAX_STRIDE if num >= MAX_STRIDE else (1 << num.bit_length()) - num

    def _learn(self, step: StepFeatures, observed_s: float) -> None:
        predicted_s = self.costs.predict_s(step)
        self.error.add(observed_s, predicted_s, self._num_untaught)
        self._num_untaught = 0
        self._num_observed += 1
        if self._num_observed <= NUM_SCALING:
            self._rescale(observed_s / predicted_s)
            return
        error = observed_s / predicted_s - 1.0
        self._watch_drift(error)
        limit = CLIP * max(self._spread, MIN_SPREAD)
        self._spread += SPREAD_RATE * (min(1.0, abs(error)) - self._spread)
        self._update(step, predicted_s, max(-limit, min(limit, error)))
        if abs(error) > limit or abs(self._drift) > CALM_DRIFT:
            self._num_repeats = 0

    def _rescale(self, ratio: float) -> None:
        s0, s1, s2, s3, s4 = self._scale
        self._scale = (s0 * ratio, s1 * ratio, s2 * ratio, s3 * ratio, s4 * ratio)
        self._set_costs()

    def _watch_drift(self, error: float) -> None:
        """Relative errors that stay on one side mean that the machine changed: forget, so that the next steps count."""
        self._drift += DRIFT_RATE * (max(-DRIFT_CLIP, min(DRIFT_CLIP, error)) - self._drift)
        if abs(self._drift) > DRIFT_LIMIT:
            self._information = NOTHING
            self._spread, self._drift = DRIFT_SPREAD, 0.0
            self.margin.forget()

    def _update(self, step: StepFeatures, predicted_s: float, error: float) -> None:
        s0, s1, s2, s3, s4 = self._scale
        per_s = 1.0 / predicted_s
        row = (
            s0 * per_s,
            step.decodes * s1 * per_s,
            step.context * s2 * per_s,
            (step.prefill + step.padding) * s3 * per_s,
            step.prefill_context * s4 * per_s,
        )
        t0, t1, t2, t3, t4 = self._theta
        ridge = (KNOWN / (t0 * t0), KNOWN / (t1 * t1), KNOWN / (t2 * t2), KNOWN / (t3 * t3), KNOWN / (t4 * t4))
        self._information = remember(self._information, row, FORGETTING)
        x0, x1, x2, x3, x4 = solve(self._information, ridge, row)
        self._theta = (
            max(MIN_SHARE, t0 + x0 * error),
            max(MIN_SHARE, t1 + x1 * error),
            max(MIN_SHARE, t2 + x2 * error),
            max(MIN_SHARE, t3 + x3 * error),
            max(MIN_SHARE, t4 + x4 * error),
        )
        self._set_costs()

    def _set_costs(self) -> None:
        s0, s1, s2, s3, s4 = self._scale
        t0, t1, t2, t3, t4 = self._theta
        self.costs = StepCosts(s0 * t0, s1 * t1, s2 * t2, s3 * t3, s4 * t4)
