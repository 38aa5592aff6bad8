"""/v1/images/*: pictures from prompts, and from pictures; whole, as a stream with partial ones, or by URL."""

import asyncio
import base64
import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, aclosing

import msgspec
from msgspec import UNSET, Struct, UnsetType

from speciate.api.call import BytesReply, Call, Reply, Services, new_id
from speciate.api.chat import error_frame
from speciate.api.forms import Form, is_form, read_form
from speciate.api.images_body import (
    ImagesBody,
    adapters_of,
    decode_images,
    decode_images_form,
    num_steps_of,
    size_of,
    source_of,
)
from speciate.api.picture_files import OutputFormat, Recipe, write_file
from speciate.api.picture_store import PictureStore
from speciate.api.promise import promise_of
from speciate.api.sse import EventStream
from speciate.api.tiers import WORD_OF_TIER
from speciate.core.denoise import DenoiseShape, Picture, SourceImage
from speciate.core.errors import EngineFailed, InvalidRequest
from speciate.core.picture import Painted, PictureFinish, PictureRequest, Preview, Progress
from speciate.core.segment import TIER_RANK, Tier
from speciate.runtime.gateway import PictureSubmission

EDIT_STRENGTH, VARIATION_STRENGTH = 0.7, 0.6
"""How much of a picture is redrawn where nothing else is said; under a mask all of it is."""

MAX_RANDOM_SEED = 2**31


class ImageRow(Struct, frozen=True, omit_defaults=True):
    """`seed` is ours: with it and the other fields the picture can be made again."""

    seed: int
    b64_json: str | None = None
    url: str | None = None


class ImagesAnswer(Struct, frozen=True):
    created: int
    data: list[ImageRow]
    size: str
    output_format: OutputFormat
    quality: str
    service_tier: str
    background: str = "opaque"


class ImageEvent(Struct, frozen=True):
    """Both kinds of picture events. `index` is ours: which of `n` pictures it is."""

    type: str
    b64_json: str
    created_at: int
    size: str
    output_format: OutputFormat
    quality: str
    index: int
    seed: int
    background: str = "opaque"
    partial_image_index: int | UnsetType = UNSET
    service_tier: str | UnsetType = UNSET
    """Of the finished picture."""


class ProgressEvent(Struct, frozen=True):
    """Sent only where `include_progress` asks for it."""

    type: str
    index: int
    passes_done: int
    num_passes: int
    queue_position: int
    eta_s: float
    """Seconds from now."""


class ImageJob(Struct, frozen=True):
    """All pictures of one body."""

    body: ImagesBody
    requests: list[PictureRequest]
    submissions: list[PictureSubmission]
    event_prefix: str
    """As `image_generation`."""
    created: int

    @property
    def kind(self) -> OutputFormat:
        return self.body.output_format or "png"

    @property
    def size(self) -> str:
        return f"{self.requests[0].width}x{self.requests[0].height}"

    @property
    def quality(self) -> str:
        word = self.body.quality or "auto"
        return {"standard": "medium", "auto": "medium", "hd": "high"}.get(word, word)

    def file(self, index: int, picture: Picture) -> bytes:
        """Takes milliseconds and more: call it on a thread."""
        request, quality = self.requests[index], self.body.output_compression
        return write_file(picture, recipe_of(request), self.kind, 95 if quality is None else quality)


_encode = msgspec.json.Encoder().encode


