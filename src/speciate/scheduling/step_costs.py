"""What a step is made of and what its parts cost, in counts and seconds. Frozen; learnt in `step_time`."""

from math import inf, sqrt
from sys import maxsize

from msgspec import Struct

FOREVER_S = 1e6


class StepFeatures(Struct, frozen=True):
    """What the model sees of a step."""

    decodes: int = 0
    context: int = 0
    prefill: int = 0
    prefill_context: float = 0.0
    padding: int = 0
    """Tokens of nobody's: the engine computes only certain numbers of tokens at once."""


class StepCosts(Struct, frozen=True):
    """The coefficients at one moment, in seconds; all positive."""

    base_s: float
    decode_s: float
    context_s: float
    prefill_s: float
    prefill_context_s: float

    def predict_s(self, step: StepFeatures) -> float:
        decodes = self.base_s + self.decode_s * step.decodes + self.context_s * step.context
        prompts = self.prefill_s * (step.prefill + step.padding) + self.prefill_context_s * step.prefill_context
        return decodes + prompts

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
