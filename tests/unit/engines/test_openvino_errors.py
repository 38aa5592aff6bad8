"""What is broken is named: the file, the tensor, the key or the value, and what to do."""

import json
import struct
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import openvino
import pytest
from safetensors.numpy import load_file, save_file

from speciate.core.engine import SequenceSpec, SequenceStep, StepPlan
from speciate.core.errors import EngineFailed, InvariantError, LoadFailed
from speciate.core.request import SamplingParams
from speciate.engines.openvino import OpenVinoEngine, OpenVinoOptions
from speciate.engines.openvino.source import load_decoder

OPTIONS = OpenVinoOptions(weights="f32", kv="f32", kv_bytes=1 << 20, precision="f32")
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 64,
    "hidden_size": 64,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "eos_token_id": [2, 3],
}
SHAPES: dict[str, tuple[int, ...]] = {
    "model.embed_tokens.weight": (64, 64),
    "model.norm.weight": (64,),
    "lm_head.weight": (64, 64),
    "model.layers.0.input_layernorm.weight": (64,),
    "model.layers.0.post_attention_layernorm.weight": (64,),
    "model.layers.0.self_attn.q_proj.weight": (64, 64),
    "model.layers.0.self_attn.k_proj.weight": (32, 64),
    "model.layers.0.self_attn.v_proj.weight": (32, 64),
    "model.layers.0.self_attn.o_proj.weight": (64, 64),
    "model.layers.0.mlp.gate_proj.weight": (32, 64),
    "model.layers.0.mlp.up_proj.weight": (32, 64),
    "model.layers.0.mlp.down_proj.weight": (64, 32),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    save_file({name: rng.normal(0, 0.1, shape).astype(np.float32) for name, shape in SHAPES.items()}, weights(tmp_path))
    write_config(tmp_path)
    return tmp_path


def weights(folder: Path) -> Path:
    return folder / "model.safetensors"


def write_config(folder: Path, **changes: Any) -> None:
    values = {key: value for key, value in {**CONFIG, **changes}.items() if value != "absent"}
    (folder / "config.json").write_text(json.dumps(values))


def expect(folder: Path, message: str, options: OpenVinoOptions = OPTIONS) -> None:
    with pytest.raises(LoadFailed, match=message):
        OpenVinoEngine.load(folder, options)


def test_a_whole_folder_loads_sharded_too(folder: Path) -> None:
    assert OpenVinoEngine.load(folder, OPTIONS).shape.eos_token_ids == (2, 3)
    tensors = load_file(weights(folder))
    names = sorted(tensors)
    shards = {"a.safetensors": names[:5], "b.safetensors": names[5:]}
    for shard, part in shards.items():
        save_file({name: tensors[name] for name in part}, folder / shard)
    weights(folder).unlink()
    where = {name: shard for shard, part in shards.items() for name in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    OpenVinoEngine.load(folder, OPTIONS).close()
    (folder / "b.safetensors").unlink()
    expect(folder, r"b\.safetensors does not exist")
    (folder / "model.safetensors.index.json").write_text("{}")
    expect(folder, r"index\.json is not a safetensors index")


def test_a_missing_tensor_is_named(folder: Path) -> None:
    tensors = load_file(weights(folder))
    del tensors["model.layers.0.mlp.up_proj.weight"]
    save_file(tensors, weights(folder))
    expect(folder, r"tensor 'model\.layers\.0\.mlp\.up_proj\.weight' is not in .* check config\.json")


def test_a_tensor_of_another_shape_is_named(folder: Path) -> None:
    tensors = load_file(weights(folder))
    tensors["model.layers.0.self_attn.k_proj.weight"] = np.zeros((64, 64), np.float32)
    save_file(tensors, weights(folder))
    expect(folder, r"k_proj\.weight' .* has shape \[64, 64\], the config asks for \[32, 64\]")


def test_a_quantised_checkpoint_is_refused(folder: Path) -> None:
    tensors = load_file(weights(folder))
    tensors["lm_head.weight"] = np.zeros((64, 64), np.int8)  # type: ignore[assignment]
    save_file(tensors, weights(folder))
    expect(folder, r"'lm_head\.weight' .* stored as I8; F32, F16 and BF16 can be loaded")


@pytest.mark.parametrize("num_bytes", [0, 4, 100, 2000, -1])
def test_a_file_cut_short_is_said_to_be(folder: Path, num_bytes: int) -> None:
    weights(folder).write_bytes(weights(folder).read_bytes()[:num_bytes])
    expect(folder, r"model\.safetensors.*(cut short|not safetensors)")


def test_a_file_that_is_not_safetensors_is_said_to_be(folder: Path) -> None:
    weights(folder).write_bytes(struct.pack("<Q", 8) + b"notjson!" + b"\0" * 100)
    expect(folder, r"no readable safetensors header")
    weights(folder).unlink()
    expect(folder, r"model\.safetensors does not exist")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"architectures": ["MambaForCausalLM"]},
            r"'MambaForCausalLM' is not supported; supported are LlamaForCausalLM",
        ),
        ({"hidden_size": "absent"}, r"key 'hidden_size' is missing"),
        ({"num_hidden_layers": "many"}, r"key 'num_hidden_layers' is 'many', not a positive whole number"),
        ({"num_key_value_heads": 3}, r"num_key_value_heads 3 does not divide 2 heads"),
        ({"hidden_act": "relu"}, r"hidden_act 'relu' is not supported; supported are silu"),
        ({"rope_scaling": {"type": "longrope"}}, r"RoPE scaling 'longrope' is not supported"),
        ({"partial_rotary_factor": 0.5}, r"partial_rotary_factor 0\.5"),
    ],
)
def test_a_config_that_cannot_be_built_names_the_key(folder: Path, change: dict[str, Any], message: str) -> None:
    write_config(folder, **change)
    expect(folder, message)


