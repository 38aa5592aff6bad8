"""Turns stored tensors into the constants of a graph, in the chosen number of bits."""

import numpy as np
from openvino import Node, Tensor, Type
from openvino import opset15 as ops
from openvino.op import Constant

from speciate.engines.openvino.checkpoint import Array, Checkpoint, StoredTensor
from speciate.engines.openvino.options import Weights
from speciate.engines.openvino.quantise import (
    QuantisedMatrix,
    group_width,
    pack_nibbles,
    quantise_int4,
    quantise_int8,
)

STORED_TYPES = {"F32": Type.f32, "F16": Type.f16, "BF16": Type.bf16}
FLOAT_TYPES = {"f32": Type.f32, "f16": Type.f16, "bf16": Type.bf16}


class WeightSource:
    """Reads a checkpoint and makes float32-typed nodes whose constants lie in `weights` bits.

    The runtime folds Constant, Convert, Subtract and Multiply into one compressed matmul, so no float32 matrix exists.
    """

    def __init__(self, checkpoint: Checkpoint, weights: Weights) -> None:
        self.checkpoint = checkpoint
        self.weights = weights

    def vector(self, name: str, size: int) -> Node:
        """Biases and norm weights: always float32, they are small."""
        return ops.constant(self.checkpoint.read(name, (size,)).f32())

    def matrix(self, name: str, num_outputs: int, num_inputs: int) -> Node:
        """[num_outputs, num_inputs] in the chosen bits."""
        tensor = self.checkpoint.read(name, (num_outputs, num_inputs))
        if self.weights == "int4" and (group := group_width(num_inputs)):
            return dequantise(quantise_int4(tensor, group), name)
        return self._at_least_int8(tensor)

    def table(self, name: str, num_rows: int, width: int) -> Node:
        """The embedding or the output head: 8 bits even where the rest has 4."""
        return self._at_least_int8(self.checkpoint.read(name, (num_rows, width)))

    def _at_least_int8(self, tensor: StoredTensor) -> Node:
        if self.weights in ("int8", "int4"):
            return dequantise(quantise_int8(tensor), tensor.name)
        return float_node(tensor, FLOAT_TYPES[self.weights])


def dequantise(matrix: QuantisedMatrix, name: str) -> Node:
    """(values - zero points) * scales, as the plugin's weight decompression expects it."""
    if matrix.bits == 8:
        values = constant(matrix.values, Type.u8, matrix.values.shape)
        zeros = constant(matrix.zero_points, Type.u8, matrix.zero_points.shape)
    else:
        num_outputs, num_groups, _ = matrix.scales.shape
        values = constant(matrix.values, Type.u4, (num_outputs, num_groups, matrix.group))
        packed = np.ascontiguousarray(matrix.zero_points).reshape(-1)
        zeros = constant(_nibbles(packed), Type.u4, matrix.zero_points.shape)
    values.set_friendly_name(name)
    shifted = ops.subtract(ops.convert(values, Type.f32), ops.convert(zeros, Type.f32))
    scaled = ops.multiply(shifted, ops.constant(matrix.scales))
    if matrix.bits == 8:
        return scaled
    return ops.reshape(scaled, ops.constant([num_outputs, num_groups * matrix.group], Type.i64), False)


def float_node(tensor: StoredTensor, to: Type) -> Node:
    """The tensor as `to`, seen as float32. What is stored as `to` is mapped and not copied: whoever compiles the model
    keeps the checkpoint for as long as the compiled model lives."""
    shape = tensor.data.shape
    if STORED_TYPES.get(tensor.dtype) == to and tensor.data.flags.aligned:
        node = Constant(Tensor(tensor.data, list(shape), to), shared_memory=True)
    elif STORED_TYPES.get(tensor.dtype) == to:
        node = constant(tensor.data.copy(), to, shape)
    elif to == Type.bf16:
        node = constant(_to_bf16(tensor.f32()), to, shape)
    else:
        node = constant(tensor.f32().astype(to.to_dtype()), to, shape)
    node.set_friendly_name(tensor.name)
    return node if to == Type.f32 else ops.convert(node, Type.f32)


def constant(data: Array, element: Type, shape: tuple[int, ...]) -> Constant:
    """A constant with a copy of `data`, which the runtime frees once it has its own layout of it."""
    return Constant(Tensor(np.ascontiguousarray(data), list(shape), element), shared_memory=False)


def _to_bf16(values: Array) -> Array:
    """The upper half of each float32, rounded to nearest even."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def _nibbles(values: Array) -> Array:
    return pack_nibbles(np.append(values, np.zeros(len(values) % 2, np.uint8)))