class ImagesApi:
    """Owns the pictures that are fetched by URL."""

    def __init__(self, store: PictureStore) -> None:
        self._store = store

    async def generate(self, services: Services, call: Call) -> Reply:
        body = decode_images(call.body)
        if not body.prompt:
            raise InvalidRequest("prompt is empty; say what to draw.", param="prompt")
        return await self._answer(services, call, body, None, "image_generation")

    async def edit(self, services: Services, call: Call) -> Reply:
        form, body = await _read_upload(call)
        mask = form.file("mask")
        strength = body.strength or (EDIT_STRENGTH if mask is None else 1.0)
        source = await asyncio.to_thread(source_of, _image(form), mask, strength)
        return await self._answer(services, call, body, source, "image_edit")

    async def vary(self, services: Services, call: Call) -> Reply:
        form, body = await _read_upload(call)
        source = await asyncio.to_thread(source_of, _image(form), None, body.strength or VARIATION_STRENGTH)
        return await self._answer(services, call, body, source, "image_edit")

    async def _answer(
        self, services: Services, call: Call, body: ImagesBody, source: SourceImage | None, event_prefix: str
    ) -> Reply:
        if body.response_format == "url" and call.batch_window_s is not None:
            raise InvalidRequest("URLs do not outlive a batch; use response_format b64_json.", param="response_format")
        job = await _open(services, call, body, source, event_prefix)
        if not body.stream:
            return await self._whole(job, call)
        return EventStream(
            _frames(services, job),
            error_frame,
            heartbeat_s=services.options.heartbeat_s,
            write_stall_s=services.options.write_stall_s,
            headers=[(b"x-speciate-tier", job.submissions[0].tier.value.encode())],
        )

    async def _whole(self, job: ImageJob, call: Call) -> Reply:
        drawn = await _all_drawn(job.submissions)
        tier = max((finish.tier for _, finish in drawn), key=TIER_RANK.__getitem__)
        files = await asyncio.gather(*(asyncio.to_thread(job.file, i, p) for i, (p, _) in enumerate(drawn)))
        answer = ImagesAnswer(
            created=job.created,
            data=[self._row(job, index, data, call) for index, data in enumerate(files)],
            size=job.size,
            output_format=job.kind,
            quality=job.quality,
            service_tier=WORD_OF_TIER[tier],
        )
        return BytesReply(_encode(answer), headers=lambda: [(b"x-speciate-tier", tier.value.encode())])

    def _row(self, job: ImageJob, index: int, data: bytes, call: Call) -> ImageRow:
        seed = job.requests[index].seed
        if job.body.response_format == "url":
            return ImageRow(seed, url=_origin(call) + self._store.keep(data, job.kind))
        return ImageRow(seed, b64_json=base64.b64encode(data).decode())


async def _read_upload(call: Call) -> tuple[Form, ImagesBody]:
    content_type = call.headers.get(b"content-type")
    if content_type is None or not is_form(content_type):
        raise InvalidRequest("Send the picture as multipart/form-data, in the field image.", param="image")
    form = await asyncio.to_thread(read_form, call.body, content_type)
    return form, decode_images_form(form)


def _image(form: Form) -> bytes:
    data = form.file("image")
    if data is None:
        raise InvalidRequest("The form has no file in the field image.", param="image")
    return data


async def _open(
    services: Services, call: Call, body: ImagesBody, source: SourceImage | None, event_prefix: str
) -> ImageJob:
    requests = picture_requests(services, call, body, source)
    submissions = await services.gateway.paint(requests)
    return ImageJob(body, requests, submissions, event_prefix, int(time.time()))


def picture_requests(
    services: Services, call: Call, body: ImagesBody, source: SourceImage | None
) -> list[PictureRequest]:
    """One request a picture, each with a seed of its own. Raises InvalidRequest where the model draws nothing."""
    model = services.gateway.find(body.model)
    shape = model.image
    if shape is None:
        raise InvalidRequest(f"Model {body.model!r} draws no pictures.", param="model")
    promise = promise_of(services, call, body.model, body, may_use_read_timeout=not body.stream)
    width, height = size_of(body, shape)
    seed = secrets.randbelow(MAX_RANDOM_SEED) if body.seed is None else body.seed
    answer_id = call.request_id if call.batch_window_s is not None else new_id("img-")
    return [
        PictureRequest(
            request_id=f"{answer_id}-{index}",
            model=model.name,
            prompt=body.prompt,
            width=width,
            height=height,
            num_steps=num_steps_of(body, shape),
            seed=seed + index,
            segment=promise.segment,
            arrival_s=promise.arrival_s,
            negative_prompt=body.negative_prompt or "",
            guidance=_guidance(body, shape),
            sampler=body.sampler,
            adapters=adapters_of(body, model.adapter),
            source=source,
            is_reproducible=bool(body.reproducible),
            num_previews=(body.partial_images or 0) if body.stream else 0,
            tenant=promise.tenant,
            deadline_s=promise.deadline_s,
            may_downgrade=promise.may_downgrade,
            operation="image" if source is None else "edit",
            trace_parent=promise.trace_parent,
        )
        for index in range(body.n or 1)
    ]


