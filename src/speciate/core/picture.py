"""What a caller asks of an image or video model, and what comes back: progress, previews, one picture, one finish."""

from collections.abc import AsyncGenerator
from typing import Literal, Protocol

from msgspec import Struct

from speciate.core.denoise import AdapterUse, Picture, SourceImage
from speciate.core.segment import Segment, Tier


class PictureRequest(Struct, frozen=True):
    """One picture or one video. `n` pictures are n requests with n seeds that share a `deadline_s`."""

    request_id: str
    model: str
    """A served model's name; an adapter's name selects its base and the adapter."""
    prompt: str
    width: int
    height: int
    num_steps: int
    seed: int
    segment: Segment
    arrival_s: float
    num_frames: int = 1
    negative_prompt: str = ""
    guidance: float | None = None
    sampler: str | None = None
    adapters: tuple[AdapterUse, ...] = ()
    source: SourceImage | None = None
    cache_threshold: float | None = None
    is_reproducible: bool = False
    """A lane of its own: bit for bit the same for the same seed, whatever else runs."""
    num_previews: int = 0
    """Partial pictures on the way, evenly spread over the passes."""
    tenant: str = "default"
    deadline_s: float | None = None
    """Absolute, on the replica's clock: past it nobody waits, and the work is dropped."""
    may_downgrade: bool = False
    operation: Literal["image", "edit", "video"] = "image"
    trace_parent: str | None = None


class PictureTimeline(Struct, frozen=True):
    """When what happened to an item, on the replica's clock in seconds."""

    arrival_s: float
    scheduled_s: float
    """When its first step began."""
    finished_s: float
    num_pauses: int = 0
    """How often more urgent work took the device between its passes."""


class Progress(Struct, frozen=True, tag="progress"):
    """Where it stands. Sent when it changes; while nobody reads only the newest is kept."""

    passes_done: int
    num_passes: int
    queue_position: int
    """Items expected to be done before it."""
    eta_s: float
    """When it is expected to be done, absolute on the replica's clock."""


class Preview(Struct, frozen=True, tag="preview"):
    """A picture that is not done; `index` counts from 0."""

    index: int
    picture: Picture


class Painted(Struct, frozen=True, tag="painted"):
    """Finished pixels: the whole picture, or the next frames of a video, in order."""

    picture: Picture


class PictureFinish(Struct, frozen=True, tag="picture_finish"):
    """The last event."""

    timeline: PictureTimeline
    tier: Tier
    """The tier that actually served it; slower than asked for if it was relegated on the way."""
    passes: int


PictureEvent = Progress | Preview | Painted | PictureFinish


class PictureEngine(Protocol):
    """What routing and the front door see: a stream a picture. Closing the iterator cancels the work."""

    def paint(self, request: PictureRequest, checkpoint: bytes | None = None) -> AsyncGenerator[PictureEvent, None]: ...


class Checkpoints(Protocol):
    """Where a replica puts the state of items so that they outlive it. Calls block.

    A replica only puts, and nothing after an item's finish. Whoever publishes a picture, or gives it up, forgets it.
    """

    def put(self, request_id: str, state: bytes) -> None:
        """Replace what was kept: afterwards either the old or the new state is found, never a part of one."""
        ...

    def get(self, request_id: str) -> bytes | None: ...

    def forget(self, request_id: str) -> None: ...
