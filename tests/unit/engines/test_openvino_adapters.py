"""LoRA adapters: rows of several adapters and of the base in one step, each as if its weights had been merged."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file, save_file

from speciate.core.engine import SequenceSpec, SequenceStep, StepPlan
from speciate.core.errors import InvalidRequest, LoadFailed
from speciate.core.request import SamplingParams
from speciate.engines.openvino import AdapterFolder, OpenVinoEngine, OpenVinoOptions

GREEDY = SamplingParams(temperature=0)
EXACT = OpenVinoOptions(weights="f32", kv="f32", kv_bytes=4 << 20, precision="f32")
HIDDEN, INNER = 64, 96
SHAPES = {"self_attn.q_proj": (HIDDEN, HIDDEN), "self_attn.v_proj": (32, HIDDEN), "mlp.down_proj": (HIDDEN, INNER)}


def save_base(folder: Path) -> None:
    torch.manual_seed(3)
    config = transformers.LlamaConfig(
        vocab_size=128,
        hidden_size=HIDDEN,
        intermediate_size=INNER,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=256,
        initializer_range=0.3,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)


def lora_tensors(seed: int, rank: int, modules: tuple[str, ...]) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    tensors: dict[str, Any] = {}
    for layer in range(2):
        for module in modules:
            outputs, inputs = SHAPES[module]
            name = f"base_model.model.model.layers.{layer}.{module}"
            tensors[f"{name}.lora_A.weight"] = rng.normal(0, 0.3, (rank, inputs)).astype(np.float32)
            tensors[f"{name}.lora_B.weight"] = rng.normal(0, 0.3, (outputs, rank)).astype(np.float32)
    return tensors


def save_adapter(folder: Path, tensors: dict[str, Any], **config: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    values = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "bias": "none", **config}
    (folder / "adapter_config.json").write_text(json.dumps(values))
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def merge(base: Path, folder: Path, tensors: dict[str, Any], scale: float) -> Path:
    """The base with the adapter added to its weights: what each row must behave like."""
    folder.mkdir()
    weights = load_file(base / "model.safetensors")
    for name in tensors:
        if name.endswith("lora_A.weight"):
            stem = name.removesuffix(".lora_A.weight")
            delta = tensors[f"{stem}.lora_B.weight"] @ tensors[name]
            weights[stem.removeprefix("base_model.model.") + ".weight"] += scale * delta
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_bytes((base / "config.json").read_bytes())
    return folder


def generate(engine: OpenVinoEngine, rows: list[tuple[int, str | None]], count: int = 20) -> list[list[int]]:
    """Greedy tokens of several sequences that share every step."""
    tokens = {}
    for seq_id, adapter in rows:
        tokens[seq_id] = [int(t) for t in np.random.default_rng(9).integers(3, 128, 21 + seq_id % 3)]
        engine.add(SequenceSpec(seq_id, tuple(tokens[seq_id]), GREEDY, adapter=adapter))
    lengths = {seq_id: len(row) for seq_id, row in tokens.items()}
    done = dict.fromkeys(tokens, 0)
    for _ in range(count):
        steps = tuple(
            SequenceStep(i, tuple(row[done[i] :]), done[i], (2 * i, 2 * i + 1), True) for i, row in tokens.items()
        )
        done = {i: len(row) for i, row in tokens.items()}
        for sample in engine.step(StepPlan(0, steps)).samples:
            tokens[sample.seq_id].append(sample.token_id)
    for seq_id, _ in rows:
        engine.remove(seq_id)
    return [row[lengths[seq_id] :] for seq_id, row in tokens.items()]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    save_base(folder)
    return folder


@pytest.fixture(scope="module")
def engine(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenVinoEngine]:
    folder = tmp_path_factory.mktemp("adapters")
    first = save_adapter(folder / "first", lora_tensors(1, 4, ("self_attn.q_proj", "mlp.down_proj")))
    second = save_adapter(
        folder / "second", lora_tensors(2, 2, ("self_attn.q_proj", "self_attn.v_proj")), use_rslora=True
    )
    adapters = (AdapterFolder("first", first), AdapterFolder("second", second))
    made = OpenVinoEngine.load(base, msgspec.structs.replace(EXACT, adapters=adapters))
    yield made
    made.close()


def test_adapters_and_base_share_steps_and_equal_merged_weights(
    engine: OpenVinoEngine, base: Path, tmp_path: Path
) -> None:
    mixed = generate(engine, [(1, None), (2, "first"), (4, "second"), (7, "first"), (8, "second")])
    first = merge(base, tmp_path / "a", lora_tensors(1, 4, ("self_attn.q_proj", "mlp.down_proj")), 8 / 4)
    second = merge(base, tmp_path / "b", lora_tensors(2, 2, ("self_attn.q_proj", "self_attn.v_proj")), 8 / 2**0.5)
    assert [mixed[0]] == generate(OpenVinoEngine.load(base, EXACT), [(1, None)])
    assert [mixed[1], mixed[3]] == generate(OpenVinoEngine.load(first, EXACT), [(2, None), (7, None)])
    assert [mixed[2], mixed[4]] == generate(OpenVinoEngine.load(second, EXACT), [(4, None), (8, None)])
    assert mixed[1] != mixed[2]


def test_the_shape_names_the_adapters(engine: OpenVinoEngine) -> None:
    assert engine.shape.adapters == ("first", "second")


def test_an_adapter_that_is_not_loaded_is_refused(engine: OpenVinoEngine) -> None:
    with pytest.raises(InvalidRequest, match="'third' is not loaded; loaded are first, second"):
        engine.add(SequenceSpec(1, (3,), GREEDY, adapter="third"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"bias": "all"}, "bias"),
        ({"peft_type": "IA3"}, "IA3"),
        ({"lora_alpha": None}, "lora_alpha"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
    ],
)
def test_what_is_not_plain_lora_is_refused(base: Path, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    save_adapter(tmp_path / "a", lora_tensors(1, 4, ("self_attn.q_proj",)), **change)
    expect_refusal(base, tmp_path / "a", message)


def test_broken_adapters_name_the_tensor(base: Path, tmp_path: Path) -> None:
    good = lora_tensors(1, 4, ("self_attn.q_proj",))
    stem = "base_model.model.model.layers.0.self_attn.q_proj"
    one_sided = {name: value for name, value in good.items() if name != f"{stem}.lora_B.weight"}
    expect_refusal(base, save_adapter(tmp_path / "a", one_sided), r"layers\.0\.self_attn\.q_proj' has no lora_B")
    ranks = {**good, f"{stem}.lora_B.weight": np.zeros((HIDDEN, 3), np.float32)}
    expect_refusal(base, save_adapter(tmp_path / "b", ranks), "do not share a rank")
    wide = {**good, f"{stem}.lora_A.weight": np.zeros((4, HIDDEN + 1), np.float32)}
    expect_refusal(base, save_adapter(tmp_path / "c", wide), "another base")
    stray = {**good, "base_model.model.model.embed_tokens.lora_embedding_A": np.zeros((4, 8), np.float32)}
    expect_refusal(base, save_adapter(tmp_path / "d", stray), "lora_embedding_A")
    elsewhere = {name.replace("layers.1", "layers.5"): value for name, value in good.items()}
    expect_refusal(base, save_adapter(tmp_path / "e", elsewhere), r"layers\.5\.self_attn\.q_proj")
    expect_refusal(base, tmp_path / "nowhere", "does not exist")


def expect_refusal(base: Path, adapter: Path, message: str) -> None:
    with pytest.raises(LoadFailed, match=message):
        OpenVinoEngine.load(base, msgspec.structs.replace(EXACT, adapters=(AdapterFolder("broken", adapter),)))
