"""The OpenVINO engine against transformers, on small random models: the same tokens, however steps are cut."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest
import torch
import transformers

from speciate.core.engine import SequenceSpec, SequenceStep, StepPlan
from speciate.core.request import SamplingParams
from speciate.engines.openvino import OpenVinoEngine, OpenVinoOptions
from speciate.engines.openvino.blocks import SCRATCH_BLOCKS
from speciate.engines.openvino.source import load_decoder

GREEDY = SamplingParams(temperature=0)
EXACT = OpenVinoOptions(weights="f32", kv="f32", kv_bytes=8 << 20, precision="f32", max_context_tokens=512)
SIZES: dict[str, Any] = {
    "vocab_size": 256,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 64}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 1e4,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
FAMILY: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {"head_dim": 32}),
    "llama-tied-wide-head": ("Llama", {"head_dim": 64, "tie_word_embeddings": True, "num_key_value_heads": 1}),
    "llama-biases-llama3": ("Llama", {"attention_bias": True, "mlp_bias": True, "rope_parameters": LLAMA3}),
    "llama-linear": ("Llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}}),
    "llama-yarn": ("Llama", {"rope_parameters": YARN}),
    "llama-dynamic": ("Llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}),
    "mistral": ("Mistral", {"sliding_window": None, "head_dim": 32}),
    "mistral-window": ("Mistral", {"sliding_window": 24, "head_dim": 32}),
    "qwen2": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen2-window": ("Qwen2", {"use_sliding_window": True, "sliding_window": 24, "max_window_layers": 1}),
    "qwen3": ("Qwen3", {"head_dim": 32, "num_key_value_heads": 4}),
}


def save_model(folder: Path, kind: str, changes: dict[str, Any]) -> Any:
    """Write a random model as transformers does, and return it for comparison."""
    torch.manual_seed(7)
    config = getattr(transformers, f"{kind}Config")(**{**SIZES, **changes})
    config._attn_implementation = "eager"
    model = getattr(transformers, f"{kind}ForCausalLM")(config).eval().float()
    for name, weight in model.named_parameters():
        if weight.ndim == 1:
            torch.nn.init.normal_(weight, 1.0 if "norm" in name else 0.0, 0.2)
    model.save_pretrained(folder)
    return model


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    save_model(folder, *FAMILY["llama"])
    return folder


@pytest.fixture(scope="module")
def engine(llama: Path) -> Iterator[OpenVinoEngine]:
    made = OpenVinoEngine.load(llama, EXACT)
    yield made
    made.close()


class Sequence:
    """One greedy sequence over fixed blocks, fed as the test says."""

    def __init__(self, engine: OpenVinoEngine, seq_id: int, prompt: list[int], blocks: tuple[int, ...]) -> None:
        self.engine = engine
        self.seq_id = seq_id
        self.tokens = list(prompt)
        self.num_prompt = len(prompt)
        self.blocks = blocks
        self.computed = 0
        engine.add(SequenceSpec(seq_id, tuple(prompt), GREEDY))

    def next(self, size: int | None = None) -> SequenceStep:
        """The next `size` tokens not computed yet, all by default."""
        end = len(self.tokens) if size is None else min(self.computed + size, len(self.tokens))
        chunk = tuple(self.tokens[self.computed : end])
        return SequenceStep(self.seq_id, chunk, self.computed, self.blocks, end == len(self.tokens))

    @property
    def output(self) -> list[int]:
        return self.tokens[self.num_prompt :]


def run(engine: OpenVinoEngine, *parts: tuple[Sequence, SequenceStep]) -> None:
    """One step; samples are appended to their sequences."""
    by_id = {sequence.seq_id: sequence for sequence, _ in parts}
    result = engine.step(StepPlan(0, tuple(step for _, step in parts)))
    assert result.failed == ()
    assert [s.seq_id for s in result.samples] == [step.seq_id for _, step in parts if step.samples]
    for sequence, step in parts:
        sequence.computed = step.start + len(step.tokens)
    for sample in result.samples:
        by_id[sample.seq_id].tokens.append(sample.token_id)


def generate(
    engine: OpenVinoEngine, prompt: list[int], count: int, chunk: int = 4096, first_block: int = 0
) -> list[int]:
    """Greedy tokens of one sequence alone, its prompt cut into chunks."""
    num_blocks = -(-(len(prompt) + count) // engine.shape.block_tokens)
    sequence = Sequence(engine, 1, prompt, tuple(range(first_block, first_block + num_blocks)))
    while len(sequence.output) < count:
        run(engine, (sequence, sequence.next(chunk)))
    engine.remove(1)
    return sequence.output


def prompt_of(length: int, seed: int = 0) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(3, SIZES["vocab_size"], length)]


def expect_greedy(model: Any, prompt: list[int], output: list[int]) -> None:
    """Every output token is the reference's likeliest, given all tokens before it."""
    with torch.no_grad():
        logits = model(torch.tensor([prompt + output])).logits[0]
    assert logits[len(prompt) - 1 : -1].argmax(-1).tolist() == output


@pytest.mark.parametrize("name", FAMILY)
def test_greedy_tokens_equal_transformers(name: str, tmp_path: Path) -> None:
    model = save_model(tmp_path, *FAMILY[name])
    engine = OpenVinoEngine.load(tmp_path, EXACT)
    prompt = prompt_of(45)
    output = generate(engine, prompt, 64, chunk=19)
    expect_greedy(model, prompt, output)
    assert len(set(output)) > 4, "a random model that repeats itself proves little"


