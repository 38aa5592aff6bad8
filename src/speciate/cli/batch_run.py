"""`speciate batch run FILE`: the same durable path in this process, its store beside the output. Killed and started
again it goes on where it was; nothing runs twice that was finished."""

import argparse
import asyncio
import hashlib
import json
import logging
import shutil
import signal
from pathlib import Path
from typing import Literal

import msgspec

from speciate.assembly import api_options, build_server, load_model
from speciate.assembly_batches import notice_s, open_batches
from speciate.batch.files import derived_file_id
from speciate.batch.jobs import BatchJobs
from speciate.batch.publish import published_kinds
from speciate.batch.records import TERMINAL, BatchRecord, BatchSpec, BatchStatus
from speciate.cli.batch_progress import BatchProgress
from speciate.config import BatchSettings, ModelSettings, Settings, load_settings
from speciate.core.errors import ConfigError, InvalidRequest, NotFound

STOPPED = 143
"""As of a process that SIGTERM ended."""
WINDOW_S = 366 * 86_400.0
POLL_S = 0.2
COPY_BYTES = 1 << 20
UNLIMITED = 1 << 40
SUFFIXES = {"ou": "", "er": ".errors", "pr": ".provenance"}


def run_file(given: argparse.Namespace) -> int:
    """Status 0 when every line succeeded."""
    logging.basicConfig(level="WARNING", format="%(levelname)s %(name)s: %(message)s")
    output: Path = given.output or given.file.with_suffix(".out.jsonl")
    work = output.with_name(f".{output.name}.speciate")
    endpoint, model = _first_line(given.file)
    settings = _settings(given, endpoint, model, work)
    batch = asyncio.run(_run(settings, given.file, endpoint, output))
    if batch.status not in TERMINAL:
        done = f"{batch.counts.completed:,} of {batch.counts.total:,} lines"
        print(f"stopped at {done}; the same command goes on from there")
        return STOPPED
    if batch.status is not BatchStatus.COMPLETED:
        for error in batch.errors:
            print(f"line {error.line}: {error.code}: {error.message}")
        return 1
    shutil.rmtree(work)
    print(f"{output}: {batch.counts.completed:,} lines, {batch.counts.unsuccessful:,} failed")
    return 1 if batch.counts.unsuccessful else 0


async def _run(settings: Settings, source: Path, endpoint: str, output: Path) -> BatchRecord:
    server = build_server(settings, [await asyncio.to_thread(load_model, model) for model in settings.models])
    server.start()
    try:
        async with open_batches(settings, api_options(settings), server.gateway, server.metrics) as jobs:
            stopped = _stop_in_time(settings, jobs)
            batch = await _filed(jobs, source, endpoint)
            batch = await _until_over(jobs, batch, stopped)
            if batch.status in TERMINAL:
                await asyncio.to_thread(_deliver, jobs, batch, output)
            await jobs.left()
            return batch
    finally:
        await server.stop()


async def _filed(jobs: BatchJobs, source: Path, endpoint: str) -> BatchRecord:
    """The batch of this very file: the one that was begun before, or a new one."""
    digest = await asyncio.to_thread(_digest, source)
    file_id = f"file-{digest[:24]}"
    try:
        await jobs.find_file("", file_id)
    except NotFound:
        await _store(jobs, source, file_id)
    spec = BatchSpec(endpoint, file_id, "none", WINDOW_S)
    return await jobs.create_batch("", spec, digest)


async def _store(jobs: BatchJobs, source: Path, file_id: str) -> None:
    with jobs.begin_named_file(file_id) as part, source.open("rb") as file:
        while block := await asyncio.to_thread(file.read, COPY_BYTES):
            await asyncio.to_thread(part.write, block)
        await asyncio.to_thread(part.keep)
    await jobs.add_file(file_id, "", "batch", source.name, part.num_bytes, None)


def _stop_in_time(settings: Settings, jobs: BatchJobs) -> asyncio.Event:
    """At SIGTERM no more lines are begun, and those that fit in the notice are finished."""
    stopped = asyncio.Event()

    def told() -> None:
        jobs.leave(notice_s(settings))
        stopped.set()

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told)
    return stopped


async def _until_over(jobs: BatchJobs, batch: BatchRecord, stopped: asyncio.Event) -> BatchRecord:
    """Or until it is to stop: then it is not over."""
    with BatchProgress() as progress:
        while True:
            counts = batch.counts
            progress.show(batch.status.value, counts.total, counts.completed, counts.unsuccessful)
            if batch.status in TERMINAL or stopped.is_set():
                return batch
            await asyncio.sleep(POLL_S)
            batch = await jobs.find_batch("", batch.id)


def _deliver(jobs: BatchJobs, batch: BatchRecord, output: Path) -> None:
    """Copies beside the output, each by a file that is renamed."""
    for kind in published_kinds(batch):
        target = output.with_name(output.stem + SUFFIXES[kind] + output.suffix)
        part = target.with_name(target.name + ".part")
        with jobs.open_file(derived_file_id(batch.id, kind)) as source, part.open("wb") as copy:
            shutil.copyfileobj(source, copy, COPY_BYTES)
        part.rename(target)


def _settings(given: argparse.Namespace, endpoint: str, model: str, work: Path) -> Settings:
    """One model under the name that the lines ask for, unless a settings file says otherwise."""
    settings = load_settings(given.config)
    changes = {"weights": given.weights, "kv_mib": given.kv_mib, "threads": given.threads}
    wanted = {key: value for key, value in changes.items() if value is not None}
    models = settings.models
    if given.config is None:
        kind: Literal["embed", "generate"] = "embed" if endpoint == "/v1/embeddings" else "generate"
        models = (ModelSettings(name=model, path=given.model, kind=kind),)
    batch = BatchSettings(
        directory=str(work), max_lines=2**31 - 1, max_file_mib=UNLIMITED, tenant_gib=UNLIMITED,
        input_expires_after_days=None, max_in_flight=settings.batch.max_in_flight,
    )  # fmt: skip
    here = msgspec.structs.replace(settings.markets.here, waits=False)
    return msgspec.structs.replace(
        settings,
        models=tuple(msgspec.structs.replace(m, **wanted) for m in models),
        batch=batch,
        markets=msgspec.structs.replace(settings.markets, here=here, offers=()),
    )


def _first_line(path: Path) -> tuple[str, str]:
    """Endpoint and model that the first line asks for."""
    try:
        with path.open("rb") as file:
            line = json.loads(file.readline())
        return str(line["url"]), str(line["body"]["model"])
    except OSError as error:
        raise ConfigError(f"Cannot read {path}: {error.strerror}. Check the path.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidRequest(f"The first line of {path} is no request of a batch: {error!r}.") from error


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
