"""From a diffusers folder to a loaded pipeline and the family that takes it apart."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from speciate.core.errors import LoadFailed
from speciate.engines.diffusers.dit import flux_family, pixart_family, sd3_family
from speciate.engines.diffusers.family import LoadedFamily
from speciate.engines.diffusers.options import DiffusersOptions
from speciate.engines.diffusers.unet import unet_family

FAMILIES: dict[str, Callable[[Any], LoadedFamily]] = {
    "StableDiffusionPipeline": unet_family,
    "StableDiffusionXLPipeline": unet_family,
    "LatentConsistencyModelPipeline": unet_family,
    "PixArtSigmaPipeline": pixart_family,
    "StableDiffusion3Pipeline": sd3_family,
    "FluxPipeline": flux_family,
}
"""By the class that model_index.json names."""

_DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


def load_family(folder: Path, options: DiffusersOptions) -> LoadedFamily:
    """Raises LoadFailed that names the folder and what is wrong with it."""
    class_name = pipeline_class(folder)
    if class_name not in FAMILIES:
        raise LoadFailed(f"{folder} is a {class_name}; served kinds are {', '.join(FAMILIES)}.")
    _hush()
    try:
        pipeline = DiffusionPipeline.from_pretrained(
            folder, dtype=_dtype(options), use_safetensors=True, local_files_only=True, **_without(folder)
        )
        pipeline.to(options.device)
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        raise LoadFailed(f"{folder} cannot be loaded: {error}") from error
    return FAMILIES[class_name](pipeline)


def pipeline_class(folder: Path) -> str:
    """As model_index.json names it. Raises LoadFailed where there is none."""
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        return str(index["_class_name"])
    except FileNotFoundError as error:
        raise LoadFailed(f"{folder} has no model_index.json; give a diffusers folder.") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LoadFailed(f"{folder}/model_index.json cannot be read: {error}") from error


def _without(folder: Path) -> dict[str, Any]:
    """Parts that are not run here: what may be drawn is decided above the engine."""
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    left_out = ("safety_checker", "feature_extractor", "image_encoder")
    return {name: None for name in left_out if name in index}


def _dtype(options: DiffusersOptions) -> torch.dtype:
    if options.precision == "auto":
        return torch.float32 if options.device == "cpu" else torch.bfloat16
    return _DTYPES[options.precision]


def _hush() -> None:
    """The libraries' progress bars and advice are for notebooks."""
    libraries: tuple[Any, ...] = (diffusers_logging, transformers_logging)
    for logging in libraries:
        logging.set_verbosity_error()
        logging.disable_progress_bar()
