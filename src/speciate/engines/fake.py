"""A deterministic stepped engine for tests, simulation and overhead benchmarks. It has no model.

Each KV slot holds a hash of all tokens up to it, read through the block table exactly as attention would read keys:
a wrong block, a stale block or a skipped position changes every later token. `expected_tokens` says what must come out.
"""

import time
from collections.abc import Callable

from msgspec import Struct

from speciate.core.engine import SampledToken, SequenceSpec, SequenceStep, StepPlan, StepResult, TokenEngineShape
from speciate.core.errors import EngineFailed, InvalidRequest

_MASK = (1 << 61) - 1
_FACTOR = 0x9E3779B97F4A7C15

Script = Callable[[tuple[int, ...]], tuple[int, ...] | None]
"""From a prompt to the output tokens wanted, or None for the hash's own."""


class StepCost(Struct, frozen=True):
    """Seconds a step takes: the terms of the step-time model of DESIGN section 5."""

    fixed_s: float = 0.0
    decode_s: float = 0.0
    context_token_s: float = 0.0
    prefill_token_s: float = 0.0
    prefill_context_token_s: float = 0.0

    def duration_s(self, plan: StepPlan) -> float:
        return self.fixed_s + sum(self._sequence_s(s) for s in plan.sequences)

    def _sequence_s(self, sequence: SequenceStep) -> float:
        num_tokens = len(sequence.tokens)
        if num_tokens == 1 and sequence.start > 0:
            return self.decode_s + self.context_token_s * sequence.start
        return num_tokens * (self.prefill_token_s + self.prefill_context_token_s * sequence.start)


def no_script(prompt_tokens: tuple[int, ...]) -> None:
    """The default script: tokens come from the hash."""
    del prompt_tokens


class FakeEngine:
    """Implements `StepEngine`. `wait` is called with each step's cost; the default really sleeps."""

    def __init__(
        self,
        shape: TokenEngineShape,
        *,
        cost: StepCost | None = None,
        script: Script = no_script,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._shape = shape
        self._cost = cost or StepCost()
        self._script = script
        self._wait = wait
        self._slots = [[0] * shape.block_tokens for _ in range(shape.num_blocks)]
        self._specs: dict[int, SequenceSpec] = {}
        self._scripted: dict[int, tuple[int, ...]] = {}
        self.fail_next_step = False
        """Fault injection: the next step raises EngineFailed."""
        self.num_steps = 0

    @property
    def shape(self) -> TokenEngineShape:
        return self._shape

    def add(self, sequence: SequenceSpec) -> None:
        for token_id, _ in sequence.sampling.logit_bias:
            if not 0 <= token_id < self._shape.vocab_size:
                raise InvalidRequest(
                    f"logit_bias names token {token_id}; this model has tokens 0..{self._shape.vocab_size - 1}.",
                    param="logit_bias",
                )
        self._specs[sequence.seq_id] = sequence
        scripted = self._script(sequence.prompt_tokens)
        if scripted is not None:
            self._scripted[sequence.seq_id] = scripted

    def step(self, plan: StepPlan) -> StepResult:
        self.num_steps += 1
        if self.fail_next_step:
            self.fail_next_step = False
            raise EngineFailed("The fake engine was told to fail this step.")
        cost_s = self._cost.duration_s(plan)
        if cost_s > 0:
            self._wait(cost_s)
        last = [(s, self._compute(s)) for s in plan.sequences]
        return StepResult(samples=tuple(self._sample(s, state) for s, state in last if s.samples))

    def remove(self, seq_id: int) -> None:
        self._specs.pop(seq_id, None)
        self._scripted.pop(seq_id, None)

    def close(self) -> None:
        self._specs.clear()

    def _compute(self, sequence: SequenceStep) -> int:
        block_tokens = self._shape.block_tokens
        table = sequence.block_ids
        state = 0
        if sequence.start > 0:
            last = sequence.start - 1
            state = self._slots[table[last // block_tokens]][last % block_tokens]
        for position, token in enumerate(sequence.tokens, start=sequence.start):
            state = _mix(state, token)
            self._slots[table[position // block_tokens]][position % block_tokens] = state
        return state

    def _sample(self, sequence: SequenceStep, state: int) -> SampledToken:
        spec = self._specs[sequence.seq_id]
        scripted = self._scripted.get(sequence.seq_id)
        if scripted is None:
            return SampledToken(sequence.seq_id, _token_of(state, self._shape), logprob=0.0)
        place = sequence.start + len(sequence.tokens) - len(spec.prompt_tokens)
        ended = place >= len(scripted)
        token_id = self._shape.eos_token_ids[0] if ended else scripted[place]
        return SampledToken(sequence.seq_id, token_id, logprob=0.0)


def expected_tokens(prompt_tokens: tuple[int, ...], num_tokens: int, shape: TokenEngineShape) -> tuple[int, ...]:
    """What an unscripted FakeEngine of this shape must generate, whatever the schedule."""
    state = 0
    for token in prompt_tokens:
        state = _mix(state, token)
    tokens: list[int] = []
    while len(tokens) < num_tokens:
        tokens.append(_token_of(state, shape))
        state = _mix(state, tokens[-1])
    return tuple(tokens)


def _mix(state: int, token: int) -> int:
    return ((state ^ (token + 1)) * _FACTOR + (state >> 7) + 1) & _MASK


def _token_of(state: int, shape: TokenEngineShape) -> int:
    """Any token but an end token."""
    token_id = (state >> 13) % shape.vocab_size
    while token_id in shape.eos_token_ids:
        token_id = (token_id + 1) % shape.vocab_size
    return token_id
