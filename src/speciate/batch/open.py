"""Opens the durable path: the database, the shelf, and all that works on them."""

import asyncio
import importlib
import os
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from msgspec import Struct

from speciate.batch.clock import WallClock
from speciate.batch.database import Database
from speciate.batch.files import FileShelf
from speciate.batch.jobs import BatchJobs, PredictRate, no_prediction
from speciate.batch.line_job import NumRunning, RunLine
from speciate.batch.market_sources import MarketBoard, open_board
from speciate.batch.meter import EnergyCounter, Meter
from speciate.batch.options import BatchOptions
from speciate.batch.publish import Publisher
from speciate.batch.sql_store import SqlBatchStore
from speciate.batch.sqlite import SqliteDatabase
from speciate.batch.steward import Steward
from speciate.batch.worker import Worker
from speciate.core.errors import ConfigError
from speciate.core.ports import Clock
from speciate.scaling.spec import MarketsSpec
from speciate.telemetry.metrics import BatchMetrics


class BatchPorts(Struct, frozen=True):
    """What the durable path needs of the rest."""

    run_line: RunLine
    num_running: NumRunning
    serves: Callable[[str], bool]
    predict_rate: PredictRate = no_prediction
    markets: MarketsSpec = MarketsSpec()
    energy: EnergyCounter | None = None


@asynccontextmanager
async def open_jobs(
    folder: Path,
    postgres_url: str | None,
    ports: BatchPorts,
    options: BatchOptions,
    metrics: BatchMetrics,
    clock: Clock | None = None,
) -> AsyncGenerator[BatchJobs, None]:
    """Started; stopped and closed at the end. What a dead process left behind is taken up at once.

    Raises ConfigError where another process has the folder or a file of the markets cannot be read, StoreUnavailable
    where Postgres is not there.
    """
    clock = clock or WallClock()
    board = await asyncio.to_thread(open_board, ports.markets, clock.now_s)
    database = await asyncio.to_thread(_open_database, folder, postgres_url)
    try:
        jobs = await _build(folder, database, ports, board, options, metrics, clock)
        loop = asyncio.get_running_loop()

        def ring() -> None:
            loop.call_soon_threadsafe(jobs.wake)

        database.listen(ring)
        jobs.start()
        try:
            yield jobs
        finally:
            await jobs.stop()
    finally:
        await database.close()


async def _build(
    folder: Path,
    database: Database,
    ports: BatchPorts,
    board: MarketBoard,
    options: BatchOptions,
    metrics: BatchMetrics,
    clock: Clock,
) -> BatchJobs:
    store, shelf = SqlBatchStore(database), FileShelf(folder)
    owns_store = isinstance(database, SqliteDatabase)
    if owns_store:
        reaped = await store.recover(clock.now_s(), options.max_deaths)
        metrics.reaped(reaped.num_suspects, reaped.num_poisoned)
        await _drop_orphans(store, shelf)
    await asyncio.to_thread(shelf.sweep, owns_folder=owns_store)
    name = f"{socket.gethostname()}-{os.getpid()}-{os.urandom(3).hex()}"
    worker = Worker(
        store,
        shelf,
        ports.run_line,
        ports.num_running,
        ports.serves,
        options,
        clock,
        metrics,
        Meter(lambda: board.usd_per_h_here(clock.now_s()), ports.energy),
        name=name,
        owns_store=owns_store,
    )
    publisher = Publisher(store, shelf)
    steward = Steward(store, shelf, publisher, options, clock, ports.serves, name=name, on_work=worker.wake)
    return BatchJobs(store, shelf, publisher, worker, steward, ports.predict_rate, board, options, clock)


async def _drop_orphans(store: SqlBatchStore, shelf: FileShelf) -> None:
    """Files whose process died between their last byte and their row: nobody was told of them."""
    for file_id in await asyncio.to_thread(shelf.stored_ids):
        if await store.find_file(file_id) is None:
            await asyncio.to_thread(shelf.remove, file_id)


def _open_database(folder: Path, postgres_url: str | None) -> Database:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        FileShelf(folder)
    except OSError as error:
        raise ConfigError(f"{folder} cannot hold files and batches: {error.strerror}. Set --data-dir.") from error
    if postgres_url is None:
        return SqliteDatabase(folder / "batch.db")
    postgres = importlib.import_module("speciate.batch.postgres")  # the optional extra
    database: Database = postgres.PostgresDatabase(postgres_url)
    return database
