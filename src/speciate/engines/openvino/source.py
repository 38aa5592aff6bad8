"""Finds what kind of model a folder holds and makes a stateful OpenVINO model of it."""

from pathlib import Path

import openvino
from msgspec import Struct
from openvino import Model

from speciate.core.errors import LoadFailed
from speciate.engines.openvino.checkpoint import Checkpoint
from speciate.engines.openvino.config import read_decoder_config, read_eos, read_json
from speciate.engines.openvino.decoder import build_decoder
from speciate.engines.openvino.options import Weights
from speciate.engines.openvino.paging import head_of
from speciate.engines.openvino.weights import WeightSource

IR_NAME = "openvino_model.xml"


class StatefulDecoder(Struct, frozen=True):
    """A model ready to be paged, and what its folder says of it."""

    model: Model
    context_tokens: int
    vocab_size: int
    eos_token_ids: tuple[int, ...]
    windows: tuple[int, ...] = ()
    kept: tuple[object, ...] = ()
    """Mapped files that the compiled model reads from: they must outlive it."""


def load_decoder(folder: Path, weights: Weights) -> StatefulDecoder:
    """A Hugging Face folder or an exported IR. Raises LoadFailed."""
    if (folder / IR_NAME).is_file():
        return _read_ir(folder)
    if not folder.is_dir():
        raise LoadFailed(f"{folder} is not a folder: give one with config.json and weights, or an OpenVINO IR")
    config = read_decoder_config(folder)
    checkpoint = Checkpoint.open(folder)
    model = build_decoder(config, WeightSource(checkpoint, weights))
    return StatefulDecoder(
        model, config.context_tokens, config.vocab_size, config.eos_token_ids, config.windows, (checkpoint,)
    )


def _read_ir(folder: Path) -> StatefulDecoder:
    path = folder / IR_NAME
    try:
        model = openvino.Core().read_model(path)
    except RuntimeError as error:
        raise LoadFailed(f"{path} or its .bin cannot be read: export the model again ({error})") from error
    values = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    vocabulary = head_of(model).get_output_partial_shape(0)[-1]
    if vocabulary.is_dynamic:
        raise LoadFailed(f"{path}: the width of the output `logits` is not fixed, so there is no vocabulary size")
    context = values.get("max_position_embeddings") or 4096
    eos = read_eos(folder) or _eos_of_ir(model)
    return StatefulDecoder(model, int(context), vocabulary.get_length(), eos)


def _eos_of_ir(model: Model) -> tuple[int, ...]:
    if model.has_rt_info("eos_token_id"):
        return (int(model.get_rt_info("eos_token_id").astype(int)),)
    return ()
