"""Starts `speciate serve` as a process of its own and waits until it is ready; stops it at the end."""

import asyncio
import contextlib
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from speciate.core.errors import LoadFailed

READY_WITHIN_S = 120.0


@asynccontextmanager
async def running_server(*flags: str, log: Path) -> AsyncIterator[str]:
    """The base URL (`http://127.0.0.1:PORT`) of a server of our own. Raises LoadFailed with the end of its log."""
    port = free_port()
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "speciate", "serve", "--port", str(port), *flags, stdout=output, stderr=output
        )
        try:
            url = f"http://127.0.0.1:{port}"
            await _until_ready(url, process, log)
            yield url
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def get_text(url: str) -> str:
    """The body of a GET. Raises URLError, HTTPError."""

    def fetch() -> str:
        with urllib.request.urlopen(url, timeout=5) as response:
            return str(response.read().decode())

    return await asyncio.to_thread(fetch)


async def _until_ready(url: str, process: asyncio.subprocess.Process, log: Path) -> None:
    deadline = asyncio.get_running_loop().time() + READY_WITHIN_S
    while asyncio.get_running_loop().time() < deadline:
        if process.returncode is not None:
            raise LoadFailed(f"The server ended with status {process.returncode}. Its log ends:\n{_tail(log)}")
        try:
            await get_text(f"{url}/ready")
        except (urllib.error.URLError, OSError):
            await asyncio.sleep(0.1)
        else:
            return
    raise LoadFailed(f"The server was not ready within {READY_WITHIN_S:g} s. Its log ends:\n{_tail(log)}")


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:])
