"""`speciate image "…"`: draws to a file with a progress bar, no server needed; shows it in terminals that can."""

import argparse
import asyncio
import importlib
import secrets
import sys
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from speciate.api.images import recipe_of
from speciate.api.picture_files import OutputFormat, write_file
from speciate.cli.parser import Parser, count, not_negative
from speciate.config import AdapterSettings, ImageSettings, ModelSettings, Settings
from speciate.core.denoise import AdapterUse, DenoiseShape, Picture
from speciate.core.errors import ConfigError, EngineFailed
from speciate.core.picture import Painted, PictureRequest
from speciate.core.picture import Progress as Passes
from speciate.core.segment import Tier
from speciate.costs.pass_table import PassTable
from speciate.image_assembly import (
    POCKET_IMAGE,
    POCKET_IMAGE_FOLDERS,
    LoadedImageModel,
    image_folder,
    load_image_engine,
    load_image_model,
)
from speciate.image_assembly import picture_door as open_door
from speciate.runtime.clock import MonotonicClock
from speciate.runtime.device import Device
from speciate.runtime.painter_item import PictureStream
from speciate.telemetry.metrics import Metrics

FORMATS: dict[str, OutputFormat] = {".png": "png", ".webp": "webp", ".jpg": "jpeg", ".jpeg": "jpeg"}
SHOWS = ("auto", "kitty", "sixel", "blocks", "never")
SHOW_WIDTH_CELLS = 32


def main(arguments: Sequence[str]) -> int:
    """Draws, writes, shows. Raises ConfigError, LoadFailed, InvalidRequest, EngineFailed."""
    given = _parser().parse_args(arguments)
    kind = _kind(given.out)
    model = _load(given)
    requests = _requests(given, model.engine.shape)
    console = Console(stderr=True)
    pictures = asyncio.run(_draw(model, requests, console))
    for index, (request, picture) in enumerate(zip(requests, pictures, strict=True)):
        path = _numbered(given.out, index, len(requests))
        _write(path, write_file(picture, recipe_of(request), kind, 95))
        print(f"{path}  (seed {request.seed})")
        if given.show != "never" and (given.show != "auto" or sys.stdout.isatty()):
            show(picture, given.show)
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="speciate image",
        usage="speciate image PROMPT [OPTIONS]",
        description="Draw a picture to a file. No server is needed; the first picture waits for the model to load.",
    )
    add = parser.add_argument
    add("prompt", metavar="PROMPT", help='what to draw, as "a red circle in the top left"')
    add("-o", "--out", type=Path, default=Path("image.png"), metavar="FILE", help=".png, .webp or .jpg (image.png)")
    add("-m", "--model", default="pocket-image", metavar="FOLDER", help="a diffusers folder (default: pocket-image)")
    add("--size", metavar="WxH", help="in pixels, as 64x64 (default: the model's own)")
    add("--steps", type=count, metavar="N", help="passes (default: 50)")
    add("--guidance", type=not_negative, metavar="G", help="how closely the prompt is followed; up to 1: not guided")
    add("--negative", default="", metavar="TEXT", help="what should not be in it")
    add("--sampler", metavar="NAME", help="as ddim, euler or dpmpp_2m (default: the model's own)")
    add("--lora", action="append", default=[], metavar="PATH[:SCALE]",
        help="a LoRA adapter, or pocket-outline or pocket-stripes; may be repeated")  # fmt: skip
    add("--seed", type=int, metavar="N", help="the same seed gives the same picture (default: a random one)")
    add("-n", type=count, default=1, metavar="N", help="pictures, with seeds one after the other")
    add("--threads", type=count, metavar="N", help="CPU threads (default: all cores)")
    add("--device", default="cpu", help="cpu (default), cuda, ...")
    add("--show", choices=SHOWS, default="auto", help="how to show it: auto (default), kitty, sixel, blocks or never")
    return parser


def _kind(out: Path) -> OutputFormat:
    kind = FORMATS.get(out.suffix.lower())
    if kind is None:
        raise ConfigError(f"{out} is of no kind that can be written; end it in {', '.join(FORMATS)}.")
    return kind


