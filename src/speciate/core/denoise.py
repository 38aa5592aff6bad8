"""The protocol of stepped image and video engines, and the plan of one step.

An item is one picture or one video. Its life is a row of steps, each of one stage; items of one stage, one model and
one shape of latents may share a step, whatever their sampler, number of passes, guidance or adapters are (and encoding
is shared whatever the shape):

    encode -> pass 0 -> pass 1 -> ... -> (preview slices) -> ... -> pass n-1 -> decode slices -> gone

`n` pictures of one request are n items with n seeds. Engines know no deadlines, schedulers know no pixels.
"""

from enum import StrEnum
from typing import Protocol, runtime_checkable

from msgspec import Struct

from speciate.core.errors import InvalidRequest


class Stage(StrEnum):
    """What a step does to its items."""

    ENCODE = "encode"
    """Prompts (and start images) to what the passes are conditioned on. One step an item."""
    PASS = "pass"
    """One evaluation of the denoiser."""
    PREVIEW = "preview"
    """A slice of decoding latents that are not done yet."""
    DECODE = "decode"
    """A slice of decoding the finished latents; the last slice ends the item."""


class SourceImage(Struct, frozen=True):
    """What an image-to-image or inpainting item starts from. Encoded files, decoded and bounded by the front door."""

    rgb: bytes
    """width * height * 3 bytes, row by row."""
    width: int
    height: int
    strength: float = 1.0
    """Share 0..1 of the schedule that is run: 1 forgets the picture."""
    mask: bytes | None = None
    """width * height bytes; 255 is painted anew, 0 is kept. None: everything may change."""


class AdapterUse(Struct, frozen=True):
    """A LoRA adapter and how strongly it acts."""

    name: str
    scale: float = 1.0


class DenoiseSpec(Struct, frozen=True):
    """What the engine needs to know of an item; constant over its life."""

    item_id: int
    prompt: str
    width: int
    height: int
    num_steps: int
    """As asked for; the engine says how many passes that makes (`ItemFacts.num_passes`)."""
    seed: int
    negative_prompt: str = ""
    num_frames: int = 1
    guidance: float | None = None
    """Classifier-free guidance (two rows a pass), or the model's embedded guidance; None: without."""
    sampler: str | None = None
    """None: the model's own."""
    adapters: tuple[AdapterUse, ...] = ()
    source: SourceImage | None = None
    cache_threshold: float | None = None
    """First-block caching: skip the tail of a pass while the first block changes less than this. None: never."""
    is_reproducible: bool = False
    """Bit for bit the same for the same seed: the item is always alone in its steps."""


class ItemFacts(Struct, frozen=True):
    """What an item's work is made of, as the engine counts it."""

    latent_shape: tuple[int, ...]
    """Items share a step only where this is equal. Packed models give (tokens, channels) and so mix aspect ratios."""
    num_tokens: int
    """Positions that the denoiser attends over; what a pass costs depends on it."""
    num_passes: int
    """Evaluations: more than the steps asked for with second-order samplers, fewer with `strength` below 1."""
    num_rows: int = 1
    """Rows of a batch that it takes in a pass: 2 with classifier-free guidance."""
    num_decode_slices: int = 1
    passes_done: int = 0
    """Of an item restored from a checkpoint."""
    state_bytes: int = 0
    """What a paused item holds on the device, and its checkpoint on disk."""


class DenoiseShape(Struct, frozen=True):
    """What a scheduler and the front door must know of a loaded model."""

    model: str
    size_multiple: int
    """Width and height are multiples of it."""
    min_size: int
    max_size: int
    """Of each side, in pixels."""
    max_frames: int = 1
    default_size: tuple[int, int] = (512, 512)
    """(width, height)."""
    default_steps: int = 30
    default_guidance: float | None = None
    max_rows: int = 32
    """Of one pass."""
    max_steps: int = 1000
    samplers: tuple[str, ...] = ()
    """The first is the model's own."""
    adapters: tuple[str, ...] = ()
    model_bytes: int = 0
    """On the device."""

    def validate(self, spec: DenoiseSpec) -> None:
        """Raises InvalidRequest for a size, a number of steps or of frames beyond these limits."""
        for side, value in (("width", spec.width), ("height", spec.height)):
            if value % self.size_multiple or not self.min_size <= value <= self.max_size:
                raise InvalidRequest(
                    f"The {side} is {value} pixels; {self.model} draws {self.min_size} to {self.max_size}, in "
                    f"multiples of {self.size_multiple}.",
                    param="size",
                )
        if not 1 <= spec.num_steps <= self.max_steps:
            raise InvalidRequest(f"steps is {spec.num_steps}; it takes 1 to {self.max_steps}.", param="steps")
        if not 1 <= spec.num_frames <= self.max_frames:
            raise InvalidRequest(
                f"{self.model} makes 1 to {self.max_frames} frames, not {spec.num_frames} frames.", param="num_frames"
            )


