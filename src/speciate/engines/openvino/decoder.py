"""Builds a stateful OpenVINO decoder from a checkpoint of the Llama family.

The model has the inputs and the state that optimum-intel exports (input_ids, attention_mask, position_ids, beam_idx,
one key and one value variable a layer), so what is built and what is loaded from an IR go the same way from here on.

Shapes: B batch, L tokens, C channels, H heads, K key-value heads, D head width, P past and present tokens.
"""

# Shape suffixes follow STYLE; ruff knows them as mixed-case names.
# ruff: noqa: N803, N806, N815

import numpy as np
from msgspec import Struct
from openvino import Model, Node, Type
from openvino import opset15 as ops

from speciate.engines.openvino.config import DecoderConfig
from speciate.engines.openvino.layers import (
    activate,
    heads_first,
    integers,
    linear,
    merge_heads,
    repeat_heads,
    rms_norm,
    rotate,
    scalar,
    split_heads,
)
from speciate.engines.openvino.rope import inverse_frequencies
from speciate.engines.openvino.weights import WeightSource


class _Shared(Struct, frozen=True):
    """Nodes that every layer reads."""

    beam_B: Node
    mask_B1LP: Node
    cos_B1LD: Node
    sin_B1LD: Node
    batch: Node


class _Inputs(Struct, frozen=True):
    input_ids_BL: Node
    attention_mask_BP: Node
    position_ids_BL: Node
    beam_B: Node


def build_decoder(config: DecoderConfig, weights: WeightSource, prefix: str = "model.") -> Model:
    """A model with the output `logits` [B, L, vocabulary]. Raises LoadFailed, naming the tensor."""
    inputs = _make_inputs()
    table = weights.table(f"{prefix}embed_tokens.weight", config.vocab_size, config.hidden_size)
    hidden_BLC, sinks = _build_body(config, weights, prefix, inputs, table)
    head = table if config.is_tied else weights.table("lm_head.weight", config.vocab_size, config.hidden_size)
    logits = linear(hidden_BLC, head, None, "lm_head")
    return _finish(config, inputs, logits, "logits", sinks)


def build_pooled_decoder(config: DecoderConfig, weights: WeightSource, prefix: str) -> Model:
    """The same without a head: the output `hidden` [B, L, C]."""
    inputs = _make_inputs()
    table = weights.table(f"{prefix}embed_tokens.weight", config.vocab_size, config.hidden_size)
    hidden_BLC, sinks = _build_body(config, weights, prefix, inputs, table)
    return _finish(config, inputs, hidden_BLC, "hidden", sinks)


def _make_inputs() -> _Inputs:
    def parameter(name: str, rank: int, element: Type) -> Node:
        node = ops.parameter([-1] * rank, element)
        node.set_friendly_name(name)  # the transformation goes by it
        node.output(0).get_tensor().set_names({name})
        return node

    return _Inputs(
        parameter("input_ids", 2, Type.i64),
        parameter("attention_mask", 2, Type.i64),
        parameter("position_ids", 2, Type.i64),
        parameter("beam_idx", 1, Type.i32),
    )


def _finish(config: DecoderConfig, inputs: _Inputs, out: Node, name: str, sinks: list[Node]) -> Model:
    result = ops.result(out)
    result.output(0).get_tensor().set_names({name})
    parameters = [inputs.input_ids_BL, inputs.attention_mask_BP, inputs.position_ids_BL, inputs.beam_B]
    return Model([result], sinks, parameters, config.kind)


def _build_body(
    config: DecoderConfig, weights: WeightSource, prefix: str, inputs: _Inputs, table: Node
) -> tuple[Node, list[Node]]:
    hidden_BLC = ops.gather(table, ops.convert(inputs.input_ids_BL, Type.i32), ops.constant(0, Type.i32))
    shared = _share(config, inputs)
    sinks: list[Node] = []
    for layer in range(config.num_layers):
        hidden_BLC = _build_layer(config, weights, f"{prefix}layers.{layer}", layer, hidden_BLC, shared, sinks)
    return rms_norm(hidden_BLC, weights.vector(f"{prefix}norm.weight", config.hidden_size), config.rms_eps), sinks


def _share(config: DecoderConfig, inputs: _Inputs) -> _Shared:
    cos, sin = _angles(config, inputs.position_ids_BL)
    batch = ops.gather(ops.shape_of(inputs.input_ids_BL), integers(0), ops.constant(0, Type.i64))
    return _Shared(inputs.beam_B, _causal_mask(inputs), cos, sin, batch)


def _angles(config: DecoderConfig, position_ids_BL: Node) -> tuple[Node, Node]:
    """Cosines and sines [B, 1, L, D]."""
    frequencies, factor = inverse_frequencies(config.rope, config.head_dim)
    position_BL1 = ops.unsqueeze(ops.convert(position_ids_BL, Type.f32), integers(-1))
    half_BLD = ops.multiply(position_BL1, ops.constant(frequencies[None, None, :]))
    angle_B1LD = ops.unsqueeze(ops.concat([half_BLD, half_BLD], -1), integers(1))
    cos, sin = ops.cos(angle_B1LD), ops.sin(angle_B1LD)
    if factor == 1.0:
        return cos, sin
    return ops.multiply(cos, scalar(factor)), ops.multiply(sin, scalar(factor))


