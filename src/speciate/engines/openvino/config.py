"""What a config.json of the Llama family says, checked once and told in our words. Knows no tensors."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from speciate.core.errors import LoadFailed
from speciate.engines.openvino.rope import SUPPORTED, RopeConfig

DECODERS = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "mistral",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    "LlamaModel": "llama",
    "MistralModel": "mistral",
    "Qwen2Model": "qwen2",
    "Qwen3Model": "qwen3",
}
ACTIVATIONS = ("silu", "gelu", "gelu_pytorch_tanh")
Json = Mapping[str, Any]


class DecoderConfig(Struct, frozen=True):
    """A decoder of the Llama family."""

    kind: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    context_tokens: int
    rms_eps: float
    activation: str
    rope: RopeConfig
    windows: tuple[int, ...]
    """Sliding window a layer, the token itself included; 0 sees everything."""
    qkv_bias: bool
    output_bias: bool
    mlp_bias: bool
    is_tied: bool
    """The output head is the embedding."""
    eos_token_ids: tuple[int, ...]

    @property
    def has_qk_norm(self) -> bool:
        return self.kind == "qwen3"


def read_json(path: Path) -> dict[str, Any]:
    """Raises LoadFailed when the file is absent or not an object."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise LoadFailed(f"{path} does not exist: a model folder needs it") from error
    except (OSError, ValueError) as error:
        raise LoadFailed(f"{path} cannot be read as JSON ({error}): download it again") from error
    if not isinstance(found, dict):
        raise LoadFailed(f"{path} holds a {type(found).__name__}, not an object: download it again")
    return found


def read_decoder_config(folder: Path) -> DecoderConfig:
    """The config of a decoder. Raises LoadFailed for what cannot be built, naming the key or the architecture."""
    raw = Keys(folder / "config.json", read_json(folder / "config.json"))
    kind = DECODERS.get(raw.architecture())
    if kind is None:
        raise LoadFailed(
            f"{raw.path}: architecture {raw.architecture()!r} is not supported; supported are "
            f"{', '.join(name for name in DECODERS if name.endswith('CausalLM'))}, and any decoder as an exported "
            "OpenVINO IR"
        )
    num_heads = raw.count("num_attention_heads")
    num_kv_heads = raw.count("num_key_value_heads", num_heads)
    if num_heads % num_kv_heads:
        raise LoadFailed(f"{raw.path}: num_key_value_heads {num_kv_heads} does not divide {num_heads} heads")
    rope = _rope(raw)
    return DecoderConfig(
        kind=kind,
        vocab_size=raw.count("vocab_size"),
        hidden_size=raw.count("hidden_size"),
        intermediate_size=raw.count("intermediate_size"),
        num_layers=raw.count("num_hidden_layers"),
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=raw.count("head_dim", raw.count("hidden_size") // num_heads),
        context_tokens=_context(raw, rope),
        rms_eps=float(raw.values.get("rms_norm_eps", 1e-6)),
        activation=raw.one_of("hidden_act", ACTIVATIONS, "silu"),
        rope=rope,
        windows=_windows(raw, kind),
        qkv_bias=bool(raw.values.get("attention_bias", kind == "qwen2")),
        output_bias=kind != "qwen2" and bool(raw.values.get("attention_bias", False)),
        mlp_bias=bool(raw.values.get("mlp_bias", False)),
        is_tied=bool(raw.values.get("tie_word_embeddings", False)),
        eos_token_ids=read_eos(folder),
    )


def read_eos(folder: Path) -> tuple[int, ...]:
    """The end tokens of generation_config.json, else of config.json."""
    for name in ("generation_config.json", "config.json"):
        if (folder / name).is_file():
            eos = read_json(folder / name).get("eos_token_id")
            if eos is not None:
                return tuple(eos) if isinstance(eos, list) else (int(eos),)
    return ()


class Keys:
    """A config.json's values, with errors that name the file and the key."""

    def __init__(self, path: Path, values: Json) -> None:
        self.path = path
        self.values = values

    def architecture(self) -> str:
        names = self.values.get("architectures") or [f"model_type {self.values.get('model_type')}"]
        return str(names[0])

    def count(self, key: str, default: int | None = None) -> int:
        """A positive whole number; an absent or null key takes the default."""
        value = self.values.get(key)
        value = default if value is None else value
        if value is None:
            raise LoadFailed(f"{self.path}: key {key!r} is missing, the model cannot be built without it")
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise LoadFailed(f"{self.path}: key {key!r} is {value!r}, not a positive whole number")
        return value

    def one_of(self, key: str, allowed: tuple[str, ...], default: str) -> str:
        value = self.values.get(key) or default
        if value not in allowed:
            raise LoadFailed(f"{self.path}: {key} {value!r} is not supported; supported are {', '.join(allowed)}")
        return str(value)


def _rope(raw: Keys) -> RopeConfig:
    """`rope_parameters` since transformers 5; `rope_theta` and `rope_scaling` before."""
    values = raw.values
    scaling = values.get("rope_parameters") or values.get("rope_scaling") or {}
    kind = scaling.get("rope_type") or scaling.get("type") or "default"
    if kind not in SUPPORTED:
        raise LoadFailed(f"{raw.path}: RoPE scaling {kind!r} is not supported; supported are {', '.join(SUPPORTED)}")
    partial = scaling.get("partial_rotary_factor") or values.get("partial_rotary_factor") or 1.0
    if partial != 1.0:
        raise LoadFailed(f"{raw.path}: partial_rotary_factor {partial} is not supported, only 1.0")
    original = scaling.get("original_max_position_embeddings") or raw.count("max_position_embeddings", 2048)
    factor = scaling.get("factor")
    return RopeConfig(
        kind=kind,
        theta=float(scaling.get("rope_theta") or values.get("rope_theta") or 10000.0),
        factor=float(factor if factor is not None else raw.count("max_position_embeddings", 2048) / original),
        original_tokens=int(original),
        low_freq_factor=float(scaling.get("low_freq_factor") or 1.0),
        high_freq_factor=float(scaling.get("high_freq_factor") or 4.0),
        beta_fast=float(scaling.get("beta_fast") or 32.0),
        beta_slow=float(scaling.get("beta_slow") or 1.0),
        mscale=float(scaling.get("mscale") or 0.0),
        mscale_all_dim=float(scaling.get("mscale_all_dim") or 0.0),
        attention_factor=scaling.get("attention_factor"),
        truncate=bool(scaling.get("truncate", True)),
    )


def _context(raw: Keys, rope: RopeConfig) -> int:
    context = raw.count("max_position_embeddings", 2048)
    return min(context, rope.original_tokens) if rope.kind == "dynamic" else context


def _windows(raw: Keys, kind: str) -> tuple[int, ...]:
    """Mistral: all layers; Qwen: where `layer_types` says so, or from `max_window_layers` on."""
    num_layers = raw.count("num_hidden_layers")
    window = int(raw.values.get("sliding_window") or 0)
    is_on = kind == "mistral" or bool(raw.values.get("use_sliding_window", False))
    if kind == "llama" or not window or not is_on:
        return (0,) * num_layers
    types = raw.values.get("layer_types")
    if types is None:
        first = 0 if kind == "mistral" else int(raw.values.get("max_window_layers", num_layers))
        types = ["sliding_attention" if layer >= first else "full_attention" for layer in range(num_layers)]
    return tuple(window if name == "sliding_attention" else 0 for name in types)
