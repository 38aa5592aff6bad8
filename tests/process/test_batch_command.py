"""`speciate batch`: with a server, and `run` without one, killed on the way."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from speciate.bench.server import free_port, get_text

SERVER = Path(__file__).with_name("batch_server.py")


def _write(path: Path, num_lines: int, model: str, **more: Any) -> Path:
    lines = [
        {
            "custom_id": f"id-{i}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {
                "model": model,
                "max_tokens": 20,
                "messages": [{"role": "user", "content": f"Extract the number {i}"}],
                **more,
            },
        }
        for i in range(num_lines)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


async def _speciate(*arguments: str) -> tuple[int, str, str]:
    """Status, output and errors."""
    process = await _start(*arguments)
    async with asyncio.timeout(90):
        out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def _start(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "speciate", "batch", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


def _ids(path: Path) -> list[str]:
    return [json.loads(line)["custom_id"] for line in path.read_text().splitlines()]


@pytest.fixture
async def url(tmp_path: Path) -> AsyncIterator[str]:
    port = free_port()
    process = await asyncio.create_subprocess_exec(sys.executable, str(SERVER), str(port), str(tmp_path / "data"))
    async with asyncio.timeout(60):
        while True:
            try:
                await get_text(f"http://127.0.0.1:{port}/ready")
                break
            except OSError:
                await asyncio.sleep(0.05)
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    await process.wait()


async def test_submit_status_watch_output_cancel_estimate(tmp_path: Path, url: str) -> None:
    source = _write(tmp_path / "in.jsonl", 50, "fake")
    saved = tmp_path / "out.jsonl"
    status, out, err = await _speciate("submit", str(source), "--url", url, "-o", str(saved), "--metadata", "job=x")
    assert status == 0, err
    batch_id = out.strip()
    assert _ids(saved) == [f"id-{i}" for i in range(50)]
    assert "50/50" in err
    status, out, _ = await _speciate("status", batch_id, "--json", "--url", url)
    (batch,) = json.loads(out)
    assert (status, batch["status"], batch["metadata"]) == (0, "completed", {"job": "x"})
    status, out, _ = await _speciate("output", batch_id, "--url", url)
    assert out == saved.read_text()
    assert (await _speciate("watch", batch_id, "--url", url))[0] == 0
    status, _, err = await _speciate("cancel", batch_id, "--url", url)
    assert status == 1
    assert "only one that runs can be cancelled" in err
    status, out, err = await _speciate("estimate", str(source), "--url", url)
    assert status == 0
    assert "50 lines" in out


async def test_a_bad_file_is_told_by_line(tmp_path: Path, url: str) -> None:
    source = _write(tmp_path / "in.jsonl", 2, "fake")
    source.write_text(source.read_text() + "nope\n")
    status, _, err = await _speciate("submit", str(source), "--url", url, "--watch")
    assert status == 1
    assert "line 3: invalid_json_line" in err


async def test_without_a_server_it_says_so(tmp_path: Path) -> None:
    source = _write(tmp_path / "in.jsonl", 2, "fake")
    status, _, err = await _speciate("submit", str(source), "--url", f"http://127.0.0.1:{free_port()}")
    assert status == 1
    assert "Is the server running" in err


async def test_run_needs_no_server_and_goes_on_after_a_kill(tmp_path: Path) -> None:
    source = _write(tmp_path / "in.jsonl", 1000, "pocket")
    output = tmp_path / "in.out.jsonl"
    first = await _start("run", str(source))
    work = tmp_path / ".in.out.jsonl.speciate"
    async with asyncio.timeout(60):
        while not (work / "batch.db-wal").exists() or (work / "batch.db-wal").stat().st_size < 300_000:
            assert first.returncode is None
            await asyncio.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    await first.communicate()
    assert not output.exists()
    status, out, err = await _speciate("run", str(source))
    assert status == 0, err
    assert "1,000 lines, 0 failed" in out
    assert _ids(output) == [f"id-{i}" for i in range(1000)]
    rows = [json.loads(line) for line in (tmp_path / "in.out.provenance.jsonl").read_text().splitlines()]
    assert len({row["worker"] for row in rows}) == 2
    assert not work.exists()
