"""Builds the objects from settings and runs them: the one place that knows every package.

settings -> engines, schedulers -> replicas -> gateway -> app -> uvicorn
"""

import asyncio
import errno
import importlib
import logging
import signal
import socket
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import FrameType

import uvicorn
from msgspec import Struct

from speciate import __version__
from speciate.api.app import create_app
from speciate.api.options import ApiKey, ApiOptions
from speciate.assembly_batches import leaving_in_time, notice_s, open_batches
from speciate.batch.jobs import BatchJobs
from speciate.config import (
    ModelSettings,
    ServerSettings,
    Settings,
    api_keys,
    batch_postgres_url,
)
from speciate.core.engine import EmbedEngine, StepEngine
from speciate.core.errors import ConfigError, LoadFailed
from speciate.core.ports import Clock
from speciate.core.segment import Segment, Tier
from speciate.engines.openvino.embedder import OpenVinoEmbedder
from speciate.engines.openvino.engine import OpenVinoEngine
from speciate.engines.openvino.options import AdapterFolder, EmbedOptions, OpenVinoOptions
from speciate.image_assembly import (
    LoadedImageModel,
    is_image_model,
    load_image_model,
    picture_door,
    served_images,
    share_device,
)
from speciate.models.catalog import read_model_folder
from speciate.models.pocket import TEXT_ADAPTER_DIR, TEXT_DIR
from speciate.models.text_model import TextModel, load_text_model
from speciate.runtime.clock import MonotonicClock
from speciate.runtime.device import Device
from speciate.runtime.embedder import Embedder
from speciate.runtime.garbage import collect_seldom
from speciate.runtime.gateway import Gateway, ServedModel
from speciate.runtime.replica import Replica
from speciate.runtime.shared_device import SharedDevice
from speciate.scheduling.device.shared_tokens import SharedTokenScheduler
from speciate.scheduling.token import TokenScheduler
from speciate.telemetry.export import OtelOptions, RequestExporter
from speciate.telemetry.metrics import Metrics, ReplicaMetrics

log = logging.getLogger(__name__)

POCKET_FOLDERS = {"pocket": TEXT_DIR, "pocket-delivery": TEXT_ADAPTER_DIR}
"""Paths that stand for models in the package."""

WARM_TOKENS = 128
"""Sizes of steps that are tried while loading: those that real-time work meets."""
WARM_S = 1.0
"""And larger ones for so long at most: those up to some 500 tokens of a small model (docs/decisions/0016)."""

BACKLOG = 4096
"""Connections that may wait to be accepted; those that come while models load wait here too."""


class LoadedModel(Struct, frozen=True):
    """One settings entry, loaded: its engines and what the front door needs of it."""

    settings: ModelSettings
    folder: Path
    text: TextModel
    engine: StepEngine | None
    embed_engine: EmbedEngine | None


class Server(Struct, frozen=True):
    """A gateway with all that belongs to it. `start` on the event loop, `stop` once."""

    gateway: Gateway
    device: Device
    metrics: Metrics

    def start(self) -> None:
        self.gateway.start()

    async def stop(self) -> None:
        await self.gateway.stop()
        await self.device.close()
        if self.metrics.exporter is not None:
            await asyncio.to_thread(self.metrics.exporter.close)


def serve(settings: Settings) -> int:
    """Load, listen, serve until SIGTERM or SIGINT, drain; gives the exit status. Raises ConfigError, LoadFailed, and
    KeyboardInterrupt for a SIGINT while models load."""
    listener = bind(settings.server)
    server = build_server(settings, [load_any(model) for model in settings.models])
    front = _Front(_uvicorn_config(settings.server, notice_s(settings)))
    front.take_signals()
    collect_seldom()
    with asyncio.Runner(loop_factory=front.config.get_loop_factory()) as runner:
        runner.run(_run(settings, server, front, listener))
    return 130 if signal.SIGINT in front.received else 0


async def _run(settings: Settings, server: Server, front: "_Front", listener: socket.socket) -> None:
    server.start()
    try:
        async with AsyncExitStack() as stack:
            jobs = await _enter_batches(stack, settings, server)
            if jobs is not None:
                front.on_signal = partial(_leave, settings, jobs)
                await stack.enter_async_context(leaving_in_time(settings, jobs, front.drain))
            front.config.app = create_app(server.gateway, api_options(settings), server.metrics.render, jobs)
            host, port = listener.getsockname()[:2]
            log.info("speciate %s serves %s at http://%s:%d/v1", __version__, _names(server.gateway), host, port)
            await front.serve(sockets=[listener])
    finally:
        await server.stop()


