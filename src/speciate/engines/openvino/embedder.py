"""Turns token rows into unit vectors on OpenVINO: pooled decoders of the Llama family, and encoders of the BERT family.

Pooling is one weight a token (mean: 1/n each; last and cls: one at one place), so one graph serves them all.

Shapes: B rows, L tokens, C channels.
"""

# Shape suffixes follow STYLE; ruff knows them as mixed-case names.
# ruff: noqa: N803, N806

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from msgspec import Struct
from openvino import CompiledModel, Model, Type
from openvino import opset15 as ops

from speciate.core.errors import EngineFailed, InvalidRequest, LoadFailed
from speciate.engines.openvino.checkpoint import Array, Checkpoint
from speciate.engines.openvino.compile import choose_precision, compile_model, runtime_settings
from speciate.engines.openvino.config import read_decoder_config, read_json
from speciate.engines.openvino.decoder import build_pooled_decoder
from speciate.engines.openvino.encoder import build_encoder, encoder_prefix, read_encoder_config
from speciate.engines.openvino.layers import integers
from speciate.engines.openvino.options import EmbedOptions, KvType
from speciate.engines.openvino.weights import WeightSource

Places = Callable[[Array, int], Array]
"""From token counts [B] and L to the weights [B, L] of the mean that makes a row's vector."""
MOST_PADDED_TOKENS = 8192
"""Rows of like length run together up to this many tokens, padding included."""
WIDTH_GRAINS = ((64, 8), (256, 16))
"""Up to so many tokens, widths are multiples of so many; above of WIDEST_GRAIN. A kernel is made for every pair of rows
and width (docs/decisions/0016), so both come in few sizes: 32 widths up to 1,024 tokens, and powers of two in rows."""
WIDEST_GRAIN = 64


class PooledModel(Struct, frozen=True):
    """A model with the output `hidden`, and how its tokens become one vector."""

    model: Model
    dimensions: int
    context_tokens: int
    default_pooling: str
    is_stateful: bool
    kept: tuple[object, ...]


class OpenVinoEmbedder:
    """Implements `EmbedEngine`. Made by `load`."""

    def __init__(self, name: str, source: PooledModel, places: Places, context: int, compiled: CompiledModel) -> None:
        self._name = name
        self._dimensions = source.dimensions
        self._context_tokens = context
        self._places = places
        self._is_stateful = source.is_stateful
        self._request = compiled.create_infer_request()
        self._kept = (compiled, source.kept)

    @classmethod
    def load(cls, folder: Path, options: EmbedOptions) -> "OpenVinoEmbedder":
        """Read, build and compile. Raises LoadFailed, saying what to change."""
        source = _read_model(folder, options)
        pooling = _read_pooling(folder) or source.default_pooling if options.pooling == "auto" else options.pooling
        _add_pooling(source.model)
        kv: KvType = "bf16" if choose_precision(options.precision) == "bf16" else "f32"
        compiled = compile_model(source.model, runtime_settings(options.precision, options.threads, None, kv))
        limits = [source.context_tokens, options.max_context_tokens]
        context = min(limit for limit in limits if limit is not None)
        return cls(options.model_name or folder.name, source, POOLINGS[pooling], context, compiled)

    @property
    def model(self) -> str:
        return self._name

    @property
    def dimensions(self) -> int:
        return self._dimensions

    @property
    def context_tokens(self) -> int:
        return self._context_tokens

    def embed(self, inputs: tuple[tuple[int, ...], ...]) -> tuple[bytes, ...]:
        for place, row in enumerate(inputs):
            if not 0 < len(row) <= self._context_tokens:
                raise InvalidRequest(
                    f"input {place} has {len(row)} tokens; this model takes 1 to {self._context_tokens}", param="input"
                )
        vectors: list[bytes] = [b""] * len(inputs)
        for group in even_groups([len(row) for row in inputs]):
            vectors_GC = self._run([inputs[place] for place in group])
            for place, vector_C in zip(group, vectors_GC, strict=True):
                vectors[place] = vector_C.astype("<f4").tobytes()
        return tuple(vectors)

    def close(self) -> None:
        """Free the model; calls after it fail."""
        del self._request, self._kept

    def _run(self, rows: Sequence[tuple[int, ...]]) -> Array:
        """Unit vectors [B, C]. The width is padded to one of few."""
        counts_B = np.array([len(row) for row in rows])
        width = min(padded_width(int(counts_B.max())), self._context_tokens)
        ids_BL = np.zeros((len(rows), width), np.int64)
        for place, row in enumerate(rows):
            ids_BL[place, : len(row)] = row
        positions_L = np.arange(width)
        inputs = {
            "input_ids": ids_BL,
            "attention_mask": (positions_L < counts_B[:, None]).astype(np.int64),
            "pool_weights": self._places(counts_B, width).astype(np.float32),
        }
        if self._is_stateful:
            inputs["position_ids"] = np.broadcast_to(positions_L, ids_BL.shape).astype(np.int64)
            inputs["beam_idx"] = np.arange(len(rows), dtype=np.int32)
        try:
            if self._is_stateful:
                self._request.reset_state()
            self._request.infer(inputs, share_inputs=True)
        except RuntimeError as error:
            raise EngineFailed(f"embedding {len(rows)} rows of up to {width} tokens failed: {error}") from error
        pooled_BC: Array = self._request.get_tensor("pooled").data
        unit_BC: Array = pooled_BC / np.maximum(np.linalg.norm(pooled_BC, axis=1, keepdims=True), 1e-12)
        return unit_BC


