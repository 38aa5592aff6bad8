"""The worker alone, over a real store: what it holds at once."""

import asyncio
import json
from pathlib import Path

from speciate.batch.clock import WallClock
from speciate.batch.files import FileShelf
from speciate.batch.lines import LineAnswer
from speciate.batch.options import BatchOptions
from speciate.batch.order import Credit
from speciate.batch.records import BatchChange, BatchSpec, BatchStatus, LineResult, NewLine
from speciate.batch.sql_store import SqlBatchStore
from speciate.batch.sqlite import SqliteDatabase
from speciate.batch.worker import LineJob, Worker
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


async def _batch_in_progress(store: SqlBatchStore, shelf: FileShelf) -> str:
    line = {"custom_id": "x", "method": "POST", "url": "/v1/completions", "body": {"model": "m"}}
    data = json.dumps(line).encode()
    with shelf.begin(FILE_ID) as part:
        part.write(data * NUM_LINES)
        part.keep()
    now_s = WallClock().now_s()
    batch = await store.add_batch("batch_1", "", BatchSpec("/v1/completions", FILE_ID, "24h", 86_400.0), now_s, None)
    await store.take("me", (BatchStatus.VALIDATING,), now_s, 60.0)
    await store.add_lines(batch.key, "me", [NewLine(i, i, i * len(data), len(data)) for i in range(NUM_LINES)])
    sources = (BatchStatus.VALIDATING,)
    await store.change(BatchChange(batch.key, sources, BatchStatus.IN_PROGRESS, now_s, "me", "m", NUM_LINES))
    return batch.id


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
    worker = Worker(
        store, shelf, answer, lambda model: None, {"m"}.__contains__, options, WallClock(), BatchMetrics(Metrics()),
        name="w", owns_store=True,
    )  # fmt: skip
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
