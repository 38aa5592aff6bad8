"""`speciate serve` as a process: what an operator sees when it starts, cannot start, and stops."""

import asyncio
import json
import signal
import socket
import sys
import urllib.request
from pathlib import Path

import pytest

from speciate.bench.server import running_server
from speciate.core.errors import LoadFailed
from speciate.models.pocket import TEXT_DIR


async def _serve(*flags: str) -> tuple[int, str]:
    """Status and output of a server that is expected to end by itself."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "speciate",
        "serve",
        *flags,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(60):
        output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


async def test_a_port_in_use_is_named_before_anything_is_loaded() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, output = await _serve("--port", str(port))
    assert status == 1
    assert f"Cannot listen on 127.0.0.1:{port}" in output
    assert "choose another --port" in output
    assert "Traceback" not in output


async def test_a_model_that_cannot_be_loaded_is_told_by_file(tmp_path: Path) -> None:
    status, output = await _serve(str(tmp_path), "--port", "0")
    assert status == 1
    assert "config.json" in output
    assert "Traceback" not in output
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        (tmp_path / name).write_bytes((TEXT_DIR / name).read_bytes())
    weights = (TEXT_DIR / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    status, output = await _serve(str(tmp_path), "--port", "0")
    assert status == 1
    assert "model.safetensors" in output
    assert "Traceback" not in output


async def test_too_little_kv_memory_says_how_much_is_needed() -> None:
    status, output = await _serve("--port", "0", "--kv-mib", "0.001")
    assert status == 1
    assert "kv_bytes 1049 holds 0 blocks" in output
    assert "give at least" in output
    assert "Traceback" not in output


async def test_it_serves_and_drains_on_sigterm(tmp_path: Path) -> None:
    async with running_server(log=tmp_path / "log") as url:

        def ask() -> str:
            body = {"model": "pocket", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 30}
            request = urllib.request.Request(
                f"{url}/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=30) as response:
                return str(json.load(response)["choices"][0]["message"]["content"])

        assert await asyncio.to_thread(ask)
    log = (tmp_path / "log").read_text()
    assert "Finished server process" in log
    assert "Traceback" not in log


async def test_a_server_that_dies_at_start_shows_its_log(tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match=r"(?s)ended with status 1.*config\.json"):
        async with running_server(str(tmp_path), log=tmp_path / "log"):
            pass


async def _start() -> asyncio.subprocess.Process:
    """In a terminal Ctrl-C reaches a command; whoever starts these tests in the background may have it ignored."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "speciate",
        "serve",
        "--port",
        "0",
        stderr=asyncio.subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


async def test_ctrl_c_ends_it_quietly() -> None:
    process = await _start()
    assert process.stderr is not None
    async with asyncio.timeout(60):
        while b"startup complete" not in await process.stderr.readline():
            pass
        process.send_signal(signal.SIGINT)
        rest = await process.stderr.read()
        await process.wait()
    assert b"Traceback" not in rest


@pytest.mark.parametrize("after_s", [0.15, 0.3, 0.45, 0.6, 0.9])
async def test_ctrl_c_is_quiet_while_it_starts_too(after_s: float) -> None:
    """Importing, loading, opening the door. (In the first 0.05 s it is Python itself that starts.)"""
    process = await _start()
    await asyncio.sleep(after_s)
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(60):
        _, output = await process.communicate()
    assert b"Traceback" not in output
    assert process.returncode in (130, -signal.SIGINT)


async def test_sigterm_is_an_orderly_end() -> None:
    process = await _start()
    assert process.stderr is not None
    async with asyncio.timeout(60):
        while b"startup complete" not in await process.stderr.readline():
            pass
        process.send_signal(signal.SIGTERM)
        rest = await process.stderr.read()
        assert await process.wait() == 0
    assert b"Traceback" not in rest
