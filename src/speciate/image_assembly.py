"""Image models from settings: folders to engines, replicas and served names. `assembly` puts them beside the text."""

import importlib
import logging
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from msgspec import Struct

from speciate.admission.admit_picture import PictureLimits
from speciate.config import AdapterSettings, ImageSettings, ModelSettings, Settings
from speciate.core.denoise import ForesightedEngine
from speciate.core.errors import ConfigError
from speciate.core.ports import Clock
from speciate.core.segment import Segment, Tier
from speciate.costs.pass_table import PassTable
from speciate.models.catalog import is_diffusers_folder
from speciate.models.pocket import IMAGE_DIR, IMAGE_STYLES
from speciate.runtime.device import Device
from speciate.runtime.gateway import ServedModel
from speciate.runtime.model_shelf import LoadedShelf
from speciate.runtime.painter import Painter
from speciate.runtime.picture_door import PictureDoor
from speciate.runtime.shared_device import SharedDevice
from speciate.scheduling.denoise.options import DenoiseOptions
from speciate.scheduling.denoise.scheduler import DenoiseScheduler
from speciate.scheduling.device.arbiter import Arbiter
from speciate.telemetry.metrics import Metrics
from speciate.telemetry.picture_metrics import PictureMetrics

log = logging.getLogger(__name__)

POCKET_IMAGE_FOLDERS = {"pocket-image": IMAGE_DIR} | {f"pocket-{style}": path for style, path in IMAGE_STYLES.items()}
"""Paths that stand for image models and adapters in the package."""


POCKET_IMAGE = ModelSettings(
    name="pocket-image",
    path="pocket-image",
    kind="image",
    adapters=tuple(AdapterSettings(f"pocket-{style}", f"pocket-{style}") for style in IMAGE_STYLES),
    image=ImageSettings(guidance=1.25),
)


class LoadedImageModel(Struct, frozen=True):
    """One settings entry, loaded and measured."""

    settings: ModelSettings
    folder: Path
    engine: ForesightedEngine
    passes: PassTable


def is_image_model(settings: ModelSettings) -> bool:
    """By its kind, or by its folder where a kind was left at its default."""
    return settings.kind == "image" or is_diffusers_folder(image_folder(settings.path))


def image_folder(path: str) -> Path:
    return POCKET_IMAGE_FOLDERS.get(path, Path(path).expanduser())


def load_image_model(settings: ModelSettings) -> LoadedImageModel:
    """Raises LoadFailed, and ConfigError where the extra is not installed."""
    started_s, folder = time.monotonic(), image_folder(settings.path)
    engine = load_image_engine(settings)
    passes: PassTable = _engine_module("calibrate").measure_passes(engine, _hardware())
    log.info("loaded %s from %s in %.1f s", settings.name, folder, time.monotonic() - started_s)
    return LoadedImageModel(settings, folder, engine, passes)


def load_image_engine(settings: ModelSettings) -> ForesightedEngine:
    """Raises LoadFailed, and ConfigError where the extra is not installed."""
    image, options = settings.image, _engine_module("options")
    adapters = tuple(options.LoraFolder(a.name, str(image_folder(a.path))) for a in settings.adapters)
    engine: ForesightedEngine = _engine_module("engine").DiffusersEngine.load(
        image_folder(settings.path),
        options.DiffusersOptions(
            model_name=settings.name,
            device=image.device,
            precision=image.precision,
            threads=settings.threads,
            adapters=adapters,
            default_steps=image.steps,
            default_guidance=image.guidance,
            max_rows=image.max_rows,
            max_size=image.max_size,
        ),
    )
    return engine


def picture_door(
    models: Sequence[LoadedImageModel], limits: PictureLimits, device: Device, clock: Clock, metrics: Metrics
) -> PictureDoor | None:
    """One painter and one scheduler for all of them; None without any."""
    if not models:
        return None
    engines = {model.settings.name: model.engine for model in models}
    options = DenoiseOptions(max_rows=min(engine.shape.max_rows for engine in engines.values()))
    table = PassTable(_hardware(), tuple(cell for model in models for cell in model.passes.cells))
    scheduler = DenoiseScheduler(table, options=options)
    painter = Painter(LoadedShelf(engines), scheduler, device, clock, watch=PictureMetrics(metrics))
    return PictureDoor(engines, painter, scheduler, limits, clock)


def share_device(door: PictureDoor, clock: Clock) -> SharedDevice:
    """The seats of a device that draws; text takes seats beside."""
    shared = SharedDevice(Arbiter(), clock)
    door.painter.sit(shared.seat("pictures", door.scheduler, door.painter.wake))
    return shared


def served_images(models: Sequence[LoadedImageModel], settings: Settings) -> list[ServedModel]:
    """Their own names, their aliases and their adapters."""
    return [served for model in models for served in _served(model, settings)]


def _served(model: LoadedImageModel, settings: Settings) -> list[ServedModel]:
    own, created = model.settings, int(model.folder.stat().st_mtime)
    segments: dict[Tier, Segment] = settings.image_segments(own)

    def named(name: str, root: Path, adapter: str | None = None) -> ServedModel:
        return ServedModel(
            name=name,
            base=own.name,
            kind="image",
            context_tokens=0,
            created=created,
            root=str(root),
            text=None,
            adapter=adapter,
            segments=segments,
            default_tier=own.default_tier,
            image=model.engine.shape,
        )

    names = [named(name, model.folder) for name in (own.name, *own.aliases)]
    return names + [named(a.name, image_folder(a.path), adapter=a.name) for a in own.adapters]


def _hardware() -> str:
    return platform.processor() or platform.machine()


def _engine_module(name: str) -> ModuleType:
    """Imported only where an image model is named: the extra may not be installed."""
    try:
        return importlib.import_module(f"speciate.engines.diffusers.{name}")
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"Image models need torch and diffusers ({error.name} is missing): pip install 'speciate[image]'."
        ) from error
