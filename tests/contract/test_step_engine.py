"""What every StepEngine must do, whatever runs behind it. A new engine joins by a line in ENGINES.

The suite speaks the protocol alone: it hands out blocks, feeds tokens and looks at what comes back.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from speciate.core.engine import SequenceSpec, SequenceStep, StepEngine, StepPlan, TokenEngineShape
from speciate.core.errors import InvalidRequest
from speciate.core.request import SamplingParams
from speciate.engines.fake import FakeEngine
from speciate.engines.openvino import OpenVinoEngine, OpenVinoOptions
from speciate.models import pocket

GREEDY = SamplingParams(temperature=0)
POCKET = Path(pocket.__file__).parent / "text"


def make_fake() -> StepEngine:
    shape = TokenEngineShape("fake", 500, 512, block_tokens=16, num_blocks=64, block_bytes=1024, eos_token_ids=(2,))
    return FakeEngine(shape)


def make_openvino() -> StepEngine:
    """The shipped model, exactly: whether steps are cut one way or another must not change a token."""
    return OpenVinoEngine.load(POCKET, OpenVinoOptions(weights="f32", kv="f32", kv_bytes=16 << 20, precision="f32"))


ENGINES: dict[str, Callable[[], StepEngine]] = {"fake": make_fake, "openvino": make_openvino}


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Iterator[StepEngine]:
    made = ENGINES[request.param]()
    yield made
    made.close()


class Caller:
    """Hands out blocks and drives sequences, as a scheduler does."""

    def __init__(self, engine: StepEngine) -> None:
        self.engine = engine
        self.free = list(range(engine.shape.num_blocks))
        self.tokens: dict[int, list[int]] = {}
        self.computed: dict[int, int] = {}
        self.blocks: dict[int, list[int]] = {}

    def add(self, seq_id: int, prompt: list[int], sampling: SamplingParams = GREEDY) -> None:
        self.engine.add(SequenceSpec(seq_id, tuple(prompt), sampling))
        self.tokens[seq_id], self.computed[seq_id], self.blocks[seq_id] = list(prompt), 0, []

    def remove(self, seq_id: int) -> None:
        self.engine.remove(seq_id)
        self.free.extend(self.blocks.pop(seq_id))

    def evict(self, seq_id: int) -> None:
        self.free.extend(self.blocks[seq_id])
        self.blocks[seq_id], self.computed[seq_id] = [], 0

    def step(self, sizes: dict[int, int]) -> list[int]:
        """One plan of so many tokens a sequence; the sequences that were sampled, in order."""
        plan = StepPlan(0, tuple(self._next(seq_id, size) for seq_id, size in sizes.items()))
        result = self.engine.step(plan)
        assert result.failed == ()
        for part in plan.sequences:
            self.computed[part.seq_id] = part.start + len(part.tokens)
        for sample in result.samples:
            assert 0 <= sample.token_id < self.engine.shape.vocab_size
            self.tokens[sample.seq_id].append(sample.token_id)
        return [sample.seq_id for sample in result.samples]

    def generate(self, prompt: list[int], count: int, chunk: int, sampling: SamplingParams = GREEDY) -> list[int]:
        self.add(99, prompt, sampling)
        while len(self.tokens[99]) < len(prompt) + count:
            self.step({99: chunk})
        self.remove(99)
        return self.tokens[99][len(prompt) :]

    def _next(self, seq_id: int, size: int) -> SequenceStep:
        start = self.computed[seq_id]
        end = min(start + size, len(self.tokens[seq_id]))
        while len(self.blocks[seq_id]) * self.engine.shape.block_tokens < end:
            self.blocks[seq_id].append(self.free.pop(0))
        chunk, is_last = tuple(self.tokens[seq_id][start:end]), end == len(self.tokens[seq_id])
        return SequenceStep(seq_id, chunk, start, tuple(self.blocks[seq_id]), is_last)


@pytest.fixture
def caller(engine: StepEngine) -> Caller:
    return Caller(engine)


def prompt_of(engine: StepEngine, length: int, seed: int = 0) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(3, engine.shape.vocab_size, length)]


def test_the_shape_holds_together(engine: StepEngine) -> None:
    shape = engine.shape
    assert shape.num_blocks >= 2
    assert shape.block_bytes > 0
    assert 0 < shape.context_tokens <= shape.num_blocks * shape.block_tokens
    assert all(0 <= token < shape.vocab_size for token in shape.eos_token_ids)
    assert shape.max_step_tokens > 0
    assert shape.max_step_sequences > 0


def test_only_sampling_sequences_are_sampled_in_the_order_of_the_plan(engine: StepEngine, caller: Caller) -> None:
    for seq_id in (7, 3, 5):
        caller.add(seq_id, prompt_of(engine, 20, seq_id))
    assert caller.step({5: 20, 7: 8, 3: 20}) == [5, 3]
    assert caller.step({7: 12, 3: 1}) == [7, 3]
    for seq_id in (7, 3, 5):
        caller.remove(seq_id)


def test_an_empty_plan_gives_no_samples(engine: StepEngine) -> None:
    assert engine.step(StepPlan(0, ())).samples == ()


def test_greedy_output_repeats(engine: StepEngine, caller: Caller) -> None:
    prompt = prompt_of(engine, 30)
    assert caller.generate(prompt, 12, 4096) == caller.generate(prompt, 12, 4096)


@pytest.mark.parametrize("chunk", [1, 7, 32])
def test_how_a_prompt_is_cut_does_not_change_its_tokens(engine: StepEngine, caller: Caller, chunk: int) -> None:
    prompt = prompt_of(engine, 70)
    assert caller.generate(prompt, 12, chunk) == caller.generate(prompt, 12, 4096)


def test_neighbours_in_a_step_do_not_change_a_sequence(engine: StepEngine, caller: Caller) -> None:
    prompts = {seq_id: prompt_of(engine, 10 + 17 * seq_id, seq_id) for seq_id in (1, 2, 3)}
    alone = {seq_id: caller.generate(prompt, 10, 4096) for seq_id, prompt in prompts.items()}
    for seq_id, prompt in prompts.items():
        caller.add(seq_id, prompt)
    for _ in range(40):
        sizes = {i: 9 for i, prompt in prompts.items() if len(caller.tokens[i]) < len(prompt) + 10}
        if sizes:
            caller.step(sizes)
    assert {i: caller.tokens[i][len(prompt) :] for i, prompt in prompts.items()} == alone
    for seq_id in prompts:
        caller.remove(seq_id)


def test_blocks_may_lie_anywhere_and_be_used_again(engine: StepEngine, caller: Caller) -> None:
    prompt = prompt_of(engine, 60)
    expected = caller.generate(prompt, 10, 4096)
    caller.free.reverse()
    assert caller.generate(prompt, 10, 4096) == expected
    caller.free.sort(key=lambda block: block % 7)
    assert caller.generate(prompt, 10, 4096) == expected


def test_blocks_of_a_shared_prefix_serve_another_sequence(engine: StepEngine, caller: Caller) -> None:
    shared = prompt_of(engine, 2 * engine.shape.block_tokens)
    tail = prompt_of(engine, 5, 1)
    expected = caller.generate(shared + tail, 10, 4096)
    caller.add(1, shared)
    caller.step({1: 4096})
    caller.add(2, shared + tail)
    caller.blocks[2], caller.computed[2] = caller.blocks[1][:2], len(shared)
    while len(caller.tokens[2]) < len(shared + tail) + 10:
        caller.step({2: 4096})
    assert caller.tokens[2][len(shared + tail) :] == expected
    engine.remove(1)
    engine.remove(2)


def test_a_sequence_whose_blocks_were_taken_is_computed_again(engine: StepEngine, caller: Caller) -> None:
    prompt = prompt_of(engine, 40)
    expected = caller.generate(prompt, 20, 4096)
    caller.add(1, prompt)
    while len(caller.tokens[1]) < len(prompt) + 8:
        caller.step({1: 4096})
    caller.evict(1)
    caller.generate(prompt_of(engine, 90, 4), 3, 4096)
    while len(caller.tokens[1]) < len(prompt) + 20:
        caller.step({1: 16})
    assert caller.tokens[1][len(prompt) :] == expected
    caller.remove(1)


def test_a_seed_decides_the_draws(engine: StepEngine, caller: Caller) -> None:
    sampling = SamplingParams(temperature=1.0, seed=11)
    prompt = prompt_of(engine, 25)
    assert caller.generate(prompt, 10, 4096, sampling) == caller.generate(prompt, 10, 5, sampling)


def test_a_token_id_outside_the_vocabulary_is_refused(engine: StepEngine) -> None:
    sampling = SamplingParams(logit_bias=((engine.shape.vocab_size, 1.0),))
    with pytest.raises(InvalidRequest):
        engine.add(SequenceSpec(1, (3,), sampling))


def test_removing_what_is_not_there_does_nothing(engine: StepEngine, caller: Caller) -> None:
    engine.remove(123456)
    caller.add(1, prompt_of(engine, 5))
    engine.remove(1)
    caller.add(1, prompt_of(engine, 5))
    assert caller.step({1: 5}) == [1]
    engine.remove(1)
    engine.remove(1)