def test_a_folder_without_a_readable_config_is_refused(folder: Path) -> None:
    (folder / "config.json").write_text("{")
    expect(folder, r"config\.json cannot be read as JSON")
    (folder / "config.json").unlink()
    expect(folder, r"config\.json does not exist")
    expect(folder / "nowhere", r"nowhere is not a folder")


def test_a_broken_ir_is_named(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    exported = tmp_path_factory.mktemp("ir")
    source = load_decoder(folder, "f32")
    openvino.save_model(source.model, exported / "openvino_model.xml", compress_to_fp16=False)
    OpenVinoEngine.load(exported, OPTIONS).close()
    whole = (exported / "openvino_model.bin").read_bytes()
    (exported / "openvino_model.bin").write_bytes(whole[: len(whole) // 2])
    expect(exported, r"openvino_model\.xml or its \.bin cannot be read")
    (exported / "openvino_model.bin").unlink()
    expect(exported, r"openvino_model\.xml or its \.bin cannot be read")
    (exported / "openvino_model.xml").write_text("<net")
    expect(exported, r"openvino_model\.xml or its \.bin cannot be read")


def test_an_ir_without_state_is_refused(tmp_path: Path) -> None:
    row = openvino.opset15.parameter([-1, 4], openvino.Type.f32)
    product = openvino.opset15.matmul(row, openvino.opset15.constant(np.eye(4, dtype=np.float32)), False, True)
    result = openvino.opset15.result(product)
    result.output(0).get_tensor().set_names({"logits"})
    openvino.save_model(openvino.Model([result], [row]), tmp_path / "openvino_model.xml")
    expect(tmp_path, "the model keeps no KV state")


def test_a_budget_below_two_blocks_and_scratch_says_what_is_needed(folder: Path) -> None:
    block_bytes = OpenVinoEngine.load(folder, OPTIONS).shape.block_bytes
    small = msgspec.structs.replace(OPTIONS, kv_bytes=4 * block_bytes - 1)
    expect(folder, rf"holds 3 blocks of {block_bytes} bytes .* give at least {4 * block_bytes}", small)
    enough = OpenVinoEngine.load(folder, msgspec.structs.replace(OPTIONS, kv_bytes=4 * block_bytes))
    assert enough.shape.num_blocks == 2
    assert enough.shape.context_tokens == 64


def test_a_kv_type_that_the_precision_cannot_read_is_refused(folder: Path) -> None:
    expect(folder, "kv bf16 needs precision bf16, not f32", msgspec.structs.replace(OPTIONS, kv="bf16"))


class BrokenRequest:
    """A runtime request that cannot compute."""

    def infer(self, inputs: dict[str, Any], share_inputs: bool) -> None:
        raise RuntimeError(f"out of memory with {len(inputs)} inputs")


def test_a_step_that_the_runtime_cannot_compute_is_an_engine_failure(folder: Path) -> None:
    engine = OpenVinoEngine.load(folder, OPTIONS)
    engine.add(SequenceSpec(1, (5,), SamplingParams(temperature=0)))
    plan = StepPlan(7, (SequenceStep(1, (5,), 0, (0,), True),))
    good, engine._request = engine._request, BrokenRequest()
    with pytest.raises(EngineFailed, match="step 7 of 1 sequences and 1 tokens failed: out of memory"):
        engine.step(plan)
    engine._request = good
    assert engine.step(plan).samples


def test_a_block_table_that_is_too_short_is_our_own_bug(folder: Path) -> None:
    engine = OpenVinoEngine.load(folder, OPTIONS)
    with pytest.raises(InvariantError, match="sequence 1 reaches token 40 with 1 blocks of 32"):
        engine.step(StepPlan(0, (SequenceStep(1, (5,) * 40, 0, (0,), False),)))
