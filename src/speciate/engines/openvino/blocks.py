"""The KV memory of a compiled model: one tensor a layer for keys and one for values, cut into blocks.

Who owns which block is the scheduler's business.
"""

import math
from collections.abc import Iterator

from msgspec import Struct
from openvino import CompiledModel, InferRequest, Tensor, Type

from speciate.core.errors import LoadFailed

BLOCK_TOKENS = 32
"""Fixed by the CPU plugin's paged attention."""
SCRATCH_BLOCKS = 2
"""Where the padding of steps is written; part of the budget, and nobody's (see batch.SIZES)."""
KV_TYPES = {"u8": Type.u8, "f16": Type.f16, "bf16": Type.bf16, "f32": Type.f32}


class CachePort(Struct, frozen=True):
    """A cache input of the model: `key_cache.0`, float or quantised, [blocks, heads, ...]."""

    name: str
    element: Type
    block_shape: tuple[int, ...]

    @property
    def block_bytes(self) -> int:
        return math.prod(self.block_shape) * int(self.element.bitwidth) // 8


class KvBlocks:
    """Allocated blocks, scratch behind those that may be handed out; memory is touched, and so taken, as blocks are
    first written."""

    def __init__(self, ports: tuple[CachePort, ...], num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self.scratch = tuple(range(num_blocks, num_blocks + SCRATCH_BLOCKS))
        self.block_bytes = sum(port.block_bytes for port in ports)
        shape = [num_blocks + SCRATCH_BLOCKS]
        self.tensors = {port.name: Tensor(port.element, [*shape, *port.block_shape]) for port in ports}

    @property
    def allocated_bytes(self) -> int:
        return sum(tensor.byte_size for tensor in self.tensors.values())

    def bind(self, request: InferRequest) -> None:
        for name, tensor in self.tensors.items():
            request.set_tensor(name, tensor)


def allocate_blocks(compiled: CompiledModel, kv_bytes: int) -> KvBlocks:
    """As many blocks as fit the budget, scratch included. Raises LoadFailed below two that may be handed out."""
    ports = tuple(_cache_ports(compiled))
    block_bytes = sum(port.block_bytes for port in ports)
    num_blocks = kv_bytes // block_bytes
    least = SCRATCH_BLOCKS + 2
    if num_blocks < least:
        raise LoadFailed(
            f"kv_bytes {kv_bytes} holds {num_blocks} blocks of {block_bytes} bytes ({BLOCK_TOKENS} tokens); at least "
            f"{least} are needed: give at least {least * block_bytes}"
        )
    return KvBlocks(ports, num_blocks - SCRATCH_BLOCKS)


def _cache_ports(compiled: CompiledModel) -> Iterator[CachePort]:
    for port in compiled.inputs:
        name = port.get_any_name()
        if name.startswith(("key_cache.", "value_cache.")):
            shape = port.get_partial_shape()
            block_shape = tuple(shape[axis].get_length() for axis in range(1, len(shape)))
            yield CachePort(name, port.get_element_type(), block_shape)