class ItemStep(Struct, frozen=True, gc=False):
    """One item's share of a step."""

    item_id: int
    index: int
    """Which pass, or which slice of decoding; 0 for encode."""


class DenoisePlan(Struct, frozen=True):
    """What one step runs: one stage of one model, each item at most once, the most urgent first."""

    step_id: int
    model: str
    stage: Stage
    items: tuple[ItemStep, ...]


class Picture(Struct, frozen=True):
    """Pixels that a decode made: frames `first_frame`, ... of an item. 8 bits, RGB, row by row, frame by frame."""

    item_id: int
    width: int
    height: int
    rgb: bytes
    """num_frames * height * width * 3 bytes."""
    first_frame: int = 0
    num_frames: int = 1
    is_preview: bool = False


class DenoiseResult(Struct, frozen=True):
    """What a step made. Pictures come with the last slice that they need; an item that failed alone is in `failed`."""

    pictures: tuple[Picture, ...] = ()
    failed: tuple[tuple[int, str], ...] = ()
    """(item_id, why): this item cannot go on (its latents are NaN), the others can."""


class DenoiseEngine(Protocol):
    """One loaded image or video model that runs one bounded step at a time; `step` blocks while it computes.

    `step`, `save`, `remove` and `close` come from one thread at a time and never overlap. `add` may come from another
    thread while a step runs; its item is in no plan before it returns.
    """

    @property
    def shape(self) -> DenoiseShape: ...

    def add(self, spec: DenoiseSpec, checkpoint: bytes | None = None) -> ItemFacts:
        """Make an item's state: its own noise scheduler, generator and first latents, or what `save` gave.

        Cheap: the prompt is encoded in a step. Raises InvalidRequest where size, steps, sampler or an adapter cannot
        be used, or the checkpoint is of another model or spec.
        """
        ...

    def step(self, plan: DenoisePlan) -> DenoiseResult:
        """Compute the plan. Raises EngineFailed when the whole step is lost; items then stand where they stood."""
        ...

    def save(self, item_id: int) -> bytes:
        """The item's whole state between steps: another engine of the model goes on from it within 1e-5."""
        ...

    def remove(self, item_id: int) -> None:
        """Forget an item; unknown ids are ignored."""
        ...

    def close(self) -> None: ...


class ForesightedEngine(DenoiseEngine, Protocol):
    """A loaded engine that says what an item would be made of before it is added: admission asks."""

    def facts(self, spec: DenoiseSpec) -> ItemFacts:
        """What `add` would give. Changes nothing; from any thread. Raises as `add` does."""
        ...


@runtime_checkable
class AdapterHost(Protocol):
    """An optional ability of an engine: adapters come and go while it runs. Calls come between steps."""

    def attach(self, name: str, path: str) -> int:
        """Put the adapter beside the model, parsing its files the first time only; returns its bytes on the device.
        Raises LoadFailed, also for an adapter of another base."""
        ...

    def detach(self, name: str) -> None:
        """Take it off the device; what was parsed stays in host memory until `forget`."""
        ...

    def forget(self, name: str) -> None: ...


class ModelHost(Protocol):
    """Many checkpoints over one device: what residency moves. Steps of models that are loaded go on meanwhile."""

    def facts(self, model: str, spec: DenoiseSpec) -> ItemFacts:
        """What an item will be made of, from the folder's configuration alone: the model need not be loaded. Raises
        InvalidRequest where size, steps or sampler cannot be used."""
        ...

    def fetch(self, model: str) -> None:
        """Disk to host memory, where it stays until `drop`. Blocks; from a thread of its own. Raises LoadFailed."""
        ...

    def load(self, model: str) -> DenoiseEngine:
        """Onto the device, from host memory if it is there, else from disk. Blocks. Raises LoadFailed."""
        ...

    def unload(self, model: str) -> None:
        """Off the device; its items were saved and removed before."""
        ...

    def drop(self, model: str) -> None:
        """Out of host memory."""
        ...