def _load(given: argparse.Namespace) -> LoadedImageModel:
    """Measured only where it pays: several pictures may share their passes."""
    image = POCKET_IMAGE.image if given.model == POCKET_IMAGE.path else ImageSettings()
    settings = ModelSettings(
        name=Path(given.model).name or "model",
        path=given.model,
        kind="image",
        threads=given.threads,
        adapters=tuple(AdapterSettings(path, path) for path, _ in map(_lora, given.lora)),
        image=msgspec.structs.replace(image, device=given.device),
    )
    with Console(stderr=True).status(f"loading {given.model}"):
        if given.n > 1:
            return load_image_model(settings)
        return LoadedImageModel(settings, image_folder(given.model), load_image_engine(settings), PassTable("", ()))


def _lora(text: str) -> tuple[str, float]:
    """`PATH` or `PATH:SCALE`."""
    path, colon, scale = text.rpartition(":")
    if not colon or text in POCKET_IMAGE_FOLDERS or Path(text).exists():
        return text, 1.0
    try:
        return path, float(scale)
    except ValueError:
        raise ConfigError(f"--lora {text}: {scale!r} is no number.") from None


def _requests(given: argparse.Namespace, shape: DenoiseShape) -> list[PictureRequest]:
    width, height = shape.default_size if given.size is None else _size(given.size)
    guidance = shape.default_guidance if given.guidance is None else given.guidance
    seed = secrets.randbelow(2**31) if given.seed is None else given.seed
    segment = Settings().image_segments(ModelSettings(shape.model))[Tier.INTERACTIVE]
    return [
        PictureRequest(
            request_id=f"image-{index}",
            model=shape.model,
            prompt=given.prompt,
            width=width,
            height=height,
            num_steps=given.steps or shape.default_steps,
            seed=seed + index,
            segment=segment,
            arrival_s=MonotonicClock().now_s(),
            negative_prompt=given.negative,
            guidance=guidance if guidance is not None and guidance > 1.0 else None,
            sampler=given.sampler,
            adapters=tuple(AdapterUse(path, scale) for path, scale in map(_lora, given.lora)),
        )
        for index in range(given.n)
    ]


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal() and len(text) < 16):
        raise ConfigError(f"--size {text}: write it as 64x64.")
    return int(width), int(height)


async def _draw(model: LoadedImageModel, requests: Sequence[PictureRequest], console: Console) -> list[Picture]:
    """All of them side by side, on a painter of their own."""
    device, clock = Device("image"), MonotonicClock()
    door = open_door([model], Settings().admission.pictures, device, clock, Metrics())
    if door is None:
        raise ConfigError("There is no model to draw with.")
    door.painter.start()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    try:
        with Progress(*columns, console=console, transient=True) as bars:
            streams = [door.open(request) for request in requests]
            bar_ids = [bars.add_task(f"seed {request.seed}", total=None) for request in requests]
            drawing = [_follow(stream, bars, bar) for stream, bar in zip(streams, bar_ids, strict=True)]
            return list(await asyncio.gather(*drawing))
    finally:
        await door.painter.stop()
        await device.close()


async def _follow(stream: PictureStream, bars: Progress, bar: TaskID) -> Picture:
    picture: Picture | None = None
    async with aclosing(stream) as events:
        async for event in events:
            if isinstance(event, Passes):
                bars.update(bar, completed=event.passes_done, total=event.num_passes)
            elif isinstance(event, Painted):
                picture = event.picture
    if picture is None:
        raise EngineFailed("The stream ended without a picture. Try again.")
    return picture


def _numbered(out: Path, index: int, num: int) -> Path:
    return out if num == 1 else out.with_stem(f"{out.stem}-{index + 1}")


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}. Give another place with -o.") from error


def show(picture: Picture, how: str) -> None:
    """By the terminal's own protocol where it has one, else in half blocks."""
    try:
        renderable = importlib.import_module("textual_image.renderable")
        image = importlib.import_module("PIL.Image")
    except ModuleNotFoundError as error:
        raise ConfigError(f"Showing pictures needs {error.name}: pip install 'speciate[image]'.") from error
    kinds = {"auto": "Image", "kitty": "TGPImage", "sixel": "SixelImage", "blocks": "HalfcellImage"}
    pixels = image.frombytes("RGB", (picture.width, picture.height), picture.rgb)
    Console().print(getattr(renderable, kinds[how])(pixels, width=SHOW_WIDTH_CELLS, height="auto"))
