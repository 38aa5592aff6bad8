"""How a diffusers folder is loaded and run."""

from typing import Literal

from msgspec import Struct


class LoraFolder(Struct, frozen=True):
    """A LoRA adapter: a .safetensors file, or a folder with one."""

    name: str
    path: str


class DiffusersOptions(Struct, frozen=True):
    """Settings of one engine."""

    model_name: str
    device: str = "cpu"
    """As torch writes it: `cpu`, `cuda`, `cuda:1`."""
    precision: Literal["auto", "f32", "bf16", "f16"] = "auto"
    """auto: f32 on a CPU, bf16 elsewhere."""
    threads: int | None = None
    """CPU threads of a step; None: torch's own choice."""
    adapters: tuple[LoraFolder, ...] = ()
    default_steps: int = 50
    default_guidance: float | None = None
    """None: what the kind of model is usually run with."""
    max_rows: int = 32
    """Of one pass."""
    max_size: int | None = None
    """Of each side, in pixels; None: twice the model's own."""
