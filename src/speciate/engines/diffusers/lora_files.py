"""Reads LoRA files in the forms that people publish (diffusers, PEFT, kohya), for one pipeline. Checks every shape."""

import json
from pathlib import Path
from typing import Any

from diffusers.utils import convert_state_dict_to_peft, convert_unet_state_dict_to_peft
from msgspec import Struct
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from speciate.core.errors import LoadFailed
from speciate.engines.diffusers.lora import LoraWeights

_DEFAULT_FILE = "pytorch_lora_weights.safetensors"


class ParsedLora(Struct, frozen=True):
    """Weights by part of the pipeline (`unet`, `transformer`, `text_encoder`), then by layer."""

    parts: dict[str, dict[str, LoraWeights]]

    @property
    def num_bytes(self) -> int:
        return sum(w.num_bytes for layers in self.parts.values() for w in layers.values())


def parse_lora(path: Path, pipeline: Any, parts: dict[str, dict[str, nn.Module]]) -> ParsedLora:
    """`parts` are the layers that an adapter of this pipeline may change. Raises LoadFailed that names the file."""
    file = _find_file(path)
    tensors, metadata = _read(file)
    try:
        named, alphas = _converted(tensors, pipeline)
    except (ValueError, KeyError, IndexError, AttributeError) as error:
        raise LoadFailed(f"{file} is no LoRA adapter that can be read: {error}. Export it again.") from error
    found = {part: _layer_weights(file, part, named, alphas, metadata, layers) for part, layers in parts.items()}
    if not any(found.values()):
        raise LoadFailed(f"{file} holds no LoRA weights for {', '.join(parts)}; it is for another kind of model.")
    return ParsedLora(found)


def _find_file(path: Path) -> Path:
    if path.is_file():
        return path
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else []
    if (path / _DEFAULT_FILE) in files:
        return path / _DEFAULT_FILE
    if len(files) != 1:
        raise LoadFailed(f"{path} holds {len(files)} .safetensors files; name the one that is the adapter.")
    return files[0]


def _read(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors, and what PEFT wrote about them."""
    try:
        tensors = load_file(file)
        with safe_open(file, framework="pt") as opened:
            written = (opened.metadata() or {}).get("lora_adapter_metadata", "{}")
        return tensors, json.loads(written)
    except (OSError, SafetensorError, ValueError) as error:
        raise LoadFailed(f"{file} cannot be read as safetensors: {error}. Download or export it again.") from error


def _converted(tensors: dict[str, Tensor], pipeline: Any) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Names as diffusers has them, and alphas where the file holds them as tensors."""
    if any("lokr_" in name or "lora_magnitude" in name or "dora_scale" in name for name in tensors):
        raise ValueError("it is not plain LoRA (DoRA and LoKr are not served)")
    given = type(pipeline).lora_state_dict(dict(tensors))
    named, alphas = given if isinstance(given, tuple) else (given, None)
    return named, alphas or {}


def _layer_weights(
    file: Path,
    part: str,
    named: dict[str, Tensor],
    alphas: dict[str, float],
    metadata: dict[str, Any],
    layers: dict[str, nn.Module],
) -> dict[str, LoraWeights]:
    own = {name.removeprefix(f"{part}."): tensor for name, tensor in named.items() if name.startswith(f"{part}.")}
    own_alphas = {name.removeprefix(f"{part}."): value for name, value in alphas.items()}
    if own and not any("lora_A" in name for name in own):
        convert: Any = (
            convert_state_dict_to_peft if part.startswith("text_encoder") else convert_unet_state_dict_to_peft
        )
        own, own_alphas = convert(own), convert(own_alphas)
    weights: dict[str, LoraWeights] = {}
    for name in own:
        if name.endswith(".lora_A.weight"):
            layer = name.removesuffix(".lora_A.weight")
            alpha = _alpha(part, layer, own_alphas, metadata)
            weights[layer] = _checked(file, layer, own, alpha, layers)
    return weights


def _alpha(part: str, layer: str, alphas: dict[str, float], metadata: dict[str, Any]) -> float | None:
    """The file's own, else PEFT's for the layer or for all; None: as the rank."""
    for key in (f"{layer}.alpha", f"{layer}.lora_A.weight.alpha"):
        if key in alphas:
            return float(alphas[key])
    pattern = metadata.get(f"{part}.alpha_pattern") or {}
    value = pattern.get(layer, metadata.get(f"{part}.lora_alpha"))
    return None if value is None else float(value)


def _checked(
    file: Path, layer: str, own: dict[str, Tensor], alpha: float | None, layers: dict[str, nn.Module]
) -> LoraWeights:
    module, down, up = layers.get(layer), own[f"{layer}.lora_A.weight"], own.get(f"{layer}.lora_B.weight")
    if up is None:
        raise LoadFailed(f"{file}: {layer} has a lora_A and no lora_B; the file is not whole.")
    weight = getattr(module, "weight", None)
    if weight is None:
        raise LoadFailed(f"{file}: this model has no layer {layer}; the adapter is for another base.")
    wanted = (weight.shape[1], weight.shape[0])
    if (down.shape[1], up.shape[0]) != wanted or down.shape[0] != up.shape[1] or down.dim() != weight.dim():
        raise LoadFailed(
            f"{file}: {layer} takes {wanted[0]} inputs to {wanted[1]} outputs here, the adapter's has "
            f"{down.shape[1]} to {up.shape[0]}; it is for another base."
        )
    rank = down.shape[0]
    return LoraWeights(down, up, (rank if alpha is None else alpha) / rank)
