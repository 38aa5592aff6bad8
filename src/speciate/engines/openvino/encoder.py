"""Builds a bidirectional encoder (BERT, RoBERTa, XLM-RoBERTa) from a checkpoint, with its pooling in the graph.

Shapes: B rows, L tokens, C channels, H heads, D head width.
"""

# Shape suffixes follow STYLE; ruff knows them as mixed-case names.
# ruff: noqa: N803, N806

from pathlib import Path

import numpy as np
from msgspec import Struct
from openvino import Model, Node, Type
from openvino import opset15 as ops

from speciate.core.errors import LoadFailed
from speciate.engines.openvino.checkpoint import Checkpoint
from speciate.engines.openvino.config import Keys, read_json
from speciate.engines.openvino.layers import (
    activate,
    heads_first,
    integers,
    layer_norm,
    linear,
    merge_heads,
    scalar,
    split_heads,
)
from speciate.engines.openvino.weights import WeightSource

ENCODERS = {
    "BertModel": "bert",
    "BertForMaskedLM": "bert",
    "RobertaModel": "roberta",
    "RobertaForMaskedLM": "roberta",
    "XLMRobertaModel": "roberta",
    "XLMRobertaForMaskedLM": "roberta",
}
ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh")


class EncoderConfig(Struct, frozen=True):
    """What a config.json says of an encoder."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_positions: int
    first_position: int
    """RoBERTa counts positions from its padding token's id plus one."""
    num_types: int
    norm_eps: float
    activation: str

    @property
    def context_tokens(self) -> int:
        return self.num_positions - self.first_position


def read_encoder_config(folder: Path) -> EncoderConfig | None:
    """None when the folder's architecture is not an encoder. Raises LoadFailed for what cannot be built."""
    raw = Keys(folder / "config.json", read_json(folder / "config.json"))
    kind = ENCODERS.get(raw.architecture())
    if kind is None:
        return None
    if raw.values.get("position_embedding_type", "absolute") != "absolute":
        raise LoadFailed(f"{raw.path}: position_embedding_type must be absolute")
    return EncoderConfig(
        vocab_size=raw.count("vocab_size"),
        hidden_size=raw.count("hidden_size"),
        intermediate_size=raw.count("intermediate_size"),
        num_layers=raw.count("num_hidden_layers"),
        num_heads=raw.count("num_attention_heads"),
        num_positions=raw.count("max_position_embeddings"),
        first_position=int(raw.values.get("pad_token_id", 1)) + 1 if kind == "roberta" else 0,
        num_types=raw.count("type_vocab_size", 1),
        norm_eps=float(raw.values.get("layer_norm_eps", 1e-12)),
        activation=raw.one_of("hidden_act", ACTIVATIONS, "gelu").replace("gelu_new", "gelu_pytorch_tanh"),
    )


def encoder_prefix(checkpoint: Checkpoint) -> str:
    """`bert.` or `roberta.` before every name where the checkpoint comes from a model with a head."""
    for prefix in ("", "bert.", "roberta."):
        if f"{prefix}embeddings.word_embeddings.weight" in checkpoint:
            return prefix
    return ""


def build_encoder(config: EncoderConfig, weights: WeightSource, prefix: str) -> Model:
    """Inputs input_ids and attention_mask [B, L]; output `hidden` [B, L, C]. Raises LoadFailed, naming the tensor."""
    ids_BL, mask_BL = _input("input_ids"), _input("attention_mask")
    hidden_BLC = _embed(config, weights, prefix, ids_BL)
    mask_B11L = ops.unsqueeze(ops.convert(mask_BL, Type.f32), integers(1, 2))
    bias_B11L = ops.multiply(ops.subtract(scalar(1.0), mask_B11L), scalar(float(np.finfo(np.float16).min)))
    for layer in range(config.num_layers):
        hidden_BLC = _build_layer(config, weights, f"{prefix}encoder.layer.{layer}", hidden_BLC, bias_B11L)
    result = ops.result(hidden_BLC)
    result.output(0).get_tensor().set_names({"hidden"})
    return Model([result], [ids_BL, mask_BL], "encoder")


def _input(name: str) -> Node:
    node = ops.parameter([-1, -1], Type.i64)
    node.set_friendly_name(name)
    node.output(0).get_tensor().set_names({name})
    return node


def _embed(config: EncoderConfig, weights: WeightSource, prefix: str, ids_BL: Node) -> Node:
    zero = ops.constant(0, Type.i64)
    name = f"{prefix}embeddings"
    words = weights.table(f"{name}.word_embeddings.weight", config.vocab_size, config.hidden_size)
    places = weights.checkpoint.read(
        f"{name}.position_embeddings.weight", (config.num_positions, config.hidden_size)
    ).f32()
    types = weights.checkpoint.read(
        f"{name}.token_type_embeddings.weight", (config.num_types, config.hidden_size)
    ).f32()
    num_tokens = ops.squeeze(ops.gather(ops.shape_of(ids_BL), integers(1), zero), integers(0))
    place_L = ops.range(zero, num_tokens, ops.constant(1, Type.i64), "i64")
    table = ops.constant(places[config.first_position :] + types[0])  # all tokens are of type 0
    hidden_BLC = ops.add(ops.gather(words, ops.convert(ids_BL, Type.i32), zero), ops.gather(table, place_L, zero))
    return _norm(config, weights, f"{name}.LayerNorm", hidden_BLC)


def _build_layer(config: EncoderConfig, weights: WeightSource, name: str, x_BLC: Node, bias_B11L: Node) -> Node:
    attended = _attend(config, weights, f"{name}.attention", x_BLC, bias_B11L)
    x_BLC = _norm(config, weights, f"{name}.attention.output.LayerNorm", ops.add(x_BLC, attended))
    outer, inner = config.hidden_size, config.intermediate_size
    wide = activate(_dense(weights, f"{name}.intermediate.dense", x_BLC, inner, outer), config.activation)
    back = _dense(weights, f"{name}.output.dense", wide, outer, inner)
    return _norm(config, weights, f"{name}.output.LayerNorm", ops.add(x_BLC, back))


def _attend(config: EncoderConfig, weights: WeightSource, name: str, x_BLC: Node, bias_B11L: Node) -> Node:
    width = config.hidden_size
    head_dim = width // config.num_heads

    def project(part: str) -> Node:
        out = _dense(weights, f"{name}.self.{part}", x_BLC, width, width)
        return heads_first(split_heads(out, config.num_heads, head_dim))

    mixed = ops.scaled_dot_product_attention(
        project("query"), project("key"), project("value"), bias_B11L, scalar(head_dim**-0.5)
    )
    return _dense(weights, f"{name}.output.dense", merge_heads(mixed, width), width, width)


def _dense(weights: WeightSource, name: str, x: Node, num_outputs: int, num_inputs: int) -> Node:
    bias = weights.vector(f"{name}.bias", num_outputs)
    return linear(x, weights.matrix(f"{name}.weight", num_outputs, num_inputs), bias, name)


def _norm(config: EncoderConfig, weights: WeightSource, name: str, x: Node) -> Node:
    return layer_norm(
        x,
        weights.vector(f"{name}.weight", config.hidden_size),
        weights.vector(f"{name}.bias", config.hidden_size),
        config.norm_eps,
    )
