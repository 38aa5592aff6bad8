"""Rounds weight matrices to 8 and 4 bits, a few rows at a time so that no float32 copy of a matrix exists.

The layouts are those of NNCF's weight compression (https://github.com/openvinotoolkit/nncf), which the CPU plugin
computes with directly: a quantised constant, a zero point and a scale an output channel or group.
"""

# Shape suffixes follow STYLE; ruff knows them as mixed-case names.
# ruff: noqa: N806

import numpy as np
from msgspec import Struct

from speciate.engines.openvino.checkpoint import Array, StoredTensor

ROWS_AT_ONCE = 1 << 22
"""Values converted to float32 at a time: 16 MB."""
GROUPS = (128, 64, 32)


class QuantisedMatrix(Struct, frozen=True):
    """w = (values - zero_points) * scales. Legend: O outputs, I inputs, G groups, K group width."""

    bits: int
    values: Array
    """8 bit: uint8 [O, I]. 4 bit: two values a byte, lower half first, [O * I / 2]."""
    scales: Array
    """float32 [O, 1], or [O, G, 1]."""
    zero_points: Array
    """uint8 [O, 1], or [O, G, 1] in the range of the values."""
    group: int = 0
    """0: one scale an output channel."""


def quantise_int8(tensor: StoredTensor) -> QuantisedMatrix:
    """One scale an output channel, asymmetric, 0 exactly representable."""
    num_rows, width = tensor.data.shape
    values_OI = np.empty((num_rows, width), np.uint8)
    scales_O1 = np.empty((num_rows, 1), np.float32)
    zeros_O1 = np.empty((num_rows, 1), np.uint8)
    step = max(1, ROWS_AT_ONCE // width)
    for first in range(0, num_rows, step):
        rows = slice(first, min(first + step, num_rows))
        values_OI[rows], scales_O1[rows], zeros_O1[rows] = _round(tensor.rows_f32(rows.start, rows.stop), 255)
    return QuantisedMatrix(8, values_OI, scales_O1, zeros_O1)


def quantise_int4(tensor: StoredTensor, group: int) -> QuantisedMatrix:
    """One scale and zero point a group of `group` inputs, which must divide the width."""
    num_rows, width = tensor.data.shape
    num_groups = width // group
    packed = np.empty((num_rows, width // 2), np.uint8)
    scales_OG1 = np.empty((num_rows, num_groups, 1), np.float32)
    zeros_OG1 = np.empty((num_rows, num_groups, 1), np.uint8)
    step = max(1, ROWS_AT_ONCE // width)
    for first in range(0, num_rows, step):
        rows = slice(first, min(first + step, num_rows))
        x_RGK = tensor.rows_f32(rows.start, rows.stop).reshape(-1, num_groups, group)
        values, scales_OG1[rows], zeros_OG1[rows] = _round(x_RGK, 15)
        packed[rows] = pack_nibbles(values).reshape(-1, width // 2)
    return QuantisedMatrix(4, packed.reshape(-1), scales_OG1, zeros_OG1, group)


def group_width(width: int) -> int | None:
    """The widest 4-bit group that divides a row; None where none does, and the matrix stays at 8 bit."""
    return next((group for group in GROUPS if width % group == 0), None)


def pack_nibbles(values: Array) -> Array:
    """Two 4-bit values a byte, the first in the lower half."""
    pairs = values.reshape(-1, 2)
    packed: Array = pairs[:, 0] | (pairs[:, 1] << 4)
    return packed


def _round(x: Array, top: int) -> tuple[Array, Array, Array]:
    """Values 0..top, scales and zero points along the last axis."""
    low = np.minimum(x.min(-1, keepdims=True), 0.0)
    high = np.maximum(x.max(-1, keepdims=True), 0.0)
    scale = np.maximum((high - low) / top, np.finfo(np.float32).tiny).astype(np.float32)
    zero = np.clip(np.rint(-low / scale), 0, top)
    values = np.clip(np.rint(x / scale + zero), 0, top)
    return values.astype(np.uint8), scale, zero.astype(np.uint8)
