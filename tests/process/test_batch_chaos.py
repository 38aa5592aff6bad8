"""Jobs that survive: the server is killed, its disk fills, its database goes, its clock goes back, a line kills it.

Whatever happens, the output has every custom_id exactly once, in order, and no file is ever half visible. Nothing here
depends on how fast the machine is, or whether it stands still for a while.
"""

import contextlib
import http.client
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI
from openai.types import Batch

from speciate.batch.private_postgres import PrivatePostgres
from speciate.bench.server import free_port

HARDY = ("--max-deaths", "1000")
"""Where it is us who kill, no line is to blame, even where every process dies over the same one."""
SCRIPT = Path(__file__).with_name("batch_server.py")
BOUNDARY = "ba7c4"

pytestmark = pytest.mark.timeout(1200)


class RefusedError(Exception):
    """The server answered, with this status and body."""


GONE = (OSError, http.client.HTTPException, RefusedError)
"""What a request meets while its server starts, dies, or has no database."""


class Victim:
    """A server process that is started, killed and started again over the same folder."""

    def __init__(self, folder: Path, *flags: str, env: dict[str, str] | None = None, logs: Path | None = None) -> None:
        self.folder = folder
        self.port = free_port()
        self._flags = flags
        self._env = {**os.environ, **(env or {})}
        self._log = ((logs or folder.parent) / f"server-{self.port}.log").open("ab")
        self.process: subprocess.Popen[bytes] | None = None
        self.num_starts = 0

    def start(self) -> None:
        self.num_starts += 1
        command = [sys.executable, str(SCRIPT), str(self.port), str(self.folder), *self._flags]
        self.process = subprocess.Popen(command, stdout=self._log, stderr=self._log, env=self._env)

    def kill(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(30)

    def close(self) -> None:
        self.kill()
        self._log.close()

    def ask(self, path: str, body: bytes | None = None, content_type: str = "application/json") -> Any:
        return json.loads(self._exchange("GET" if body is None else "POST", path, body, content_type))

    def read(self, file_id: str) -> bytes:
        return self._exchange("GET", f"/files/{file_id}/content", None, "")

    def _exchange(self, method: str, path: str, body: bytes | None, content_type: str) -> bytes:
        """The body of a good answer. Raises RefusedError, and GONE where the server dies meanwhile."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        try:
            connection.request(method, f"/v1{path}", body, {"content-type": content_type} if body else {})
            with connection.getresponse() as answer:
                data = answer.read()
                if answer.status >= 400:
                    raise RefusedError(answer.status, data)
                return data
        finally:
            connection.close()

    def until_ready(self, num_looks: int = 10_000) -> None:
        for _ in range(num_looks):  # counted, not timed: the machine may stand still
            with contextlib.suppress(*GONE):
                self.ask("/models")
                return
            if self.process is not None and self.process.poll() is not None:
                self.start()
            time.sleep(0.02)
        raise AssertionError(f"not ready; see {self._log.name}")

    def submit(self, lines: list[dict[str, Any]]) -> str:
        batch = self.ask("/batches", json.dumps({
            "input_file_id": self.upload(lines), "endpoint": "/v1/chat/completions", "completion_window": "24h",
        }).encode())  # fmt: skip
        return str(batch["id"])

    def upload(self, lines: list[dict[str, Any]]) -> str:
        data = "".join(json.dumps(line) + "\n" for line in lines)
        form = (
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="in.jsonl"\r\n\r\n'
            f"{data}\r\n--{BOUNDARY}--\r\n"
        )
        made = self.ask("/files", form.encode(), f"multipart/form-data; boundary={BOUNDARY}")
        return str(made["id"])

    def until_over(self, batch_id: str, num_looks: int = 10_000) -> dict[str, Any]:
        """Starts the server again whenever it has died meanwhile."""
        last: dict[str, Any] = {}
        for _ in range(num_looks):
            if self.process is None or self.process.poll() is not None:
                self.start()
                self.until_ready()
            with contextlib.suppress(*GONE):
                last = self.ask(f"/batches/{batch_id}")
                if last["status"] in ("completed", "failed", "expired", "cancelled"):
                    return last
            time.sleep(0.05)
        raise AssertionError(f"{last}; see {self._log.name}")


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Victim]:
    (tmp_path / "data").mkdir()
    made = Victim(tmp_path / "data", "--in-flight", "16")
    yield made
    made.close()


def _lines(num_lines: int, poison: int | None = None) -> list[dict[str, Any]]:
    return [
        {
            "custom_id": f"id-{i}", "method": "POST", "url": "/v1/chat/completions",
            "body": {"model": "fake", "max_tokens": 4, "messages": [
                {"role": "user", "content": "POISON" if i == poison else f"line {i}"}
            ]},
        }
        for i in range(num_lines)
    ]  # fmt: skip


def _ids(data: bytes) -> list[int]:
    assert data == b"" or data.endswith(b"\n")
    return [int(json.loads(line)["custom_id"][3:]) for line in data.splitlines()]


def _check_visible_files(victim: Victim, batch_id: str) -> None:
    """What is listed is whole; what is still being written is a complete prefix in order."""
    for file in victim.ask("/files")["data"]:
        assert len(victim.read(file["id"])) == file["bytes"]
    output = victim.ask(f"/batches/{batch_id}")["output_file_id"]
    if output is not None:
        ids = _ids(victim.read(output))
        assert ids == list(range(len(ids)))


def _check_output(victim: Victim, done: dict[str, Any], num_lines: int) -> None:
    assert done["status"] == "completed"
    counts = done["request_counts"]
    assert (counts["total"], counts["completed"], counts["failed"]) == (num_lines, num_lines, 0)
    assert _ids(victim.read(done["output_file_id"])) == list(range(num_lines))
    assert not list((victim.folder / "tmp").iterdir())
    rows = [json.loads(line) for line in victim.read(done["provenance_file_id"]).splitlines()]
    assert [row["index"] for row in rows] == list(range(num_lines))


def _kill_often(victim: Victim, num_kills: int, num_lines: int, longest_s: float, seed: int = 1) -> None:
    chance = random.Random(seed)
    victim.start()
    victim.until_ready()
    batch_id = victim.submit(_lines(num_lines))
    for number in range(num_kills):
        time.sleep(chance.uniform(0.0, longest_s))
        victim.kill()
        victim.start()
        if chance.random() < 0.9:  # sometimes it dies while it starts
            victim.until_ready()
            if number % 4 == 0:
                _check_visible_files(victim, batch_id)
    victim.until_ready()
    in_time = victim.ask(f"/batches/{batch_id}")["status"] != "completed"
    _check_output(victim, victim.until_over(batch_id), num_lines)
    assert in_time, "the job was over before the last kill: the kills show nothing"
    rows = victim.read(victim.ask(f"/batches/{batch_id}")["provenance_file_id"]).splitlines()
    assert any(json.loads(row)["attempt"] > 1 for row in rows)


def test_killed_eight_times_it_loses_and_repeats_nothing(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with contextlib.closing(Victim(tmp_path / "data", "--in-flight", "4", "--step-s", "0.03", *HARDY)) as victim:
        _kill_often(victim, num_kills=8, num_lines=300, longest_s=0.4)


@pytest.mark.slow
@pytest.mark.timeout(5400)
def test_killed_a_hundred_times_over_five_thousand_lines(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with contextlib.closing(Victim(tmp_path / "data", "--in-flight", "8", "--step-s", "0.02", *HARDY)) as victim:
        _kill_often(victim, num_kills=100, num_lines=5000, longest_s=0.6)


def test_a_line_that_kills_its_worker_is_given_up_and_nothing_else(victim: Victim) -> None:
    victim.start()
    victim.until_ready()
    batch_id = victim.submit(_lines(60, poison=20))
    done = victim.until_over(batch_id)
    assert victim.num_starts == 1 + 5
    assert done["status"] == "completed"
    assert _ids(victim.read(done["output_file_id"])) == [i for i in range(60) if i != 20]
    (error,) = [json.loads(line) for line in victim.read(done["error_file_id"]).splitlines()]
    assert (error["custom_id"], error["error"]["code"], error["response"]) == ("id-20", "worker_died", None)
    assert "5 workers died" in error["error"]["message"]


def test_with_the_clock_set_back_nothing_is_lost(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with contextlib.closing(Victim(tmp_path / "data", "--in-flight", "4", "--step-s", "0.02", "--shifts")) as victim:
        victim.start()
        victim.until_ready()
        batch_id = victim.submit(_lines(200))
        for shift in ("-3600", "-86400", "50"):
            time.sleep(0.3)
            (victim.folder / "shift").write_text(shift)
            time.sleep(0.3)
            victim.kill()
            victim.start()
            victim.until_ready()
        done = victim.until_over(batch_id)
        _check_output(victim, done, 200)
        assert done["created_at"] <= done["in_progress_at"] <= done["finalizing_at"] <= done["completed_at"]


def test_the_official_client_goes_on_after_a_crash(victim: Victim) -> None:
    """One client, one job: an error file, a crash mid-way, and another job that is cancelled mid-way."""
    lines = _lines(200)
    lines[7]["body"]["max_tokens"] = 100_000
    victim.start()
    victim.until_ready()
    with OpenAI(base_url=f"http://127.0.0.1:{victim.port}/v1", api_key="none", max_retries=10) as client:
        data = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
        file = client.files.create(file=("in.jsonl", data), purpose="batch")
        jobs = [
            client.batches.create(
                input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"job": name}
            )
            for name in ("kept", "cancelled")
        ]
        while (counts := client.batches.retrieve(jobs[1].id).request_counts) is None or counts.completed < 20:
            time.sleep(0.01)
        client.batches.cancel(jobs[1].id)
        victim.kill()
        victim.start()
        victim.until_ready()
        kept, cancelled = (_until_over(client, job.id) for job in jobs)
        assert (kept.status, kept.metadata) == ("completed", {"job": "kept"})
        assert kept.output_file_id is not None
        assert kept.error_file_id is not None
        assert _ids(client.files.content(kept.output_file_id).content) == [i for i in range(200) if i != 7]
        (error,) = client.files.content(kept.error_file_id).text.splitlines()
        assert json.loads(error)["response"]["body"]["error"]["code"] == "context_length_exceeded"
        _check_cancelled(client, cancelled)


def _check_cancelled(client: OpenAI, batch: Batch) -> None:
    """What was done is in the output, the rest among the errors, and nothing is in both."""
    assert batch.status == "cancelled"
    assert batch.output_file_id is not None
    assert batch.error_file_id is not None
    done = _ids(client.files.content(batch.output_file_id).content)
    open_lines = _ids(client.files.content(batch.error_file_id).content)
    assert len(done) >= 20
    assert sorted(done + open_lines) == list(range(200))


def _until_over(client: OpenAI, batch_id: str) -> Batch:
    for _ in range(10_000):
        batch = client.batches.retrieve(batch_id)
        if batch.status not in ("validating", "in_progress", "finalizing", "cancelling"):
            return batch
        time.sleep(0.05)
    raise AssertionError(batch)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MB that is really full when it is full."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "speciate", str(folder)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("only root can mount a small file system here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_delays_and_loses_nothing(small_disk: Path) -> None:
    flags = ("--in-flight", "16", "--step-s", "0.02")
    with contextlib.closing(Victim(small_disk / "data", *flags, logs=small_disk.parent)) as victim:
        victim.start()
        victim.until_ready()
        batch_id = victim.submit(_lines(300))
        while victim.ask(f"/batches/{batch_id}")["status"] == "validating":
            time.sleep(0.05)
        ballast = small_disk / "ballast"
        with contextlib.suppress(OSError), ballast.open("wb") as file:
            while True:
                file.write(b"x" * 4096)
                file.flush()
        time.sleep(1.5)
        with pytest.raises(RefusedError) as refused:
            victim.upload(_lines(2000))
        assert refused.value.args[0] in (503, 507)
        stuck = victim.ask(f"/batches/{batch_id}")
        assert stuck["status"] in ("in_progress", "finalizing")
        victim.kill()
        ballast.unlink()
        _check_output(victim, victim.until_over(batch_id), 300)


def _two_workers(tmp_path: Path, server: PrivatePostgres, name: str, *flags: str) -> list[Victim]:
    url = server.create_database(name)
    (tmp_path / "data").mkdir()
    return [Victim(tmp_path / "data", *flags, env={"SPECIATE_BATCH_POSTGRES": url}) for _ in range(2)]


def _kill_two(tmp_path: Path, server: PrivatePostgres, name: str, num_kills: int, num_lines: int) -> None:
    chance = random.Random(2)
    victims = _two_workers(tmp_path, server, name, "--in-flight", "4", "--step-s", "0.06", "--lease-s", "1.5", *HARDY)
    try:
        for victim in victims:
            victim.start()
        for victim in victims:
            victim.until_ready()
        batch_id = victims[0].submit(_lines(num_lines))
        for _ in range(num_kills):
            time.sleep(chance.uniform(0.2, 1.2))
            unlucky = chance.choice(victims)
            unlucky.kill()
            unlucky.start()
            unlucky.until_ready()
        in_time = victims[0].ask(f"/batches/{batch_id}")["status"] == "in_progress"
        assert in_time, "the job was over before the last kill: the kills show nothing"
        _check_output(victims[1], victims[1].until_over(batch_id), num_lines)
    finally:
        for victim in victims:
            victim.close()


def test_two_workers_on_postgres_killed_in_turn(tmp_path: Path, postgres_server: PrivatePostgres) -> None:
    _kill_two(tmp_path, postgres_server, "chaos_short", num_kills=4, num_lines=300)


@pytest.mark.slow
@pytest.mark.timeout(5400)
def test_two_workers_on_postgres_killed_thirty_times(tmp_path: Path, postgres_server: PrivatePostgres) -> None:
    _kill_two(tmp_path, postgres_server, "chaos_long", num_kills=30, num_lines=5000)


def _without_database(tmp_path: Path, server: PrivatePostgres, name: str, away_s: float) -> None:
    victims = _two_workers(tmp_path, server, name, "--in-flight", "8", "--step-s", "0.02", "--lease-s", "2", *HARDY)
    try:
        for victim in victims:
            victim.start()
        for victim in victims:
            victim.until_ready()
        batch_id = victims[0].submit(_lines(400))
        time.sleep(0.5)
        server.stop(signal.SIGQUIT)
        time.sleep(away_s)
        for victim in victims:
            assert victim.process is not None
            assert victim.process.poll() is None
            assert victim.ask("/models")
        server.start()
        _check_output(victims[0], victims[0].until_over(batch_id), 400)
    finally:
        for victim in victims:
            victim.close()


def test_a_database_that_crashes_and_comes_back(tmp_path: Path, postgres_server: PrivatePostgres) -> None:
    _without_database(tmp_path, postgres_server, "away_short", 3.0)


@pytest.mark.slow
def test_a_database_that_is_gone_for_thirty_seconds(tmp_path: Path, postgres_server: PrivatePostgres) -> None:
    _without_database(tmp_path, postgres_server, "away_long", 30.0)
