"""The bodies of /v1/images/*: OpenAI's fields, and those that image tools have beside them."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from speciate.api.body import decode_body
from speciate.api.forms import Form
from speciate.api.picture_files import OutputFormat, read_picture
from speciate.api.sampling import Name, SamplingFields
from speciate.core.denoise import AdapterUse, DenoiseShape, SourceImage
from speciate.core.errors import InvalidRequest

MAX_PICTURES = 10
MAX_PROMPT_CHARS = 32_000
MAX_PREVIEWS = 3

Quality = Literal["low", "medium", "high", "xhigh", "max", "auto", "standard", "hd"]
STEPS_OF_QUALITY: dict[str, float] = {"low": 0.5, "high": 1.5, "hd": 1.5, "xhigh": 2.0, "max": 2.0}
"""Of the model's default; other words mean the default itself."""


class LoraUse(Struct, frozen=True):
    """An adapter by its name; strength 1 is as it was trained."""

    name: Name
    scale: Annotated[float, Meta(ge=-4.0, le=4.0)] = 1.0


class ImagesBody(SamplingFields, kw_only=True):
    """Fields that this server honours; all others are ignored, as OpenAI does."""

    model: Name
    prompt: Annotated[str, Meta(max_length=MAX_PROMPT_CHARS)] = ""
    n: Annotated[int, Meta(ge=1, le=MAX_PICTURES)] | None = None
    size: str | None = None
    quality: Quality | None = None
    background: Literal["transparent", "opaque", "auto"] | None = None
    response_format: Literal["url", "b64_json"] | None = None
    output_format: OutputFormat | None = None
    output_compression: Annotated[int, Meta(ge=0, le=100)] | None = None
    stream: bool | None = None
    partial_images: Annotated[int, Meta(ge=0, le=MAX_PREVIEWS)] | None = None
    # what image tools have beside OpenAI's fields
    negative_prompt: Annotated[str, Meta(max_length=MAX_PROMPT_CHARS)] | None = None
    steps: int | None = None
    guidance: Annotated[float, Meta(ge=0.0, le=100.0)] | None = None
    sampler: str | None = None
    loras: Annotated[list[LoraUse], Meta(max_length=8)] | None = None
    strength: Annotated[float, Meta(gt=0.0, le=1.0)] | None = None
    reproducible: bool | None = None
    include_progress: bool | None = None


_DECODER = msgspec.json.Decoder(ImagesBody)
_NUMBERS = {"n", "output_compression", "partial_images", "seed", "steps", "guidance", "strength", "priority"}
_FLAGS = {"stream", "reproducible", "include_progress"}
_LISTS = {"loras"}


def decode_images(body: bytes) -> ImagesBody:
    """Raises InvalidRequest for what cannot be honoured."""
    return _checked(decode_body(_DECODER, body))


def decode_images_form(form: Form) -> ImagesBody:
    """A form's fields are text: those that are numbers, flags or lists are read as JSON."""
    values: dict[str, Any] = {name: _field(name, text) for name, text in form.fields.items() if text != ""}
    return _checked(decode_body(_DECODER, msgspec.json.encode(values)))


def _field(name: str, text: str) -> Any:
    if name not in _NUMBERS | _FLAGS | _LISTS:
        return text
    try:
        return msgspec.json.decode(text.lower() if name in _FLAGS else text)
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"Field {name} is {text[:80]!r}, which cannot be read.", param=name) from error


def _checked(body: ImagesBody) -> ImagesBody:
    if body.background == "transparent":
        raise InvalidRequest("Pictures here have no transparent background; leave background out.", param="background")
    if body.stream and body.response_format == "url":
        raise InvalidRequest("A stream carries its pictures; use response_format b64_json.", param="response_format")
    return body


def size_of(body: ImagesBody, shape: DenoiseShape) -> tuple[int, int]:
    """(width, height). Raises InvalidRequest for what is not `WIDTHxHEIGHT` or `auto`."""
    if body.size in (None, "auto"):
        return shape.default_size
    width, _, height = str(body.size).partition("x")
    if not (width.isascii() and width.isdigit() and height.isascii() and height.isdigit() and len(str(body.size)) < 16):
        raise InvalidRequest(f"size is {body.size!r}; write it as 512x512, or auto.", param="size")
    return int(width), int(height)


def num_steps_of(body: ImagesBody, shape: DenoiseShape) -> int:
    if body.steps is not None:
        return body.steps
    share = STEPS_OF_QUALITY.get(body.quality or "auto", 1.0)
    return max(1, min(shape.max_steps, round(shape.default_steps * share)))


def adapters_of(body: ImagesBody, own: str | None) -> tuple[AdapterUse, ...]:
    """The adapter that the model's name stands for, and those that are named."""
    named = tuple(AdapterUse(use.name, use.scale) for use in body.loras or ())
    return named if own is None else (AdapterUse(own), *named)


def source_of(picture: bytes, mask: bytes | None, strength: float) -> SourceImage:
    """An uploaded picture, and where it may change: where the mask is transparent, as OpenAI has it."""
    image = read_picture(picture, "image")
    pixels = image.convert("RGB")
    painted = None if mask is None else _painted(mask, image.size)
    return SourceImage(pixels.tobytes(), image.width, image.height, strength, painted)


def _painted(mask: bytes, size: tuple[int, int]) -> bytes:
    image = read_picture(mask, "mask")
    if image.size != size:
        raise InvalidRequest(
            f"The mask is {image.width} x {image.height} pixels, the picture {size[0]} x {size[1]}; make them equal.",
            param="mask",
        )
    if "A" not in image.getbands():
        raise InvalidRequest("The mask has no transparency; make what may change transparent.", param="mask")
    return bytes(255 - alpha for alpha in image.getchannel("A").tobytes())
