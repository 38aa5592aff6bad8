"""The worker alone, over a real store: what it holds at once."""

import asyncio
import json
from pathlib import Path

import pytest

from speciate.batch.clock import WallClock
from speciate.batch.files import FileShelf
from speciate.batch.line_job import LineJob, RunLine
from speciate.batch.lines import LineAnswer
from speciate.batch.meter import Meter
from speciate.batch.options import BatchOptions
from speciate.batch.order import Credit
from speciate.batch.records import BatchChange, BatchSpec, BatchStatus, LineResult, NewLine
from speciate.batch.sql_store import SqlBatchStore
from speciate.batch.sqlite import SqliteDatabase
from speciate.batch.worker import Worker
from speciate.telemetry.metrics import BatchMetrics, Metrics

FILE_ID = "file-" + "0" * 24
NUM_LINES = 40
CREDIT = Credit(least=4, most=4)


class SlowStore(SqlBatchStore):
    """Whose disk takes nothing for a while."""

    def __init__(self, database: SqliteDatabase) -> None:
        super().__init__(database)
        self.disk_is_free = asyncio.Event()

    async def finish(self, results: list[LineResult], now_s: float) -> list[bool]:
        await self.disk_is_free.wait()
        return await super().finish(results, now_s)


async def _batch_in_progress(store: SqlBatchStore, shelf: FileShelf, tenant: str = "") -> str:
    line = {"custom_id": "x", "method": "POST", "url": "/v1/completions", "body": {"model": "m"}}
    data = json.dumps(line).encode()
    with shelf.begin(FILE_ID) as part:
        part.write(data * NUM_LINES)
        part.keep()
    now_s = WallClock().now_s()
    spec = BatchSpec("/v1/completions", FILE_ID, "24h", 86_400.0)
    batch = await store.add_batch(f"batch_{tenant}", tenant, spec, now_s, None)
    await store.take("me", (BatchStatus.VALIDATING,), now_s, 60.0)
    await store.add_lines(batch.key, "me", [NewLine(i, i, i * len(data), len(data)) for i in range(NUM_LINES)])
    sources = (BatchStatus.VALIDATING,)
    await store.change(BatchChange(batch.key, sources, BatchStatus.IN_PROGRESS, now_s, "me", "m", NUM_LINES))
    return batch.id


def _worker(store: SqlBatchStore, shelf: FileShelf, run_line: RunLine, options: BatchOptions) -> Worker:
    return Worker(
        store, shelf, run_line, lambda model: None, {"m"}.__contains__, options, WallClock(), BatchMetrics(Metrics()),
        Meter(lambda: None, None), name="w", owns_store=True,
    )  # fmt: skip


async def test_the_engine_goes_on_while_results_wait_for_the_disk(tmp_path: Path) -> None:
    """Answered lines do not count as in flight; but of those too there is a bound."""
    answered: list[str] = []

    async def answer(job: LineJob) -> LineAnswer:
        answered.append(job.request_id)
        return LineAnswer(200, b"{}", job.request_id)

    database, shelf = SqliteDatabase(tmp_path / "batch.db"), FileShelf(tmp_path)
    store = SlowStore(database)
    batch_id = await _batch_in_progress(store, shelf)
    options = BatchOptions(poll_s=0.02, credit=CREDIT)
    worker = _worker(store, shelf, answer, options)
    worker.start()
    async with asyncio.timeout(20):
        while len(answered) < CREDIT.most_held:  # noqa: ASYNC110 -- the worker's own pace is what is looked at
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        assert len(answered) == CREDIT.most_held
        store.disk_is_free.set()
        while (batch := await store.find_batch(batch_id)) is None or batch.counts.open:  # noqa: ASYNC110 -- as above
            await asyncio.sleep(0.01)
    await worker.stop()
    await database.close()
    assert len(answered) == NUM_LINES


@pytest.mark.parametrize("starts_at", [0, 30])
async def test_tenants_jobs_share_the_engine_from_when_both_are_there(tmp_path: Path, starts_at: int) -> None:
    """Who files later neither waits for the other's job, nor is given what he had not asked for before."""
    answered: list[str] = []
    second_may_come, both_done = asyncio.Event(), asyncio.Event()

    async def answer(job: LineJob) -> LineAnswer:
        answered.append(job.tenant)
        if len(answered) == starts_at:
            second_may_come.set()
        if len(answered) == 2 * NUM_LINES:
            both_done.set()
        await asyncio.sleep(0.001)
        return LineAnswer(200, b"{}", job.request_id)

    database, shelf = SqliteDatabase(tmp_path / "batch.db"), FileShelf(tmp_path)
    store = SqlBatchStore(database)
    await _batch_in_progress(store, shelf, "a")
    worker = _worker(store, shelf, answer, BatchOptions(poll_s=0.01, credit=Credit(least=1, most=1)))
    if starts_at == 0:
        second_may_come.set()
    else:
        worker.start()
    async with asyncio.timeout(30):
        await second_may_come.wait()
        await _batch_in_progress(store, shelf, "b")
        num_before = len(answered)
        if starts_at == 0:
            worker.start()
        await both_done.wait()
    await worker.stop()
    await database.close()
    together = answered[num_before + 2 :][:14]  # what was claimed before it came still runs
    assert abs(together.count("a") - together.count("b")) <= 3, answered
