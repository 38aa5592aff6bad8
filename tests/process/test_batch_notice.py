"""A worker whose machine goes: real processes on Postgres and SQLite. Nothing is lost, nothing runs twice to its
end, and nobody waits for a lease.
"""

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import openai
import pytest
from tests.metadata_service import Metadata, metadata_service

from speciate.batch.private_postgres import PrivatePostgres
from speciate.bench.server import free_port, running_server

SCRIPT = Path(__file__).with_name("batch_server.py")
LEASE_S = "300"
"""So long that a test that waits for its end fails."""
NUM_LINES = 120


class Machine:
    """A server process, and a client of it."""

    def __init__(self, folder: Path, *flags: str, env: dict[str, str] | None = None) -> None:
        port = free_port()
        self.name = f"port-{port}"
        self.client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0)
        command = [sys.executable, str(SCRIPT), str(port), str(folder), "--lease-s", LEASE_S, *flags]
        self.process = subprocess.Popen(command, env={**os.environ, **(env or {})})

    def until_ready(self) -> None:
        for _ in range(600):
            with contextlib.suppress(openai.APIError):
                self.client.models.list()
                return
            time.sleep(0.05)
        raise AssertionError("not ready")

    def file_job(self, num_lines: int = NUM_LINES) -> str:
        text = "".join(json.dumps(_line(i)) + "\n" for i in range(num_lines))
        file = self.client.files.create(file=("in.jsonl", text.encode()), purpose="batch")
        batch = self.client.batches.create(
            input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        return batch.id

    def until(self, batch_id: str, num_done: int, timeout_s: float = 60.0) -> Any:
        """The batch once so many lines are done; all of them: once it is over."""
        ends = time.monotonic() + timeout_s
        while time.monotonic() < ends:
            batch = self.client.batches.retrieve(batch_id)
            done = batch.request_counts.completed if batch.request_counts else 0
            if batch.status == "completed" or (num_done < NUM_LINES and done >= num_done):
                return batch
            time.sleep(0.02)
        raise AssertionError(batch)

    def ends_within(self, seconds: float) -> float:
        began_s = time.monotonic()
        self.process.wait(seconds)
        return time.monotonic() - began_s

    def close(self) -> None:
        self.client.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(30)


def _line(index: int) -> dict[str, Any]:
    body = {"model": "fake", "max_tokens": 4, "messages": [{"role": "user", "content": f"line {index}"}]}
    return {"custom_id": f"id-{index}", "method": "POST", "url": "/v1/chat/completions", "body": body}


def _rows(machine: Machine, file_id: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in machine.client.files.content(file_id).text.splitlines()]


def _check(machine: Machine, batch: Any) -> list[dict[str, Any]]:
    """Every line once, in order, at its first attempt; gives the provenance."""
    assert batch.request_counts.failed == 0
    assert [row["custom_id"] for row in _rows(machine, batch.output_file_id)] == [f"id-{i}" for i in range(NUM_LINES)]
    rows = _rows(machine, batch.provenance_file_id)
    assert [row["index"] for row in rows] == list(range(NUM_LINES))
    assert {(row["attempt"], row["deaths"]) for row in rows} == {(1, 0)}
    return rows


@pytest.fixture
def two(tmp_path: Path, postgres_server: PrivatePostgres, request: pytest.FixtureRequest) -> Iterator[list[Machine]]:
    """On one Postgres; a line takes a second and a half."""
    url = postgres_server.create_database(f"notice_{request.node.name[:40].lower()}")
    (tmp_path / "data").mkdir()
    flags = ("--in-flight", "8", "--step-s", "0.3")
    env = {"SPECIATE_BATCH_POSTGRES": url}
    spot = Machine(tmp_path / "data", *flags, "--notice-s", "8", "--market", "spot", "--usd-per-h", "0.9", env=env)
    other = Machine(tmp_path / "data", *flags, env=env)
    machines = [spot, other]
    for machine in machines:
        machine.until_ready()
    yield machines
    for machine in machines:
        machine.close()


def test_a_told_worker_finishes_what_fits_and_another_goes_on(two: list[Machine]) -> None:
    spot, other = two
    batch_id = other.file_job()
    other.until(batch_id, 16)
    spot.process.send_signal(signal.SIGTERM)
    told_at = time.time()
    assert spot.ends_within(20) < 8
    rows = _check(other, other.until(batch_id, NUM_LINES))
    by_spot = [row for row in rows if row["replica"] == spot.name]
    assert any(row["finished_at"] > told_at for row in by_spot), "what ran was not finished"
    assert all(row["finished_at"] <= told_at + 8 for row in by_spot)
    assert {row["market"] for row in by_spot} == {"spot"}
    assert all(0 < row["price_usd"] < 0.9 * row["seconds"] / 3600 for row in by_spot)
    elsewhere = [row for row in rows if row["replica"] == other.name]
    assert {(row["market"], row["price_usd"]) for row in elsewhere} == {("dedicated", None)}
    assert len(by_spot) + len(elsewhere) == NUM_LINES


def test_without_time_to_finish_all_is_handed_back_at_once(two: list[Machine], tmp_path: Path) -> None:
    """Lines of this machine take ten times as long as its notice."""
    spot, other = two
    flags = ("--in-flight", "8", "--step-s", "4", "--notice-s", "2")
    slow = Machine(tmp_path / "data", *flags, env={"SPECIATE_BATCH_POSTGRES": _url_of(other)})
    try:
        slow.until_ready()
        batch_id = other.file_job()
        other.until(batch_id, 16)
        slow.process.send_signal(signal.SIGTERM)
        assert slow.ends_within(20) < 8
        rows = _check(other, other.until(batch_id, NUM_LINES))
        assert slow.name not in {row["replica"] for row in rows}
        assert spot.process.poll() is None
    finally:
        slow.close()


def _url_of(machine: Machine) -> str:
    """As the process was given it."""
    pairs = Path(f"/proc/{machine.process.pid}/environ").read_bytes().split(b"\0")
    return next(pair.decode().split("=", 1)[1] for pair in pairs if pair.startswith(b"SPECIATE_BATCH_POSTGRES="))


@pytest.fixture
def metadata() -> Iterator[str]:
    with metadata_service() as url:
        yield url


def test_a_metadata_service_is_believed_and_the_next_process_goes_on(tmp_path: Path, metadata: str) -> None:
    """SQLite: one process after the other has the folder. No line counts as one whose worker died."""
    (tmp_path / "data").mkdir()
    flags = ("--in-flight", "8", "--step-s", "0.1")
    first = Machine(tmp_path / "data", *flags, "--metadata", metadata)
    try:
        first.until_ready()
        batch_id = first.file_job()
        first.until(batch_id, 16)
        Metadata.goes = (datetime.now(UTC) + timedelta(seconds=10)).strftime("%Y-%m-%dT%H:%M:%SZ")
        assert first.ends_within(20) < 10
    finally:
        first.close()
    second = Machine(tmp_path / "data", *flags)
    try:
        second.until_ready()
        rows = _check(second, second.until(batch_id, NUM_LINES))
        assert {row["replica"] for row in rows} == {first.name, second.name}
    finally:
        second.close()


async def test_the_real_server_hands_back_in_time_and_prices_its_lines(tmp_path: Path) -> None:
    """SIGTERM amid a job of the pocket model: no line is left leased, none counts as one whose worker died, and what
    ran is priced."""
    flags = ("--data-dir", str(tmp_path / "data"), "--market", "spot", "--usd-per-h", "0.8")
    lines = [_line(i) for i in range(2000)]
    for line in lines:
        line["body"] = {**line["body"], "model": "pocket", "max_tokens": 40}
    async with running_server(*flags, log=tmp_path / "log") as url:
        with openai.OpenAI(base_url=f"{url}/v1", api_key="none") as client:
            text = "".join(json.dumps(line) + "\n" for line in lines)
            file = client.files.create(file=("in.jsonl", text.encode()), purpose="batch")
            batch = client.batches.create(
                input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
            )
            for _ in range(1200):
                counts = client.batches.retrieve(batch.id).request_counts
                if counts is not None and counts.completed >= 50:
                    break
                await asyncio.sleep(0.05)
    log = (tmp_path / "log").read_text()
    assert "no more lines are claimed" in log
    assert "Traceback" not in log
    with contextlib.closing(sqlite3.connect(tmp_path / "data" / "batch.db")) as store:
        ((num_open, num_leased, deaths, attempts),) = store.execute(
            "SELECT sum(state < 3), sum(state = 2), max(deaths), max(CASE WHEN state < 3 THEN attempt END) FROM item"
        ).fetchall()
        rows = [json.loads(row) for (row,) in store.execute("SELECT provenance FROM result")]
    assert (num_leased, deaths, attempts) == (0, 0, 0)
    assert num_open + len(rows) == 2000
    assert {row["market"] for row in rows} == {"spot"}
    assert 0 < sum(row["price_usd"] for row in rows) < 0.8 / 60