def test_chunks_equal_the_whole_prompt(engine: OpenVinoEngine) -> None:
    prompt = prompt_of(100)
    whole = generate(engine, prompt, 24)
    assert generate(engine, prompt, 24, chunk=1) == whole
    assert generate(engine, prompt, 24, chunk=33, first_block=7) == whole


def test_sequences_that_share_steps_equal_each_alone(engine: OpenVinoEngine) -> None:
    prompts = [prompt_of(length, seed) for seed, length in enumerate((5, 40, 33, 64))]
    alone = [generate(engine, prompt, 16) for prompt in prompts]
    sequences = [Sequence(engine, 10 + i, p, (8 * i + 1, 8 * i + 5, 8 * i + 3)) for i, p in enumerate(prompts)]
    for turn in range(40):
        live = [s for i, s in enumerate(sequences) if len(s.output) < 16 and turn >= i]
        if live:
            run(engine, *((s, s.next(17)) for s in live))
    assert [s.output for s in sequences] == alone


def test_prefix_blocks_of_another_sequence_can_be_shared(engine: OpenVinoEngine) -> None:
    shared, tail = prompt_of(64), prompt_of(10, 3)
    expected = generate(engine, shared + tail, 16, first_block=20)
    writer = Sequence(engine, 1, shared, (4, 9))
    run(engine, (writer, writer.next()))
    reader = Sequence(engine, 2, shared + tail, (4, 9, 2))
    reader.computed = len(shared)
    while len(reader.output) < 16:
        run(engine, (reader, reader.next()))
    assert reader.output == expected


def test_evicted_and_recomputed_goes_on_as_before(engine: OpenVinoEngine) -> None:
    prompt = prompt_of(50)
    expected = generate(engine, prompt, 30)
    sequence = Sequence(engine, 1, prompt, (0, 1, 2))
    while len(sequence.output) < 12:
        run(engine, (sequence, sequence.next()))
    generate(engine, prompt_of(90, 5), 4)  # overwrites the blocks
    sequence.computed, sequence.blocks = 0, (11, 12, 13)
    engine.add(SequenceSpec(1, tuple(prompt), GREEDY))
    while len(sequence.output) < 30:
        run(engine, (sequence, sequence.next(20)))
    assert sequence.output == expected


def test_a_step_without_samples_returns_nothing(engine: OpenVinoEngine) -> None:
    sequence = Sequence(engine, 1, prompt_of(20), (0,))
    result = engine.step(StepPlan(0, (sequence.next(10),)))
    assert result.samples == ()
    assert engine.step(StepPlan(1, ())).samples == ()


def test_an_exported_ir_gives_the_same_tokens(llama: Path, engine: OpenVinoEngine, tmp_path: Path) -> None:
    source = load_decoder(llama, "f32")
    openvino.save_model(source.model, tmp_path / "openvino_model.xml", compress_to_fp16=False)
    (tmp_path / "config.json").write_bytes((llama / "config.json").read_bytes())
    exported = OpenVinoEngine.load(tmp_path, EXACT)
    assert exported.shape.vocab_size == engine.shape.vocab_size
    assert exported.shape.eos_token_ids == (2,)
    prompt = prompt_of(70)
    assert generate(exported, prompt, 32) == generate(engine, prompt, 32)


@pytest.mark.parametrize(("kv", "precision"), [("u8", "f32"), ("f16", "f32"), ("f32", "f32"), ("bf16", "bf16")])
def test_blocks_stay_within_their_budget(llama: Path, kv: Any, precision: Any) -> None:
    budget = 3_000_000
    made = OpenVinoEngine.load(llama, OpenVinoOptions(weights="f32", kv=kv, kv_bytes=budget, precision=precision))
    assert made.allocated_kv_bytes == (made.shape.num_blocks + SCRATCH_BLOCKS) * made.shape.block_bytes
    assert 0.98 * budget < made.allocated_kv_bytes <= budget
    made.close()


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A model with small weights, in which an error does not grow from layer to layer, and its exact logits."""
    folder = tmp_path_factory.mktemp("calm")
    save_model(folder, "Llama", {**FAMILY["llama"][1], "initializer_range": 0.1})
    return folder, last_logits(OpenVinoEngine.load(folder, EXACT), prompt_of(60))


@pytest.mark.parametrize(
    ("weights", "kv", "precision", "likeness"),
    [
        ("f32", "u8", "f32", 0.9999),
        ("bf16", "bf16", "bf16", 0.999),
        ("f16", "f16", "f32", 0.9999),
        ("int8", "u8", "auto", 0.998),
        ("int4", "u8", "auto", 0.94),
    ],
)
def test_fewer_bits_give_close_logits(
    calm: tuple[Path, Any], weights: Any, kv: Any, precision: Any, likeness: float
) -> None:
    folder, exact = calm
    made = OpenVinoEngine.load(folder, OpenVinoOptions(weights=weights, kv=kv, kv_bytes=1 << 20, precision=precision))
    assert np.corrcoef(last_logits(made, prompt_of(60)), exact)[0, 1] > likeness
    made.close()


def last_logits(engine: OpenVinoEngine, prompt: list[int]) -> Any:
    sequence = Sequence(engine, 1, prompt, (0, 1, 2, 3))
    run(engine, (sequence, sequence.next(31)))
    run(engine, (sequence, sequence.next()))
    return engine._request.get_output_tensor(0).data.reshape(-1).copy()
