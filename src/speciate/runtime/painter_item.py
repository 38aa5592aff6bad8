"""One picture or video in a painter: its mailbox, and when what happened to it."""

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Protocol, Self

import msgspec
from msgspec import Struct

from speciate.core.denoise import DenoisePlan, DenoiseSpec, ItemFacts, Picture
from speciate.core.denoise_scheduler import DenoiseWork
from speciate.core.errors import DeadlineExceeded, InvalidRequest, SpeciateError
from speciate.core.picture import (
    Painted,
    PictureEvent,
    PictureFinish,
    PictureRequest,
    PictureTimeline,
    Preview,
    Progress,
)
from speciate.core.segment import Tier
from speciate.runtime.bell import Bell


class PictureMailbox:
    """One producer (the painter), one consumer. Bounded: one progress, and the pictures that the item makes."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._pictures: list[Preview | Painted] = []
        self._end: PictureFinish | SpeciateError | None = None
        self._bell = Bell()

    def put(self, event: Progress | Preview | Painted) -> None:
        if isinstance(event, Progress):
            self._progress = event
        else:
            self._pictures.append(event)
        self._bell.ring()

    def finish(self, end: PictureFinish | SpeciateError) -> None:
        """The last event; later ones are ignored."""
        if self._end is None:
            self._end = end
            self._bell.ring()

    async def events(self) -> AsyncGenerator[PictureEvent, None]:
        """Newest progress and all pictures, then one finish. Raises the error it ended with."""
        while True:
            if self._progress is not None:
                progress, self._progress = self._progress, None
                yield progress
            elif self._pictures:
                yield self._pictures.pop(0)
            elif self._end is not None:
                break
            else:
                await self._bell.wait()
        if isinstance(self._end, SpeciateError):
            raise self._end
        yield self._end


class PictureStream:
    """The events of one picture that runs, read or not. Close it once: early, that cancels the work."""

    def __init__(self, events: AsyncGenerator[PictureEvent, None], let_go: Callable[[], None]) -> None:
        self._events = events
        self._let_go = let_go

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> PictureEvent:
        return await anext(self._events)

    async def aclose(self) -> None:
        try:
            await self._events.aclose()
        finally:
            self._let_go()


class PaintWatch(Protocol):
    """Who is told what a painter does: telemetry."""

    def stepped(self, plan: DenoisePlan, observed_s: float) -> None: ...

    def ended(self, request: PictureRequest, end: PictureFinish | SpeciateError) -> None: ...

    def left(self, request: PictureRequest) -> None:
        """Its caller left."""
        ...


class NoWatch:
    """Implements `PaintWatch` where nobody looks."""

    def stepped(self, plan: DenoisePlan, observed_s: float) -> None: ...

    def ended(self, request: PictureRequest, end: PictureFinish | SpeciateError) -> None: ...

    def left(self, request: PictureRequest) -> None: ...


@dataclass(slots=True)
class RunningPicture:
    """Owned by the painter that serves it; written only between steps."""

    spec: DenoiseSpec
    request: PictureRequest
    facts: ItemFacts
    tier: Tier
    checkpoint: bytes | None = None
    """What its engine goes on from when its model comes (back) onto the device."""
    is_added: bool = False
    """Whether its engine holds it."""
    mailbox: PictureMailbox = field(default_factory=PictureMailbox)
    passes_done: int = 0
    num_previews: int = 0
    num_pauses: int = 0
    num_failed_steps: int = 0
    scheduled_s: float | None = None
    saved_s: float = 0.0
    """When its state was last saved."""
    queue_position: int = 0
    eta_s: float = 0.0

    def stand(self) -> None:
        """Tell how far it is."""
        num_passes = self.facts.num_passes
        self.mailbox.put(Progress(self.passes_done, num_passes, self.queue_position, self.eta_s))

    def take(self, picture: Picture) -> None:
        """Pixels that a decode made."""
        if picture.is_preview:
            self.mailbox.put(Preview(self.num_previews, picture))
            self.num_previews += 1
        else:
            self.mailbox.put(Painted(picture))

    def finish(self, now_s: float) -> PictureFinish:
        arrival_s = self.request.arrival_s
        timeline = PictureTimeline(arrival_s, self.scheduled_s or arrival_s, now_s, self.num_pauses)
        return PictureFinish(timeline, self.tier, self.facts.num_passes)


def spec_of(item_id: int, request: PictureRequest) -> DenoiseSpec:
    """What the engine must know of a request."""
    same = {name: getattr(request, name) for name in DenoiseSpec.__struct_fields__ if name != "item_id"}
    return DenoiseSpec(item_id=item_id, **same)


def names_of(request: PictureRequest) -> tuple[str, ...]:
    """The adapters that it uses."""
    return tuple(use.name for use in request.adapters)


def work_of(picture: RunningPicture) -> DenoiseWork:
    """What the scheduler must know of it."""
    request = picture.request
    return DenoiseWork(
        item_id=picture.spec.item_id,
        model=request.model,
        facts=picture.facts,
        segment=request.segment,
        arrival_s=request.arrival_s,
        tenant=request.tenant,
        deadline_s=request.deadline_s,
        adapters=names_of(request),
        is_reproducible=request.is_reproducible,
        may_downgrade=request.may_downgrade,
        preview_after=preview_passes(request.num_previews, picture.facts.num_passes),
    )


def preview_passes(num_previews: int, num_passes: int) -> tuple[int, ...]:
    """After which passes partial pictures are decoded: evenly spread, never after the last."""
    wanted = (round(num_passes * (i + 1) / (num_previews + 1)) for i in range(num_previews))
    return tuple(sorted({num for num in wanted if 0 < num < num_passes}))


class SavedPicture(Struct, frozen=True):
    """A checkpoint as it is kept: the engine's state, and how many passes are in it."""

    passes_done: int
    state: bytes


def pack(passes_done: int, state: bytes) -> bytes:
    return msgspec.msgpack.encode(SavedPicture(passes_done, state))


def unpack(kept: bytes) -> SavedPicture:
    """Raises InvalidRequest."""
    try:
        return msgspec.msgpack.decode(kept, type=SavedPicture)
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"The checkpoint cannot be read ({error}); start the picture anew.") from error


def expired(picture: RunningPicture, now_s: float) -> DeadlineExceeded:
    waited_s = now_s - picture.request.arrival_s
    return DeadlineExceeded(
        f"The request's deadline passed after {waited_s:.3f} s with {picture.passes_done} of "
        f"{picture.facts.num_passes} passes done. Allow more time, or send it when the server is less busy."
    )
