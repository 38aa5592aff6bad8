"""A cheap HTTP client and the CPU clock of a server process: what every subject of this benchmark is measured with."""

import asyncio
import time
from typing import Any

import aiohttp
import psutil
from msgspec import Struct


class Load(Struct, frozen=True):
    """What is sent: `num_requests` chat requests, `concurrency` at a time, each asking for `max_tokens` tokens."""

    num_requests: int
    concurrency: int
    max_tokens: int
    stream: bool


class Cost(Struct, frozen=True):
    """What a load took: CPU seconds of the server, wall seconds, streamed data frames."""

    cpu_s: float
    wall_s: float
    num_requests: int
    num_frames: int


def cpu_s(process: psutil.Process) -> float:
    """User and system time of a process and its children so far."""
    times = [p.cpu_times() for p in (process, *process.children(recursive=True))]
    return float(sum(t.user + t.system for t in times))


async def measure(url: str, pid: int, body: dict[str, Any], load: Load) -> Cost:
    """Send the load and read everything that comes back. Raises RuntimeError where an answer is not 200."""
    process = psutil.Process(pid)
    left = iter(range(load.num_requests))
    frames = 0
    payload = {**body, "max_tokens": load.max_tokens, "stream": load.stream}

    async def worker(session: aiohttp.ClientSession) -> None:
        nonlocal frames
        for _ in left:
            received = await send(session, url, payload)
            frames += received

    connector = aiohttp.TCPConnector(limit=0, force_close=True)  # llama-server ends kept connections at will
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=300)) as session:
        cpu_before, started = cpu_s(process), time.perf_counter()
        await asyncio.gather(*(worker(session) for _ in range(load.concurrency)))
        return Cost(cpu_s(process) - cpu_before, time.perf_counter() - started, load.num_requests, frames)


async def send(session: aiohttp.ClientSession, url: str, payload: dict[str, Any]) -> int:
    """Data frames of one answer, read to its end."""
    frames = 0
    async with session.post(url, json=payload) as response:
        if response.status != 200:
            raise RuntimeError(f"{url} answered {response.status}: {(await response.text())[:300]}")
        async for block in response.content.iter_any():
            frames += block.count(b"data: ")
    return frames


async def wait_until_up(url: str, body: dict[str, Any], within_s: float = 60.0) -> None:
    """Poll until the server answers a request with 200. Raises TimeoutError."""
    async with asyncio.timeout(within_s), aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.post(url, json={**body, "max_tokens": 1}) as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.1)