def _leave(settings: Settings, jobs: BatchJobs, number: int) -> None:
    """Who pressed Ctrl-C does not wait for batch lines."""
    jobs.leave(0.0 if number == signal.SIGINT else notice_s(settings))


class _Front(uvicorn.Server):
    """Takes signals before the event loop runs and keeps them until all is stopped: uvicorn alone would let one that
    comes early break its start, and end the process by one that it has obeyed before the gateway is stopped."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.received: list[int] = []
        self.on_signal: Callable[[int], None] | None = None
        """Called on the event loop."""

    def take_signals(self) -> None:
        """From here on SIGINT and SIGTERM drain; a second SIGINT ends what still runs."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._receive)

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received.append(number)
        self.handle_exit(number, frame)
        if self.on_signal is not None:
            asyncio.get_running_loop().call_soon_threadsafe(self.on_signal, number)

    def drain(self) -> None:
        """As at SIGTERM."""
        self.should_exit = True


def bind(server: ServerSettings) -> socket.socket:
    """A listening socket, before anything slow is done. Raises ConfigError where the address cannot be had."""
    family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((server.host, server.port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        is_taken = error.errno == errno.EADDRINUSE
        hint = "Stop what uses it, or choose another --port." if is_taken else "Choose another --host or --port."
        raise ConfigError(f"Cannot listen on {server.host}:{server.port}: {error.strerror}. {hint}") from error
    return listener


def load_any(settings: ModelSettings) -> LoadedModel | LoadedImageModel:
    """Read the folder and load its engines. Raises LoadFailed, and ConfigError where an extra is not installed."""
    return load_image_model(settings) if is_image_model(settings) else load_model(settings)


def load_model(settings: ModelSettings) -> LoadedModel:
    """Read the folder and load its engines. Raises LoadFailed."""
    folder = POCKET_FOLDERS.get(settings.path, Path(settings.path).expanduser())
    started_s = time.monotonic()
    facts = read_model_folder(folder)
    text = load_text_model(facts)
    generates = settings.kind in ("generate", "both")
    if generates and facts.kind != "decoder":
        raise LoadFailed(f"{folder} holds a {facts.architecture}, which writes no text; set kind: embed for it.")
    loaded = LoadedModel(
        settings=settings,
        folder=folder,
        text=text,
        engine=OpenVinoEngine.load(folder, _engine_options(settings)) if generates else None,
        embed_engine=OpenVinoEmbedder.load(folder, _embed_options(settings)) if settings.kind != "generate" else None,
    )
    log.info("loaded %s from %s in %.1f s", settings.name, folder, time.monotonic() - started_s)
    return loaded


def build_server(settings: Settings, loaded: Sequence[LoadedModel | LoadedImageModel]) -> Server:
    """Replicas on one device, and the gateway in front of them."""
    models = [model for model in loaded if isinstance(model, LoadedModel)]
    device, clock = Device("cpu"), MonotonicClock()
    metrics = Metrics(_exporter(settings.telemetry.otel, clock))
    metrics.build.labels(__version__).set(1)
    images = [model for model in loaded if isinstance(model, LoadedImageModel)]
    pictures = picture_door(images, settings.admission.pictures, device, clock, metrics)
    shared = None if pictures is None else share_device(pictures, clock)
    replicas = {
        m.settings.name: _replica(m, m.engine, settings, device, clock, metrics, shared)
        for m in models
        if m.engine is not None
    }
    embedders = {m.settings.name: Embedder(m.embed_engine, device, clock) for m in models if m.embed_engine is not None}
    served = [s for m in models for s in _served(m, settings.model_segments(m.settings))]
    gateway = Gateway(
        (*served, *served_images(images, settings)),
        replicas,
        embedders,
        settings.admission,
        clock,
        metrics,
        pictures,
    )
    return Server(gateway, device, metrics)


def _replica(
    model: LoadedModel,
    engine: StepEngine,
    settings: Settings,
    device: Device,
    clock: Clock,
    metrics: Metrics,
    shared: SharedDevice | None,
) -> Replica:
    """Beside image models it takes its turns by the arbiter's word."""
    name = model.settings.name
    alone = TokenScheduler(engine.shape, settings.scheduler_of(name, *model.settings.aliases))
    scheduler = alone if shared is None else SharedTokenScheduler(alone)
    replica = Replica(engine, scheduler, model.text.tokenizer, device, clock, ReplicaMetrics(metrics, name))
    if shared is not None and isinstance(scheduler, SharedTokenScheduler):
        replica.sit(shared.seat(name, scheduler, replica.wake, scheduler.allow))
    return replica


async def _enter_batches(stack: AsyncExitStack, settings: Settings, server: Server) -> BatchJobs | None:
    """A second server on a machine goes without batches, unless it was told where to keep them."""
    if not settings.batch.enabled:
        return None
    try:
        opened = open_batches(settings, api_options(settings), server.gateway, server.metrics)
        return await stack.enter_async_context(opened)
    except ConfigError as error:
        if settings.batch.directory is not None or batch_postgres_url() is not None:
            raise
        log.warning("files and batches are not served: %s", error.message)
        return None


def _exporter(options: OtelOptions | None, clock: Clock) -> RequestExporter | None:
    """Imported only where it is wanted: the extra may not be installed. Raises ConfigError then."""
    if options is None:
        return None
    try:
        otel = importlib.import_module("speciate.telemetry.otel")
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"telemetry.otel needs OpenTelemetry's SDK ({error.name} is missing): pip install 'speciate[otel]'."
        ) from error
    exporter: RequestExporter = otel.otlp_exporter(options, clock)
    return exporter


def api_options(settings: Settings) -> ApiOptions:
    """The front door's options; keys come from the environment."""
    server = settings.server
    return ApiOptions(
        api_keys=tuple(ApiKey(key, tenant=f"key-{number}") for number, key in enumerate(api_keys())),
        max_body_bytes=round(server.max_body_mib * 2**20),
        heartbeat_s=server.heartbeat_s,
        write_stall_s=server.write_stall_s,
        cors_origins=server.cors_origins,
    )


def _served(model: LoadedModel, segments: dict[Tier, Segment]) -> list[ServedModel]:
    """The model's own name, its aliases and its adapters."""
    settings, created = model.settings, int(model.folder.stat().st_mtime)
    context = _context_tokens(model)

    def named(name: str, root: Path, adapter: str | None = None) -> ServedModel:
        return ServedModel(
            name=name,
            base=settings.name,
            kind="generate" if model.engine is not None else "embed",
            context_tokens=context,
            created=created,
            root=str(root),
            text=model.text,
            adapter=adapter,
            segments=segments,
            default_tier=settings.default_tier,
        )

    names = [named(name, model.folder) for name in (settings.name, *settings.aliases)]
    return names + [named(a.name, _adapter_path(a.path), adapter=a.name) for a in settings.adapters]


def _context_tokens(model: LoadedModel) -> int:
    if model.engine is not None:
        return model.engine.shape.context_tokens
    if model.embed_engine is not None:
        return model.embed_engine.context_tokens
    raise LoadFailed(f"{model.settings.name} has no engine; this is a bug.")


def _engine_options(settings: ModelSettings) -> OpenVinoOptions:
    return OpenVinoOptions(
        weights=settings.weights,
        kv=settings.kv,
        kv_bytes=round(settings.kv_mib * 2**20),
        threads=settings.threads,
        max_context_tokens=settings.max_context_tokens,
        adapters=tuple(AdapterFolder(a.name, _adapter_path(a.path)) for a in settings.adapters),
        model_name=settings.name,
        warm_tokens=WARM_TOKENS,
        warm_s=WARM_S,
    )


def _embed_options(settings: ModelSettings) -> EmbedOptions:
    return EmbedOptions(
        weights=settings.weights,
        threads=settings.threads,
        max_context_tokens=settings.max_context_tokens,
        pooling=settings.pooling,
        model_name=settings.name,
    )


def _adapter_path(path: str) -> Path:
    return POCKET_FOLDERS.get(path, Path(path).expanduser())


def _uvicorn_config(server: ServerSettings, notice_s: float) -> uvicorn.Config:
    return uvicorn.Config(
        _not_ready,  # replaced once there is an event loop to build the app on
        log_level=server.log_level,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=max(1, round(min(server.drain_s, notice_s))),
        timeout_keep_alive=75,
        backlog=BACKLOG,
        ws="none",
    )


async def _not_ready(scope: object, receive: object, send: object) -> None:
    raise RuntimeError("the app was asked before it was built; this is a bug")


def _names(gateway: Gateway) -> str:
    return ", ".join(model.name for model in gateway.served())
