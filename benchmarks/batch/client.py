"""A job over HTTP, as anybody's program would run it, and what it costs the server's process."""

import http.client
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psutil
from msgspec import Struct

from speciate.bench.server import free_port

BOUNDARY = "c0ffee"
POLL_S = 0.05
READY_WITHIN_S = 60.0


class ServerTiming(Struct, frozen=True):
    """One job over HTTP. `lines_per_s` from the last look that saw no line run to the first that saw all files."""

    num_lines: int
    upload_s: float
    run_s: float
    download_s: float
    lines_per_s: float
    cpu_us_per_line: float
    """Of the server's process, all threads, from upload to download."""
    cores: float
    """Mean number of cores that it kept busy while lines ran."""


@contextmanager
def running_server(folder: Path) -> Iterator[tuple[int, psutil.Process]]:
    """Its port and process; killed at the end."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.batch.server", str(port), str(folder)]
    with subprocess.Popen(command) as process:
        try:
            _until_ready(port)
            yield port, psutil.Process(process.pid)
        finally:
            process.kill()


def run_over_http(port: int, server: psutil.Process, source: Path, num_lines: int) -> ServerTiming:
    began_cpu_s, began_s = _cpu_s(server), time.monotonic()
    file = ask(port, "POST", "/files", _form(source.read_bytes()), f"multipart/form-data; boundary={BOUNDARY}")
    uploaded_s = time.monotonic()
    wanted = {"input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    batch = ask(port, "POST", "/batches", json.dumps(wanted).encode())
    started_s, run_cpu_s = uploaded_s, _cpu_s(server)
    while batch["status"] not in ("completed", "failed", "expired", "cancelled"):
        if batch["status"] == "validating":
            started_s, run_cpu_s = time.monotonic(), _cpu_s(server)
        time.sleep(POLL_S)
        batch = ask(port, "GET", f"/batches/{batch['id']}")
    ended_s, end_cpu_s = time.monotonic(), _cpu_s(server)
    output = _fetch(port, "GET", f"/files/{batch['output_file_id']}/content")
    downloaded_s = time.monotonic()
    if output.count(b"\n") != num_lines:
        raise RuntimeError(f"{batch['status']}: {batch['request_counts']}, {batch['errors']}")
    return ServerTiming(
        num_lines=num_lines,
        upload_s=round(uploaded_s - began_s, 2),
        run_s=round(ended_s - started_s, 2),
        download_s=round(downloaded_s - ended_s, 2),
        lines_per_s=round(num_lines / (ended_s - started_s), 1),
        cpu_us_per_line=round((_cpu_s(server) - began_cpu_s) / num_lines * 1e6, 1),
        cores=round((end_cpu_s - run_cpu_s) / (ended_s - started_s), 2),
    )


def ask(port: int, method: str, path: str, body: bytes | None = None, kind: str = "application/json") -> Any:
    return json.loads(_fetch(port, method, path, body, kind))


def _fetch(port: int, method: str, path: str, body: bytes | None = None, kind: str = "application/json") -> bytes:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request(method, f"/v1{path}", body, {"content-type": kind} if body else {})
        answer = connection.getresponse()
        data = answer.read()
        if answer.status >= 400:
            raise RuntimeError(f"{method} {path}: {answer.status} {data[:500]!r}")
        return data


def _form(data: bytes) -> bytes:
    head = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="in.jsonl"\r\n\r\n'
    )
    return head.encode() + data + f"\r\n--{BOUNDARY}--\r\n".encode()


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _until_ready(port: int) -> None:
    ends_s = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < ends_s:
        try:
            ask(port, "GET", "/models")
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError("the server was not ready in time")