def _guidance(body: ImagesBody, shape: DenoiseShape) -> float | None:
    """Up to 1 guides nothing."""
    wanted = shape.default_guidance if body.guidance is None else body.guidance
    return None if wanted is None or wanted <= 1.0 else wanted


def recipe_of(request: PictureRequest) -> Recipe:
    return Recipe(
        prompt=request.prompt,
        model=request.model,
        seed=request.seed,
        steps=request.num_steps,
        size=f"{request.width}x{request.height}",
        negative_prompt=request.negative_prompt,
        guidance=request.guidance,
        sampler=request.sampler,
        loras=tuple((use.name, use.scale) for use in request.adapters),
        strength=None if request.source is None else request.source.strength,
    )


async def _all_drawn(submissions: Sequence[PictureSubmission]) -> list[tuple[Picture, PictureFinish]]:
    """They are drawn side by side whatever the order in which they are read. If one fails, the others are cancelled."""
    async with AsyncExitStack() as stack:
        for submission in submissions:
            await stack.enter_async_context(aclosing(submission.events))
        return [await _drawn(submission) for submission in submissions]


async def _drawn(submission: PictureSubmission) -> tuple[Picture, PictureFinish]:
    picture: Picture | None = None
    async for event in submission.events:
        if isinstance(event, Painted):
            picture = event.picture
        elif isinstance(event, PictureFinish) and picture is not None:
            return picture, event
    raise EngineFailed(f"The stream of {submission.request_id} ended without a picture. Send the request again.")


async def _frames(services: Services, job: ImageJob) -> AsyncGenerator[bytes, None]:
    """Picture after picture; while one is read, the others wait in their mailboxes with what they have."""
    async with AsyncExitStack() as stack:
        for submission in job.submissions:
            await stack.enter_async_context(aclosing(submission.events))
        for index, submission in enumerate(job.submissions):
            painted: Picture | None = None
            async for event in submission.events:
                if isinstance(event, Painted):
                    painted = event.picture
                elif isinstance(event, Preview):
                    yield await _picture_frame(job, index, event.picture, event.index, None)
                elif isinstance(event, PictureFinish) and painted is not None:
                    yield await _picture_frame(job, index, painted, None, event.tier)
                elif isinstance(event, Progress) and job.body.include_progress:
                    yield _progress_frame(services, job, index, event)


async def _picture_frame(
    job: ImageJob, index: int, picture: Picture, partial_index: int | None, tier: Tier | None
) -> bytes:
    kind = "completed" if partial_index is None else "partial_image"
    data = await asyncio.to_thread(job.file, index, picture)
    return _frame(
        ImageEvent(
            type=f"{job.event_prefix}.{kind}",
            b64_json=base64.b64encode(data).decode(),
            created_at=int(time.time()),
            size=job.size,
            output_format=job.kind,
            quality=job.quality,
            index=index,
            seed=job.requests[index].seed,
            partial_image_index=UNSET if partial_index is None else partial_index,
            service_tier=UNSET if tier is None else WORD_OF_TIER[tier],
        )
    )


def _progress_frame(services: Services, job: ImageJob, index: int, progress: Progress) -> bytes:
    return _frame(
        ProgressEvent(
            type=f"{job.event_prefix}.progress",
            index=index,
            passes_done=progress.passes_done,
            num_passes=progress.num_passes,
            queue_position=progress.queue_position,
            eta_s=round(max(0.0, progress.eta_s - services.gateway.now_s()), 3),
        )
    )


def _frame(event: ImageEvent | ProgressEvent) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (event.type.encode(), _encode(event))


def _origin(call: Call) -> str:
    """As the client reached us; behind a proxy that ends TLS, what that says."""
    host = call.headers.get(b"x-forwarded-host") or call.headers.get(b"host") or b"localhost"
    scheme = call.headers.get(b"x-forwarded-proto") or b"http"
    return f"{scheme.decode('latin-1')}://{host.decode('latin-1')}"