def _causal_mask(inputs: _Inputs) -> Node:
    """[B, 1, L, P]: 0 where a token may look, else a large negative. Paged attention replaces all of this."""
    zero, one = ops.constant(0, Type.i64), ops.constant(1, Type.i64)
    num_all = ops.squeeze(ops.gather(ops.shape_of(inputs.attention_mask_BP), integers(1), zero), integers(0))
    num_new = ops.squeeze(ops.gather(ops.shape_of(inputs.input_ids_BL), integers(1), zero), integers(0))
    key_P = ops.range(zero, num_all, one, "i64")
    query_L1 = ops.unsqueeze(ops.range(ops.subtract(num_all, num_new), num_all, one, "i64"), integers(1))
    is_past_LP = ops.less_equal(ops.unsqueeze(key_P, integers(0)), query_L1)
    is_token_BP = ops.convert(inputs.attention_mask_BP, Type.boolean)
    is_seen = ops.logical_and(
        ops.unsqueeze(is_past_LP, integers(0, 1)), ops.unsqueeze(ops.unsqueeze(is_token_BP, integers(1)), integers(1))
    )
    return ops.select(is_seen, scalar(0.0), scalar(float(np.finfo(np.float16).min)))


def _build_layer(
    config: DecoderConfig,
    weights: WeightSource,
    name: str,
    layer: int,
    hidden_BLC: Node,
    shared: _Shared,
    sinks: list[Node],
) -> Node:
    normed = rms_norm(hidden_BLC, weights.vector(f"{name}.input_layernorm.weight", config.hidden_size), config.rms_eps)
    attended = _build_attention(config, weights, f"{name}.self_attn", layer, normed, shared, sinks)
    hidden_BLC = ops.add(hidden_BLC, attended)
    normed = rms_norm(
        hidden_BLC, weights.vector(f"{name}.post_attention_layernorm.weight", config.hidden_size), config.rms_eps
    )
    return ops.add(hidden_BLC, _build_mlp(config, weights, f"{name}.mlp", normed))


def _build_attention(
    config: DecoderConfig,
    weights: WeightSource,
    name: str,
    layer: int,
    x_BLC: Node,
    shared: _Shared,
    sinks: list[Node],
) -> Node:
    def project(part: str, num_heads: int) -> Node:
        width = num_heads * config.head_dim
        out = _project(weights, f"{name}.{part}_proj", x_BLC, width, config.hidden_size, config.qkv_bias)
        heads = split_heads(out, num_heads, config.head_dim)
        if config.has_qk_norm and part != "v":
            heads = rms_norm(heads, weights.vector(f"{name}.{part}_norm.weight", config.head_dim), config.rms_eps)
        return heads_first(heads)

    query = rotate(project("q", config.num_heads), shared.cos_B1LD, shared.sin_B1LD, config.head_dim)
    key = rotate(project("k", config.num_kv_heads), shared.cos_B1LD, shared.sin_B1LD, config.head_dim)
    keys = _remember(config, f"past_key_values.{layer}.key", key, shared, sinks)
    values = _remember(config, f"past_key_values.{layer}.value", project("v", config.num_kv_heads), shared, sinks)
    mixed = ops.scaled_dot_product_attention(query, keys, values, shared.mask_B1LP, scalar(config.head_dim**-0.5))
    merged = merge_heads(mixed, config.num_heads * config.head_dim)
    return _project(
        weights, f"{name}.o_proj", merged, config.hidden_size, config.num_heads * config.head_dim, config.output_bias
    )


def _remember(config: DecoderConfig, variable: str, new_BKLD: Node, shared: _Shared, sinks: list[Node]) -> Node:
    """Past and new keys or values over all query heads. The variable starts empty, with an explicit initial value:
    without one the paged attention transformation does not recognise the pattern."""
    shape = ops.concat([shared.batch, integers(config.num_kv_heads, 0, config.head_dim)], 0)
    state = ops.read_value(
        ops.broadcast(scalar(0.0), shape), variable, Type.f32, [-1, config.num_kv_heads, -1, config.head_dim]
    )
    past = ops.gather(state, shared.beam_B, ops.constant(0, Type.i32))
    present = ops.concat([past, new_BKLD], 2)
    sinks.append(ops.assign(present, variable))
    return repeat_heads(present, config.num_heads // config.num_kv_heads, config.num_heads, config.head_dim)


def _build_mlp(config: DecoderConfig, weights: WeightSource, name: str, x_BLC: Node) -> Node:
    inner, outer = config.intermediate_size, config.hidden_size
    gate = activate(_project(weights, f"{name}.gate_proj", x_BLC, inner, outer, config.mlp_bias), config.activation)
    up = _project(weights, f"{name}.up_proj", x_BLC, inner, outer, config.mlp_bias)
    return _project(weights, f"{name}.down_proj", ops.multiply(gate, up), outer, inner, config.mlp_bias)


def _project(weights: WeightSource, name: str, x: Node, num_outputs: int, num_inputs: int, has_bias: bool) -> Node:
    bias = weights.vector(f"{name}.bias", num_outputs) if has_bias else None
    return linear(x, weights.matrix(f"{name}.weight", num_outputs, num_inputs), bias, name)
