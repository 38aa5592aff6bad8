"""How an OpenVINO model is loaded. Nothing here touches the runtime."""

from pathlib import Path
from typing import Literal

from msgspec import Struct

Weights = Literal["bf16", "f16", "f32", "int8", "int4"]
KvType = Literal["u8", "f16", "bf16", "f32"]
Precision = Literal["auto", "f32", "f16", "bf16"]
Pooling = Literal["auto", "last", "mean", "cls"]


class AdapterFolder(Struct, frozen=True):
    """A LoRA adapter in PEFT's layout: adapter_config.json and adapter_model.safetensors."""

    name: str
    path: Path


class OpenVinoOptions(Struct, frozen=True):
    """Options of a text model. `weights` is ignored for an exported IR, which carries its own."""

    weights: Weights = "int8"
    """int8: one scale an output channel; int4: groups of 128 (64 or 32 where the width asks for it), with the
    embedding and the output head in int8."""
    kv: KvType = "u8"
    kv_bytes: int = 1 << 30
    """All the memory that KV blocks may take."""
    precision: Precision = "auto"
    """What activations are computed in. `f32` also turns off the quantisation of activations."""
    threads: int | None = None
    """CPU threads; None leaves it to the runtime: one a physical core."""
    max_context_tokens: int | None = None
    """Shorten the model's own context."""
    max_step_tokens: int = 4096
    max_step_sequences: int = 256
    adapters: tuple[AdapterFolder, ...] = ()
    model_name: str | None = None
    """What the model is called; None takes the folder's name."""
    warm_tokens: int = 0
    """Steps of all sizes up to this many tokens are run once while loading: their kernels are made then, and not while
    somebody waits."""
    warm_s: float = 0.0
    """And larger ones, smallest first, for so long at most: a small model meets no new size later."""
    activation_group: int | None = None
    """Width of the groups in which activations are quantised to 8 bit before a matmul with 8 or 4-bit weights; 0 turns
    it off; None takes the measured best (see docs/decisions/0011)."""


class EmbedOptions(Struct, frozen=True):
    """Options of an embedding model."""

    weights: Weights = "int8"
    precision: Precision = "auto"
    threads: int | None = None
    max_context_tokens: int | None = None
    pooling: Pooling = "auto"
    """auto: what the folder's 1_Pooling/config.json says; without one, `last` for decoders and `mean` for encoders."""
    model_name: str | None = None
