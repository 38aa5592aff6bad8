"""One picture on its way: its sampler, its generator, its latents. Owned by the engine, changed by its steps only."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from speciate.core.denoise import DenoiseSpec
from speciate.engines.diffusers.family import Conditions


@dataclass(slots=True)
class LastPass:
    """What a preview is made of: the network's input and output, without a row dimension, and the time."""

    taken: Tensor
    predicted: Tensor
    timestep: Tensor


@dataclass(slots=True)
class Item:
    """State between steps. Tensors have a first dimension of one row, as samplers want them."""

    spec: DenoiseSpec
    sampler: Any
    timesteps: tuple[Tensor, ...]
    """Of the passes that are run; fewer than the sampler's where it starts from a picture."""
    generator: torch.Generator
    is_guided: bool
    """By a second row without the prompt."""
    latents: Tensor | None = None
    """None until encoded, where it starts from a picture."""
    conditions: Conditions | None = None
    source_latents: Tensor | None = None
    source_noise: Tensor | None = None
    mask: Tensor | None = None
    """1 where the picture may change; shaped (1, 1, H, W)."""
    passes_done: int = 0
    last: LastPass | None = None
    decoding: dict[bool, Tensor] = field(default_factory=dict)
    """Between slices; of a preview under True."""

    @property
    def num_rows(self) -> int:
        return 2 if self.is_guided else 1

    def noisy(self) -> Tensor:
        """Its latents. Raises AssertionError before they are made."""
        if self.latents is None:
            raise AssertionError(f"item {self.spec.item_id} ran before its picture was encoded")
        return self.latents
