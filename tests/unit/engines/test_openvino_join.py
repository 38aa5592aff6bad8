"""Joined projections compute what three matmuls computed, with and without biases, norms and adapters."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest
import torch
import transformers
from safetensors.numpy import save_file

from speciate.engines.openvino import AdapterFolder
from speciate.engines.openvino.adapters import attach_adapters
from speciate.engines.openvino.join import join_projections
from speciate.engines.openvino.source import load_decoder

NUM_LAYERS = 2
SIZES: dict[str, Any] = {
    "vocab_size": 128,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": NUM_LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
}
KINDS: dict[str, dict[str, Any]] = {"Llama": {"head_dim": 32}, "Qwen2": {}, "Qwen3": {"head_dim": 32}}


def save_model(folder: Path, kind: str) -> Path:
    torch.manual_seed(5)
    config = getattr(transformers, f"{kind}Config")(**SIZES, **KINDS[kind])
    model = getattr(transformers, f"{kind}ForCausalLM")(config)
    for name, weight in model.named_parameters():
        if weight.ndim == 1:
            torch.nn.init.normal_(weight, 1.0 if "norm" in name else 0.0, 0.2)
    model.save_pretrained(folder)
    return folder


def save_adapter(folder: Path) -> Path:
    """Changes the query of each layer, and not its key and value."""
    rng = np.random.default_rng(1)
    folder.mkdir()
    tensors = {}
    for layer in range(NUM_LAYERS):
        stem = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        tensors[f"{stem}.lora_A.weight"] = rng.normal(0, 0.3, (4, 64)).astype(np.float32)
        tensors[f"{stem}.lora_B.weight"] = rng.normal(0, 0.3, (128, 4)).astype(np.float32)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 8}))
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def logits(model: openvino.Model, adapter: int | None = None) -> Any:
    settings = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0, "KV_CACHE_PRECISION": "f32"}
    tokens = np.arange(3, 19)[None, :]
    inputs: dict[str, Any] = {
        "input_ids": tokens,
        "attention_mask": np.ones_like(tokens),
        "position_ids": np.arange(tokens.size)[None, :],
        "beam_idx": np.zeros(1, np.int32),
    }
    if adapter is not None:
        inputs["adapter_ids"] = np.full(1, adapter, np.int32)
    return openvino.Core().compile_model(model, "CPU", settings)(inputs)["logits"]


@pytest.mark.parametrize("kind", KINDS)
def test_joined_equals_apart(kind: str, tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", kind)
    apart, joined = load_decoder(folder, "int8"), load_decoder(folder, "int8")
    assert join_projections(joined.model) == NUM_LAYERS
    np.testing.assert_allclose(logits(joined.model), logits(apart.model), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("adapter", [0, 1])
def test_an_adapter_beside_a_joined_projection_still_counts(adapter: int, tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", "Llama")
    adapters = (AdapterFolder("style", save_adapter(tmp_path / "adapter")),)
    apart, joined = load_decoder(folder, "int8"), load_decoder(folder, "int8")
    for source in (apart, joined):
        attach_adapters(source.model, adapters)
    assert join_projections(joined.model) == NUM_LAYERS
    np.testing.assert_allclose(logits(joined.model, adapter), logits(apart.model, adapter), rtol=1e-4, atol=1e-4)


def test_other_weights_stay_apart(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", "Llama")
    for weights in ("f32", "bf16", "int4"):
        assert join_projections(load_decoder(folder, weights).model) == 0  # type: ignore[arg-type]


def test_what_is_joined_survives_an_export(tmp_path: Path) -> None:
    """An IR written from the model apart is joined when it is read."""
    source = load_decoder(save_model(tmp_path / "model", "Qwen2"), "int8")
    openvino.save_model(source.model, tmp_path / "openvino_model.xml", compress_to_fp16=False)
    assert join_projections(load_decoder(tmp_path, "int8").model) == NUM_LAYERS