def padded_width(num_tokens: int) -> int:
    """The width that rows of so many tokens run in."""
    grain = next((grain for most, grain in WIDTH_GRAINS if num_tokens <= most), WIDEST_GRAIN)
    return -(-num_tokens // grain) * grain


def even_groups(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Groups of like length, cut into powers of two: no row is padding, and rows come in few counts."""
    for group in group_by_length(lengths):
        while group:
            size = 1 << (len(group).bit_length() - 1)
            yield group[:size]
            group = group[size:]


def group_by_length(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Places of rows to run together, shortest first: padding at most a quarter of a group, and a bounded size."""
    group: list[int] = []
    num_tokens = 0
    for place in sorted(range(len(lengths)), key=lengths.__getitem__):
        padded = lengths[place] * (len(group) + 1)
        if group and (padded > MOST_PADDED_TOKENS or padded * 3 > (num_tokens + lengths[place]) * 4):
            yield group
            group, num_tokens = [], 0
        group.append(place)
        num_tokens += lengths[place]
    if group:
        yield group


def _mean(counts_B: Array, width: int) -> Array:
    weights: Array = (np.arange(width) < counts_B[:, None]) / counts_B[:, None]
    return weights


def _last(counts_B: Array, width: int) -> Array:
    weights: Array = np.arange(width) == counts_B[:, None] - 1
    return weights


def _first(counts_B: Array, width: int) -> Array:
    return np.broadcast_to(np.arange(width) == 0, (len(counts_B), width))


POOLINGS: dict[str, Places] = {"mean": _mean, "last": _last, "cls": _first}


def _read_model(folder: Path, options: EmbedOptions) -> PooledModel:
    encoder = read_encoder_config(folder)
    checkpoint = Checkpoint.open(folder)
    weights = WeightSource(checkpoint, options.weights)
    if encoder is not None:
        model = build_encoder(encoder, weights, encoder_prefix(checkpoint))
        return PooledModel(model, encoder.hidden_size, encoder.context_tokens, "mean", False, (checkpoint,))
    config = read_decoder_config(folder)
    prefix = "" if "embed_tokens.weight" in checkpoint else "model."
    # The plain mask knows no sliding window, so rows stay inside the narrowest one.
    context = min([config.context_tokens, *(window for window in config.windows if window)])
    model = build_pooled_decoder(config, weights, prefix)
    return PooledModel(model, config.hidden_size, context, "last", True, (checkpoint,))


def _read_pooling(folder: Path) -> str | None:
    """What a sentence-transformers folder says; None when it is not one. Raises LoadFailed for other layers."""
    if (folder / "modules.json").is_file():
        _check_modules(folder)
    path = folder / "1_Pooling" / "config.json"
    if not path.is_file():
        return None
    values = read_json(path)
    names = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls", "pooling_mode_lasttoken": "last"}
    chosen = [name for key, name in names.items() if values.get(key)]
    if len(chosen) != 1:
        raise LoadFailed(f"{path} asks for a pooling that is not exactly one of mean, cls and last: set `pooling`")
    return chosen[0]


def _check_modules(folder: Path) -> None:
    try:
        modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
        kinds = [str(module["type"]).rsplit(".", 1)[-1] for module in modules]
    except (ValueError, KeyError, TypeError) as error:
        raise LoadFailed(f"{folder / 'modules.json'} is malformed ({error}): download it again") from error
    for kind in kinds:
        if kind not in ("Transformer", "Pooling", "Normalize"):
            raise LoadFailed(f"{folder / 'modules.json'} has a {kind} layer, which is not supported")


def _add_pooling(model: Model) -> None:
    """Replace the output `hidden` [B, L, C] by `pooled` [B, C], the mean of its tokens by the input `pool_weights`."""
    weights_BL = ops.parameter([-1, -1], Type.f32)
    weights_BL.set_friendly_name("pool_weights")
    weights_BL.output(0).get_tensor().set_names({"pool_weights"})
    result = model.get_results()[0]
    pooled_B1C = ops.matmul(ops.unsqueeze(weights_BL, integers(1)), result.input_value(0), False, False)
    pooled = ops.result(ops.squeeze(pooled_B1C, integers(1)))
    pooled.output(0).get_tensor().set_names({"pooled"})
    model.remove_result(result)
    model.add_results([pooled])
    model.add_parameters([weights_BL])
    model.validate_nodes_and_infer_types()
