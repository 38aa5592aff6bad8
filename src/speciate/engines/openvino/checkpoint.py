"""Reads tensors from a folder of safetensors files, mapped and not copied. Knows no model.

The format is a little-endian u64 header length, a JSON header and raw row-major data
(https://github.com/huggingface/safetensors). It is read here rather than by the safetensors package because numpy has
no bfloat16: bf16 arrives as uint16 and goes to the runtime as it is.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import Struct

from speciate.core.errors import LoadFailed

DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "U8": "u1", "I8": "i1"}
FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
Array = np.ndarray[Any, np.dtype[Any]]


class StoredTensor(Struct, frozen=True):
    """A tensor as it lies in the file; `data` is uint16 where `dtype` is BF16."""

    name: str
    dtype: str
    data: Array

    def rows_f32(self, first: int, last: int) -> Array:
        """Rows first..last as float32."""
        return as_f32(self.data[first:last], self.dtype)

    def f32(self) -> Array:
        return as_f32(self.data, self.dtype)


class Checkpoint:
    """The tensors of one folder, over all its shards."""

    def __init__(self, folder: Path, tensors: dict[str, StoredTensor]) -> None:
        self.folder = folder
        self.tensors = tensors

    @classmethod
    def open(cls, folder: Path, single: str = "model.safetensors") -> "Checkpoint":
        """Map every shard. Raises LoadFailed when a file is absent, cut short or not safetensors."""
        tensors: dict[str, StoredTensor] = {}
        for path in _shards(folder, single):
            tensors.update(_read_shard(path))
        return cls(folder, tensors)

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def read(self, name: str, shape: Sequence[int]) -> StoredTensor:
        """The tensor, checked against the shape that the config asks for. Raises LoadFailed."""
        found = self.tensors.get(name)
        if found is None:
            raise LoadFailed(
                f"tensor {name!r} is not in {self.folder}: the config asks for it. The checkpoint is incomplete or "
                "belongs to another architecture; download it again or check config.json"
            )
        if found.data.shape != tuple(shape):
            raise LoadFailed(
                f"tensor {name!r} in {self.folder} has shape {list(found.data.shape)}, the config asks for "
                f"{list(shape)}: check config.json against the weights"
            )
        if found.dtype not in FLOATS:
            raise LoadFailed(
                f"tensor {name!r} in {self.folder} is stored as {found.dtype}; F32, F16 and BF16 can be loaded. "
                "Quantised checkpoints (GPTQ, AWQ, FP8) must be exported to OpenVINO IR first"
            )
        return found


def as_f32(data: Array, dtype: str) -> Array:
    """Float32 values of raw data; a bf16 is the upper half of a float32."""
    if dtype == "BF16":
        return (data.astype(np.uint32) << 16).view(np.float32)
    return np.ascontiguousarray(data, np.float32)


def _shards(folder: Path, single: str) -> list[Path]:
    index = folder / f"{single}.index.json"
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        except (ValueError, KeyError, AttributeError) as error:
            raise LoadFailed(f"{index} is not a safetensors index: {error}; download it again") from error
        return [folder / name for name in names]
    return [folder / single]


def _read_shard(path: Path) -> dict[str, StoredTensor]:
    if not path.is_file():
        raise LoadFailed(f"{path} does not exist: the folder needs its safetensors weights")
    raw = np.memmap(path, np.uint8, "r") if path.stat().st_size else np.empty(0, np.uint8)
    header, data = _split(path, raw)
    return {name: _map_tensor(path, name, entry, data) for name, entry in header.items() if name != "__metadata__"}


def _split(path: Path, raw: Array) -> tuple[dict[str, Any], Array]:
    length = int(raw[:8].view("<u8")[0]) if raw.size >= 8 else 0
    if not 0 < length <= raw.size - 8:
        raise LoadFailed(f"{path} has {raw.size} bytes and is cut short or not safetensors: download it again")
    try:
        header = json.loads(raw[8 : 8 + length].tobytes())
    except ValueError as error:
        raise LoadFailed(f"{path} has no readable safetensors header ({error}): download it again") from error
    return header, raw[8 + length :]


def _map_tensor(path: Path, name: str, entry: dict[str, Any], data: Array) -> StoredTensor:
    try:
        dtype, shape, (first, last) = str(entry["dtype"]), tuple(entry["shape"]), entry["data_offsets"]
    except (KeyError, TypeError, ValueError) as error:
        raise LoadFailed(f"{path}: the header entry of {name!r} is malformed ({error}): download it again") from error
    if dtype not in DTYPES:
        return StoredTensor(name, dtype, np.empty(shape, np.uint8))
    if last > data.size:
        raise LoadFailed(
            f"{path}: tensor {name!r} ends at byte {last} of the data, the file holds {data.size}: "
            "it is cut short, download it again"
        )
    if last - first != int(np.prod(shape, dtype=np.int64)) * np.dtype(DTYPES[dtype]).itemsize:
        raise LoadFailed(f"{path}: tensor {name!r} has {last - first} bytes, not {dtype} of shape {list(shape)}")
    return StoredTensor(name, dtype, data[first:last].view(DTYPES[dtype]).reshape(shape))
