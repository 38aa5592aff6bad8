"""Joins a layer's query, key and value projections into one matmul, where their weights are 8 bits a channel.

A decode reads small matrices in tens of microseconds, and starting a parallel region costs as much again: one matmul of
1,152 rows instead of three takes 2 to 4 % off a step (docs/decisions/0012). Done on the stateful model, after adapters
have found the matmuls beside which they stand, and before paging. Knows no checkpoint.

Shapes: O outputs, I inputs.
"""

# Shape suffixes follow STYLE; ruff knows them as mixed-case names.
# ruff: noqa: N806, N815

from collections.abc import Iterator

import numpy as np
from msgspec import Struct
from openvino import Model, Node, Output, Type
from openvino import opset15 as ops

from speciate.engines.openvino.checkpoint import Array
from speciate.engines.openvino.layers import integers

PARTS = ("q_proj", "k_proj", "v_proj")


class Projection(Struct, frozen=True):
    """One 8-bit matmul with its bias: y = (values - zeros) * scales x + bias."""

    tail: Node
    """Whose output the layer reads: the matmul, or the addition of its bias."""
    source: Output
    """What it reads."""
    values_OI: Array
    zeros_O1: Array
    scales_O1: Array
    bias_O: Array


def join_projections(model: Model) -> int:
    """Change `model` in place; gives the number of layers joined. A layer that does not fit is left as it is."""
    num_joined = 0
    for name, matmuls in _attention_matmuls(model):
        parts = [_read(matmul) for matmul in matmuls]
        found = [part for part in parts if part is not None]
        if len(found) == len(PARTS) and len({_place(part.source) for part in found}) == 1:
            _join(name, found)
            num_joined += 1
    model.validate_nodes_and_infer_types()
    return num_joined


def _attention_matmuls(model: Model) -> Iterator[tuple[str, list[Node]]]:
    """(module, its three matmuls) a layer; exporters write `__module.<module>.q_proj/aten::linear/MatMul`."""
    by_name = {
        node.get_friendly_name().split("/")[0]: node
        for node in model.get_ordered_ops()
        if node.get_type_name() == "MatMul"
    }
    for name in by_name:
        stem, dot, part = name.rpartition(".")
        if part == PARTS[0] and all(stem + dot + other in by_name for other in PARTS):
            yield stem, [by_name[stem + dot + other] for other in PARTS]


def _read(matmul: Node) -> Projection | None:
    """None where the weights are not (u8 - u8) * scale a channel, or several nodes read the product."""
    weights = _read_weights(matmul.input_value(1).get_node())
    readers = list(matmul.output(0).get_target_inputs())
    if weights is None or len(readers) != 1:
        return None
    values_OI, zeros_O1, scales_O1 = weights
    reader = readers[0].get_node()
    bias_O = _constant(reader.input_value(1 - readers[0].get_index())) if reader.get_type_name() == "Add" else None
    if bias_O is None or bias_O.size != len(values_OI):
        tail, bias_O = matmul, np.zeros(len(values_OI), np.float32)
    else:
        tail, bias_O = reader, bias_O.reshape(-1).astype(np.float32)
    return Projection(tail, matmul.input_value(0), values_OI, zeros_O1, scales_O1, bias_O)


def _read_weights(node: Node) -> tuple[Array, Array, Array] | None:
    if node.get_type_name() != "Multiply" or node.input_value(0).get_node().get_type_name() != "Subtract":
        return None
    shifted = node.input_value(0).get_node()
    values, zeros = (_constant(shifted.input_value(side)) for side in (0, 1))
    scales = _constant(node.input_value(1))
    if values is None or zeros is None or scales is None or values.dtype != np.uint8 or values.ndim != 2:
        return None
    is_by_channel = zeros.shape == scales.shape == (len(values), 1)
    return (values, zeros, scales) if is_by_channel else None


def _constant(output: Output) -> Array | None:
    """The values behind an output, through one conversion; None if they are not constant."""
    node = output.get_node()
    if node.get_type_name() == "Convert":
        node = node.input_value(0).get_node()
    if node.get_type_name() != "Constant" or node.get_element_type().is_dynamic():
        return None
    data: Array = node.data
    return data


def _place(output: Output) -> tuple[str, int]:
    return output.get_node().get_name(), output.get_index()


def _join(name: str, parts: list[Projection]) -> None:
    values = ops.constant(np.concatenate([part.values_OI for part in parts]))
    zeros = ops.constant(np.concatenate([part.zeros_O1 for part in parts]).astype(np.uint8))
    scales = ops.constant(np.concatenate([part.scales_O1 for part in parts]).astype(np.float32))
    shifted = ops.subtract(ops.convert(values, Type.f32), ops.convert(zeros, Type.f32))
    product = ops.matmul(parts[0].source, ops.multiply(shifted, scales), False, True)
    product.set_friendly_name(f"{name}.qkv_proj")
    bias_O = np.concatenate([part.bias_O for part in parts])
    joined = ops.add(product, ops.constant(bias_O)) if bias_O.any() else product
    widths = integers(*(len(part.values_OI) for part in parts))
    split = ops.variadic_split(joined, ops.constant(-1, Type.i64), widths)
    for place, part in enumerate(parts):
        for reader in list(part.tail.output(0).get_target_inputs()):
            reader.replace_source_output(split.output(place))
