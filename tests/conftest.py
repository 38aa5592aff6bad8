"""Fixtures that several suites share: the real server with the pocket model, on a loopback port."""

import asyncio
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
import uvicorn

from speciate.api.app import create_app
from speciate.assembly import Server, api_options, bind, build_server, load_any
from speciate.batch.private_postgres import PrivatePostgres, find_binaries, private_postgres
from speciate.config import ModelSettings, ServerSettings, Settings
from speciate.image_assembly import POCKET_IMAGE


@dataclass
class RunningServer:
    """A server in a thread of its own; `url` is its root without /v1."""

    url: str
    server: Server


@pytest.fixture(scope="session")
def pocket_server() -> Iterator[RunningServer]:
    """Pocket model, adapter and embeddings, as `speciate serve` has them, in a thread of this process."""
    with serving(Settings().models) as running:
        yield running


@pytest.fixture(scope="session")
def pocket_image_server() -> Iterator[RunningServer]:
    """The pocket text model and the pocket image model on one device."""
    pytest.importorskip("diffusers", reason="the extra [image] is not installed")
    with serving((*Settings().models, POCKET_IMAGE)) as running:
        yield running


@contextmanager
def serving(models: tuple[ModelSettings, ...]) -> Iterator[RunningServer]:
    settings = msgspec.structs.replace(Settings(), models=models, server=ServerSettings(port=0))
    started, stopping = threading.Event(), threading.Event()
    running: list[RunningServer] = []
    thread = threading.Thread(target=lambda: asyncio.run(_serve(settings, running, started, stopping)), daemon=True)
    thread.start()
    assert started.wait(180), "the server did not start"
    yield running[0]
    stopping.set()
    thread.join(30)
    assert not thread.is_alive(), "the server did not stop"


async def _serve(
    settings: Settings, running: list[RunningServer], started: threading.Event, stopping: threading.Event
) -> None:
    server = build_server(settings, [load_any(model) for model in settings.models])
    server.start()
    listener = bind(settings.server)
    app = create_app(server.gateway, api_options(settings), server.metrics.render)
    http = uvicorn.Server(uvicorn.Config(app, log_level="error", ws="none", timeout_graceful_shutdown=5))
    running.append(RunningServer(f"http://127.0.0.1:{listener.getsockname()[1]}", server))
    serving = asyncio.create_task(http.serve(sockets=[listener]))
    started.set()
    await asyncio.to_thread(stopping.wait)
    http.should_exit = True
    await serving
    server.gateway.check()
    await server.stop()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PrivatePostgres]:
    """A real server from Debian's package, in a folder of its own that the user `postgres` may enter."""
    if find_binaries() is None:
        pytest.skip("Postgres is not installed (apt-get install postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="speciate-postgres-"))
    folder.chmod(0o755)
    with private_postgres(folder / "data") as running:
        yield running
    shutil.rmtree(folder)
