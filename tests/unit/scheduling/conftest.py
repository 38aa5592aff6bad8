"""A small device, work for it, and a driver that plays the engine."""

from collections.abc import Callable

import pytest

from speciate.core.engine import EVERY_SIZE, TokenEngineShape
from speciate.core.scheduler import Decision, StepOutcome, TokenWork
from speciate.core.segment import Segment, Slo, Tier
from speciate.scheduling.options import StepTimePrior, TokenSchedulerOptions
from speciate.scheduling.token import TokenScheduler

SEGMENTS = {
    "voice": Segment("voice", Tier.REALTIME, Slo(ttft_s=0.1, tpot_s=0.05)),
    "chat": Segment("chat", Tier.INTERACTIVE, Slo(ttft_s=1.0, tpot_s=0.1), jitter_buffer=1.0),
    "docs": Segment("docs", Tier.BATCH, Slo(e2e_s=3600.0)),
}
PRIOR = StepTimePrior(base_s=0.008, decode_s=0.001, context_s=0.0, prefill_s=0.001, prefill_context_s=0.0)


class Device:
    """A scheduler whose engine is exactly as fast as the prior says."""

    def __init__(self, **settings: object) -> None:
        shape = {
            "num_blocks": 100,
            "max_step_tokens": 512,
            "max_step_sequences": 64,
            "context_tokens": 1600,
            "step_sizes": EVERY_SIZE,
        }
        fields = {name: settings.pop(name) for name in shape if name in settings}
        self.shape = TokenEngineShape(
            model="m", vocab_size=100, block_tokens=16, block_bytes=1, eos_token_ids=(), **{**shape, **fields}
        )
        options = {"prior": PRIOR, "eviction_rest_s": 0.0, **settings}
        self.scheduler = TokenScheduler(self.shape, TokenSchedulerOptions(**options))
        self.now_s = 0.0
        self.ids = 0
        self.outputs: dict[int, int] = {}
        self.lengths: dict[int, int] = {}
        self.token_s: dict[int, list[float]] = {}
        for _ in range(10):  # past the cautious first steps
            self.finish(self.add("docs", 16, 4))
        self.token_s.clear()

    def add(self, segment: str | Segment, prompt: int, outputs: int, **fields: object) -> int:
        """Queue a prompt of that many tokens, all different from other prompts unless `prompt_tokens` is given."""
        self.ids += 1
        tokens = tuple((self.ids * 1000 + i) % 9973 for i in range(prompt))
        work = {
            "seq_id": self.ids,
            "prompt_tokens": tokens,
            "segment": segment if isinstance(segment, Segment) else SEGMENTS[segment],
            "arrival_s": self.now_s,
            "max_tokens": outputs,
            **fields,
        }
        self.scheduler.add(TokenWork(**work), self.now_s)
        self.lengths[self.ids] = outputs
        return self.ids

    def plan(self) -> Decision:
        return self.scheduler.plan(self.now_s)

    def commit(self, decision: Decision) -> None:
        assert decision.plan is not None
        self.now_s += decision.predicted_s
        tokens, finished = [], set()
        for step in decision.plan.sequences:
            if step.samples:
                tokens.append((step.seq_id, 7))
                times = self.token_s.setdefault(step.seq_id, [])
                times.append(self.now_s)
                if len(times) == self.lengths[step.seq_id]:
                    finished.add(step.seq_id)
        outcome = StepOutcome(decision.plan, decision.predicted_s, tuple(tokens), frozenset(finished))
        self.scheduler.commit(outcome, self.now_s)
        self.scheduler.check()

    def step(self) -> Decision:
        decision = self.plan()
        self.commit(decision)
        return decision

    def finish(self, *seq_ids: int) -> None:
        for _ in range(10_000):
            if all(len(self.token_s.get(i, ())) == self.lengths[i] for i in seq_ids):
                return
            self.step()
        raise AssertionError(f"{seq_ids} do not finish")


@pytest.fixture
def device() -> Callable[..., Device]:
    return Device


def chunks(decision: Decision) -> dict[int, int]:
    """Tokens by sequence id."""
    assert decision.plan is not None
    return {step.seq_id: len(step.tokens) for step in decision.plan.sequences}


@pytest.fixture(name="chunks")
def chunks_fixture() -> Callable[[Decision], dict[int, int]]:
    return chunks
