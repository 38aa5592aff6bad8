"""An item's state as bytes and back: latents, sampler, generator. Plain values and tensors only; nothing is pickled."""

from hashlib import sha256
from typing import Any

import msgspec
import numpy as np
import torch
from msgspec import Struct
from torch import Tensor

from speciate.core.denoise import DenoiseSpec
from speciate.core.errors import InvalidRequest

_TENSOR, _TUPLE = "tensor", "tuple"
_DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in (
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8, torch.bool,
)}  # fmt: skip


class Checkpoint(Struct, frozen=True):
    """What `save` gives, decoded."""

    model: str
    spec_digest: str
    passes_done: int
    tensors: dict[str, Any]
    """Latents, and what a picture to start from became."""
    sampler: dict[str, Any]
    """Attributes of the sampler that its passes changed."""
    generator: bytes


def write_checkpoint(checkpoint: Checkpoint) -> bytes:
    return msgspec.msgpack.encode(checkpoint)


def read_checkpoint(data: bytes, model: str, spec: DenoiseSpec) -> Checkpoint:
    """Raises InvalidRequest where it is none, or another model's or request's."""
    try:
        checkpoint = msgspec.msgpack.decode(data, type=Checkpoint)
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"The checkpoint ({len(data)} bytes) cannot be read: {error}. Start again.") from error
    if (checkpoint.model, checkpoint.spec_digest) != (model, digest_of(spec)):
        raise InvalidRequest(
            f"The checkpoint is of another request or of model {checkpoint.model!r}, not of {model!r}. Start again."
        )
    return checkpoint


def digest_of(spec: DenoiseSpec) -> str:
    """Of all but the item's number, which another process counts anew."""
    return sha256(msgspec.msgpack.encode(msgspec.structs.replace(spec, item_id=0))).hexdigest()


def changed_attributes(sampler: Any, fresh: Any) -> dict[str, Any]:
    """What passes left in a sampler, beside what a fresh one with the same timesteps holds."""
    before = vars(fresh)
    return {
        name: pack(value)
        for name, value in vars(sampler).items()
        if name not in ("_internal_dict",) and not _equal(value, before.get(name))
    }


def restore_attributes(sampler: Any, attributes: dict[str, Any], device: torch.device) -> None:
    for name, value in attributes.items():
        setattr(sampler, name, unpack(value, device))


def pack(value: Any) -> Any:
    """Tensors as [tag, type, shape, bytes]; lists and tuples of them; plain values as they are."""
    if isinstance(value, Tensor):
        raw = value.detach().cpu().contiguous()
        return [_TENSOR, str(raw.dtype).removeprefix("torch."), list(raw.shape), _bytes(raw)]
    if isinstance(value, np.ndarray):
        return pack(torch.from_numpy(value))
    if isinstance(value, list | tuple):
        return [_TUPLE if isinstance(value, tuple) else "list", [pack(item) for item in value]]
    if hasattr(value, "item") and not isinstance(value, str | bytes):  # a NumPy number
        return value.item()
    return value


def unpack(value: Any, device: torch.device) -> Any:
    if not isinstance(value, list):
        return value
    if value[0] == _TENSOR:
        _, name, shape, raw = value
        flat = torch.frombuffer(bytearray(raw), dtype=torch.uint8) if raw else torch.empty(0, dtype=torch.uint8)
        return flat.view(_DTYPES[name]).reshape(shape).to(device)
    items = [unpack(item, device) for item in value[1]]
    return tuple(items) if value[0] == _TUPLE else items


def _bytes(tensor: Tensor) -> bytes:
    return tensor.reshape(-1).view(torch.uint8).numpy().tobytes()


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        is_pair = isinstance(one, Tensor) and isinstance(other, Tensor) and one.shape == other.shape
        return is_pair and bool(torch.equal(one, other))
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return bool(np.array_equal(one, other))
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(_equal(a, b) for a, b in zip(one, other, strict=True))
    return type(one) is type(other) and bool(one == other)
