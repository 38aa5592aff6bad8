"""What a process that died leaves behind, taken up by the next: a batch in each state, parts and orphans of files."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from speciate.batch.jobs import BatchJobs
from speciate.batch.line_job import LineJob
from speciate.batch.lines import LineAnswer
from speciate.batch.open import BatchPorts, open_jobs
from speciate.batch.options import BatchOptions
from speciate.batch.records import TERMINAL, BatchChange, BatchRecord, BatchSpec, BatchStatus, LineState, NewLine, Want
from speciate.batch.sql_store import SqlBatchStore
from speciate.batch.sqlite import SqliteDatabase
from speciate.core.errors import NotFound
from speciate.telemetry.metrics import BatchMetrics, Metrics

FILE_ID = "file-" + "0" * 24
NOW = 1_800_000_000.0


async def _answer(job: LineJob) -> LineAnswer:
    return LineAnswer(200, b'{"n":1}', job.request_id)


@asynccontextmanager
async def _open(folder: Path, run_line: object = _answer) -> AsyncGenerator[BatchJobs, None]:
    ports = BatchPorts(run_line, lambda model: None, {"m"}.__contains__)  # type: ignore[arg-type]
    options = BatchOptions(poll_s=0.02, cancel_grace_s=0.1)
    async with open_jobs(folder, None, ports, options, BatchMetrics(Metrics())) as jobs:
        yield jobs


def _line(number: int) -> bytes:
    line = {"custom_id": f"id-{number}", "method": "POST", "url": "/v1/completions", "body": {"model": "m"}}
    return json.dumps(line).encode() + b"\n"


async def _file(jobs: BatchJobs, num_lines: int) -> None:
    with jobs.begin_named_file(FILE_ID) as part:
        part.write(b"".join(_line(i) for i in range(num_lines)))
        part.keep()
    await jobs.add_file(FILE_ID, "", "batch", "in", part.num_bytes, None)


async def _over(jobs: BatchJobs, batch_id: str) -> BatchRecord:
    async with asyncio.timeout(20):
        while True:
            batch = await jobs.find_batch("", batch_id)
            if batch.status in TERMINAL:
                return batch
            await asyncio.sleep(0.02)


async def _left_in(folder: Path, status: BatchStatus, num_lines: int) -> str:
    """A store as a process leaves it that died while the batch was in this state."""
    async with _open(folder) as jobs:
        await _file(jobs, num_lines)
    database = SqliteDatabase(folder / "batch.db")
    store = SqlBatchStore(database)
    spec = BatchSpec("/v1/completions", FILE_ID, "24h", 86_400.0 * 365)
    batch = await store.add_batch("batch_" + "0" * 22, "", spec, NOW, None)
    await store.take("dead", (BatchStatus.VALIDATING,), NOW, 1e9)
    places = [NewLine(i, i, i * len(_line(0)), len(_line(0)) - 1) for i in range(num_lines)]
    await store.add_lines(batch.key, "dead", places if status is not BatchStatus.VALIDATING else places[:3])
    if status is not BatchStatus.VALIDATING:
        change = BatchChange(batch.key, (BatchStatus.VALIDATING,), BatchStatus.IN_PROGRESS, NOW, None, "m", num_lines)
        await store.change(change)
        await store.claim("dead", (Want(batch.key, 4),), NOW, 1e9)
    if status in (BatchStatus.CANCELLING, BatchStatus.FINALIZING):
        await store.change(BatchChange(batch.key, (BatchStatus.IN_PROGRESS,), status, NOW))
    await database.close()
    return batch.id


@pytest.mark.parametrize(
    ("status", "ends", "num_completed"),
    [
        (BatchStatus.VALIDATING, BatchStatus.COMPLETED, 9),
        (BatchStatus.IN_PROGRESS, BatchStatus.COMPLETED, 9),
        (BatchStatus.CANCELLING, BatchStatus.CANCELLED, 0),
        (BatchStatus.FINALIZING, BatchStatus.EXPIRED, 0),
    ],
)
async def test_a_batch_in_any_state_is_taken_up(
    tmp_path: Path, status: BatchStatus, ends: BatchStatus, num_completed: int
) -> None:
    batch_id = await _left_in(tmp_path, status, 9)
    async with _open(tmp_path) as jobs:
        done = await _over(jobs, batch_id)
        assert (done.status, done.counts.total, done.counts.completed, done.counts.open) == (ends, 9, num_completed, 0)
        assert sorted(done.marks.values()) == list(done.marks.values())


async def test_a_last_line_that_is_given_up_at_start_ends_its_batch(tmp_path: Path) -> None:
    """The process died with it once too often, and nothing else of the batch was open."""
    batch_id = await _left_in(tmp_path, BatchStatus.IN_PROGRESS, 1)
    database = SqliteDatabase(tmp_path / "batch.db")
    store = SqlBatchStore(database)
    for _ in range(4):
        await store.recover(NOW, 5)
        await store.claim("dead", (Want(1, 1, LineState.SUSPECT),), NOW, 30.0)
    await database.close()
    async with _open(tmp_path) as jobs:
        done = await _over(jobs, batch_id)
        assert (done.status, done.counts.failed) == (BatchStatus.COMPLETED, 1)


async def test_parts_and_files_that_nobody_was_told_of_are_removed(tmp_path: Path) -> None:
    async with _open(tmp_path) as jobs:
        await _file(jobs, 2)
    orphan, part = tmp_path / "files" / ("file-" + "1" * 24), tmp_path / "tmp" / "file-x.part"
    orphan.write_bytes(b"x")
    part.write_bytes(b"x")
    async with _open(tmp_path) as jobs:
        assert not orphan.exists()
        assert not part.exists()
        assert (await jobs.find_file("", FILE_ID)).num_bytes > 0  # type: ignore[union-attr]
        with pytest.raises(NotFound):
            jobs.open_file(orphan.name)


async def test_a_line_that_our_own_code_stumbles_over_ends_in_the_error_file(tmp_path: Path) -> None:
    async def stumble(job: LineJob) -> LineAnswer:
        if job.request_id.endswith("-1"):
            raise ZeroDivisionError
        return await _answer(job)

    async with _open(tmp_path, stumble) as jobs:
        await _file(jobs, 3)
        spec = BatchSpec("/v1/completions", FILE_ID, "24h", 86_400.0)
        done = await _over(jobs, (await jobs.create_batch("", spec, None)).id)
        assert (done.counts.completed, done.counts.failed) == (2, 1)


async def test_shutting_down_gives_lines_back_without_blame(tmp_path: Path) -> None:
    started = asyncio.Event()

    async def hang(job: LineJob) -> LineAnswer:
        started.set()
        await asyncio.sleep(60)
        return await _answer(job)

    async with _open(tmp_path, hang) as jobs:
        await _file(jobs, 3)
        batch = await jobs.create_batch("", BatchSpec("/v1/completions", FILE_ID, "24h", 86_400.0), None)
        async with asyncio.timeout(10):
            await started.wait()
    database = SqliteDatabase(tmp_path / "batch.db")
    claims = await SqlBatchStore(database).claim("next", (Want(batch.key, 9),), NOW, 30.0)
    await database.close()
    assert [(claim.attempt, claim.deaths) for claim in claims] == [(1, 0)] * 3


async def test_a_job_whose_model_is_not_here_waits(tmp_path: Path) -> None:
    batch_id = await _left_in(tmp_path, BatchStatus.IN_PROGRESS, 9)
    ports = BatchPorts(_answer, lambda model: None, {"other"}.__contains__)
    async with open_jobs(tmp_path, None, ports, BatchOptions(poll_s=0.02), BatchMetrics(Metrics())) as jobs:
        await asyncio.sleep(0.3)
        assert (await jobs.find_batch("", batch_id)).counts.open == 9
    async with _open(tmp_path) as jobs:
        assert (await _over(jobs, batch_id)).counts.completed == 9
