"""Writes trained weights as a Hugging Face folder that transformers loads as LlamaForCausalLM."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from recipes.pocket_text.model import TextConfig

PAD_ID, START_ID, END_ID = 0, 1, 2


def write_model(config: TextConfig, weights: dict[str, Tensor], folder: Path) -> None:
    """Writes config.json, generation_config.json and model.safetensors in bfloat16."""
    folder.mkdir(parents=True, exist_ok=True)
    named = {f"model.{name}": tensor.to(torch.bfloat16).contiguous() for name, tensor in weights.items()}
    save_file(named, folder / "model.safetensors", metadata={"format": "pt"})
    _write_json(folder / "config.json", _llama_config(config))
    _write_json(folder / "generation_config.json", {"do_sample": False, "eos_token_id": END_ID, "pad_token_id": PAD_ID})


def _llama_config(config: TextConfig) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.inner_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": config.max_positions,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": END_ID,
        "pad_token_id": PAD_ID,
        "torch_dtype": "bfloat16",
    }


def _write_json(path: Path, value: dict[str, object]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")
