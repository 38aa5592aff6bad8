"""A job waits for cheaper hours of its machine: the whole durable path in one process, with a clock that is set."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from speciate.batch.files import derived_file_id
from speciate.batch.jobs import BatchJobs
from speciate.batch.line_job import LineJob
from speciate.batch.lines import LineAnswer
from speciate.batch.open import BatchPorts, open_jobs
from speciate.batch.options import BatchOptions
from speciate.batch.order import Credit
from speciate.batch.records import BatchRecord, BatchSpec, BatchStatus
from speciate.scaling.spec import parse_markets
from speciate.scaling.ways import AT_ONCE, CHEAP
from speciate.telemetry.metrics import BatchMetrics, Metrics

HOUR_S = 3600.0
NOON_S = 1_800_000_000.0 + 4 * HOUR_S
MARKETS = {"here": {"hourly": [{"hour": 6, "value": 0.3}, {"hour": 22, "value": 0.1}]}}
NUM_LINES = 1500


class SetClock:
    """Goes on from noon, and may be moved."""

    def __init__(self) -> None:
        self._shift_s = NOON_S - time.monotonic()

    def now_s(self) -> float:
        return time.monotonic() + self._shift_s

    def move(self, hours: float) -> None:
        self._shift_s += hours * HOUR_S


async def _answer(job: LineJob) -> LineAnswer:
    await asyncio.sleep(0.02)
    return LineAnswer(200, b'{"n":1}', job.request_id)


@asynccontextmanager
async def _open(folder: Path, clock: SetClock, tree: Any) -> AsyncGenerator[BatchJobs, None]:
    ports = BatchPorts(_answer, lambda model: None, {"m"}.__contains__, markets=parse_markets(tree))
    options = BatchOptions(poll_s=0.02, credit=Credit(least=4, most=4))
    async with open_jobs(folder, None, ports, options, BatchMetrics(Metrics()), clock) as jobs:
        yield jobs


async def _file(jobs: BatchJobs) -> str:
    file_id, part = jobs.begin_file()
    with part:
        for i in range(NUM_LINES):
            line = {"custom_id": f"id-{i}", "method": "POST", "url": "/v1/completions", "body": {"model": "m"}}
            part.write(json.dumps(line).encode() + b"\n")
        part.keep()
    await jobs.add_file(file_id, "", "batch", "in", part.num_bytes, None)
    return file_id


async def _until_waiting(jobs: BatchJobs, batch_id: str) -> BatchRecord:
    """First its pace is learnt, then it waits: no line ends for a second."""
    num_done = -1
    for _ in range(60):
        batch = await jobs.find_batch("", batch_id)
        if batch.counts.completed == num_done > 0:
            return batch
        num_done = batch.counts.completed
        await asyncio.sleep(1.0)
    raise AssertionError(batch)


async def _until_over(jobs: BatchJobs, batch_id: str) -> BatchRecord:
    for _ in range(600):
        batch = await jobs.find_batch("", batch_id)
        if batch.status is BatchStatus.COMPLETED:
            return batch
        await asyncio.sleep(0.1)
    raise AssertionError(batch)


async def test_a_job_with_slack_waits_for_the_night_and_then_runs(tmp_path: Path) -> None:
    clock = SetClock()
    async with _open(tmp_path, clock, MARKETS) as jobs:
        file_id = await _file(jobs)
        filed = await jobs.create_batch("", BatchSpec("/v1/completions", file_id, "24h", 86_400.0), None)
        waiting = await _until_waiting(jobs, filed.id)
        assert 0 < waiting.counts.completed < NUM_LINES
        outlook = jobs.outlook_of(waiting)
        assert outlook is not None
        assert outlook.stance is not None
        assert not outlook.stance.may_run
        assert outlook.stance.cheaper_s is not None
        assert abs(outlook.stance.cheaper_s - (NOON_S + 10 * HOUR_S)) < 1000
        estimate = await jobs.estimate("", file_id, 86_400.0)
        assert [way.name for way in estimate.ways if way.is_done_here] == [CHEAP]
        assert {way.name for way in estimate.ways} == {AT_ONCE, CHEAP}
        clock.move(10.5)
        done = await _until_over(jobs, filed.id)
        assert done.counts.completed == NUM_LINES
        assert jobs.outlook_of(done) is None
        with jobs.open_file(derived_file_id(filed.id, "pr")) as file:
            rows = [msgspec.json.decode(line) for line in file.read().splitlines()]
    assert [row["index"] for row in rows] == list(range(NUM_LINES))
    assert all(row["price_usd"] > 0 for row in rows)
    assert sum(row["price_usd"] for row in rows) < 0.3 / 60


async def test_a_server_that_does_not_wait_runs_it_by_day(tmp_path: Path) -> None:
    tree = {"here": {**MARKETS["here"], "waits": False}}
    async with _open(tmp_path, SetClock(), tree) as jobs:
        file_id = await _file(jobs)
        filed = await jobs.create_batch("", BatchSpec("/v1/completions", file_id, "24h", 86_400.0), None)
        assert (await _until_over(jobs, filed.id)).counts.completed == NUM_LINES
