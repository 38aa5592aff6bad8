"""Pixels to image files and back, bounded. What made a picture is written into its file, as other image tools do."""

import io
from typing import Literal

import msgspec
from msgspec import Struct
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from speciate.core.denoise import Picture
from speciate.core.errors import InvalidRequest

OutputFormat = Literal["png", "webp", "jpeg"]

MAX_PIXELS = 4096 * 4096
"""Of an uploaded picture; a small file can claim any size, so this is looked at before it is unpacked."""

READ_FORMATS = ("PNG", "JPEG", "WEBP")
_USER_COMMENT, _SOFTWARE = 0x9286, 0x0131
_EXIF_IFD = 0x8769


class Recipe(Struct, frozen=True, omit_defaults=True):
    """What a picture was made from; enough to make it again."""

    prompt: str
    model: str
    seed: int
    steps: int
    size: str
    negative_prompt: str = ""
    guidance: float | None = None
    sampler: str | None = None
    loras: tuple[tuple[str, float], ...] = ()
    strength: float | None = None
    software: str = "speciate"


def write_file(picture: Picture, recipe: Recipe, kind: OutputFormat, quality: int) -> bytes:
    """`quality` is 0..100, of WebP and JPEG. PNG holds the recipe as text (`parameters`, as A1111 writes it, and
    `speciate` as JSON), the others as an EXIF comment in JSON."""
    image = Image.frombytes("RGB", (picture.width, picture.height), picture.rgb)
    written = io.BytesIO()
    if kind == "png":
        image.save(written, "PNG", pnginfo=_png_text(recipe))
    elif kind == "webp":
        image.save(written, "WEBP", quality=quality, exif=_exif(recipe))
    else:
        image.save(written, "JPEG", quality=max(1, quality), exif=_exif(recipe))
    return written.getvalue()


def read_recipe(data: bytes) -> Recipe | None:
    """What `write_file` put into a file; None where there is nothing of it."""
    with Image.open(io.BytesIO(data)) as image:
        text = image.info.get("speciate")
        if text is None:
            comment = image.getexif().get_ifd(_EXIF_IFD).get(_USER_COMMENT)
            text = comment.removeprefix(b"ASCII\0\0\0") if isinstance(comment, bytes) else comment
    try:
        return None if text is None else msgspec.json.decode(str(text) if isinstance(text, str) else text, type=Recipe)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return None


def read_picture(data: bytes, param: str) -> Image.Image:
    """An uploaded file, unpacked. Raises InvalidRequest for what is no picture, is broken, or is too large."""
    try:
        with Image.open(io.BytesIO(data), formats=READ_FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise InvalidRequest(
                    f"The picture is {width} x {height} pixels; at most {MAX_PIXELS} in all are read. Shrink it.",
                    param=param,
                )
            image.load()
            return image.copy()
    except UnidentifiedImageError as error:
        raise InvalidRequest(
            f"The file ({len(data)} bytes) is no picture; send {', '.join(READ_FORMATS)}.", param=param
        ) from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, MemoryError) as error:
        raise InvalidRequest(f"The picture cannot be read: {error}. Save it again.", param=param) from error


def _png_text(recipe: Recipe) -> PngInfo:
    info = PngInfo()
    info.add_itxt("parameters", _parameters(recipe))
    info.add_itxt("speciate", msgspec.json.encode(recipe).decode())
    return info


def _parameters(recipe: Recipe) -> str:
    """The lines that A1111 and the tools around it read."""
    negative = f"\nNegative prompt: {recipe.negative_prompt}" if recipe.negative_prompt else ""
    loras = "".join(f" <lora:{name}:{scale:g}>" for name, scale in recipe.loras)
    facts = {
        "Steps": recipe.steps,
        "Sampler": recipe.sampler,
        "CFG scale": recipe.guidance,
        "Seed": recipe.seed,
        "Size": recipe.size,
        "Model": recipe.model,
        "Denoising strength": recipe.strength,
    }
    listed = ", ".join(f"{name}: {value}" for name, value in facts.items() if value is not None)
    return f"{recipe.prompt}{loras}{negative}\n{listed}"


def _exif(recipe: Recipe) -> Image.Exif:
    exif = Image.Exif()
    exif[_SOFTWARE] = recipe.software
    exif.get_ifd(_EXIF_IFD)[_USER_COMMENT] = b"ASCII\0\0\0" + msgspec.json.encode(recipe)
    return exif
