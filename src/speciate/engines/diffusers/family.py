"""What differs between kinds of image models, behind one protocol; the engine knows no kind."""

from typing import Any, Protocol

from msgspec import Struct
from torch import Tensor

from speciate.core.denoise import DenoiseSpec

# Shapes: B rows of a pass, L tokens of a prompt, C channels, H and W places of the latents, P pixels of a side.

Condition = dict[str, Tensor]
"""What one row is conditioned on, by name, each tensor with a first dimension of one row."""


class Conditions(Struct, frozen=True):
    """Of one item; `negative` where it runs with classifier-free guidance."""

    positive: Condition
    negative: Condition | None = None


class PassRows(Struct, frozen=True):
    """The rows of one pass, of any items."""

    latents: Tensor
    """Scaled for the network by each item's sampler; the first dimension is the row."""
    timesteps: Tensor
    conditions: Condition
    guidance: Tensor | None = None
    """Of models that take guidance as an input."""


class Family(Protocol):
    """One loaded pipeline, taken apart."""

    def latent_shape(self, width: int, height: int) -> tuple[int, ...]:
        """Of one item, without a row dimension."""
        ...

    def num_tokens(self, latent_shape: tuple[int, ...]) -> int:
        """Positions that the denoiser attends over."""
        ...

    def set_timesteps(self, sampler: Any, num_steps: int, latent_shape: tuple[int, ...]) -> None: ...

    def encode(self, spec: DenoiseSpec, is_guided: bool) -> Conditions: ...

    def predict(self, rows: PassRows) -> Tensor:
        """What the network predicts of each row, shaped like the latents."""
        ...

    def to_autoencoder(self, latents: Tensor, spec: DenoiseSpec) -> Tensor:
        """Latents as the autoencoder takes them: unpacked, unscaled."""
        ...


class LoadedFamily(Struct, frozen=True):
    """A family and the parts that the engine itself uses."""

    family: Family
    pipeline: Any
    denoiser: Any
    """The network of the passes."""
    size_multiple: int
    native_size: int
    """Side in pixels."""
    default_guidance: float | None
    has_embedded_guidance: bool = False
    """Guidance is an input of the network, not a second row."""
    takes_source: bool = False
    """Whether it can start from a picture."""
