"""`python -m benchmarks.soak [--minutes 20] [--json PATH] [--quick]`: chats of three tiers, structured output, tools,
completions, bad requests, and clients that leave mid-stream, all at once; prints resident size and KV use over time.
"""

import argparse
import asyncio
import contextlib
import json
import random
import statistics
import time
from collections import Counter
from pathlib import Path
from typing import Any

import openai
import psutil
from msgspec import Struct
from openai import AsyncOpenAI

from speciate.bench.machine import describe_machine
from speciate.bench.server import get_text, running_server
from speciate.models.pocket.documents import SCHEMAS
from speciate.models.pocket.tasks import Task, sample_tasks

NUM_WORKERS = 12
SAMPLE_EVERY_S = 5.0
TIERS = ("priority", "default", "flex")


class Sample(Struct, frozen=True):
    """One look at the server: seconds since start, resident MiB, share of KV blocks in use."""

    at_s: float
    resident_mib: float
    kv_usage: float


async def main() -> None:
    """Run the soak and write its figures."""
    given = _arguments()
    minutes = 0.75 if given.quick else given.minutes
    log = Path("out/soak-server.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    async with running_server(log=log) as url:
        server = _server_process()
        counts: Counter[str] = Counter()
        samples = await _soak(url, server, minutes * 60, counts)
        usage_after = await _kv_usage(url)
    figures = _figures(samples, counts, usage_after) | {"machine": describe_machine(), "minutes": minutes}
    print(json.dumps({k: v for k, v in figures.items() if k != "samples"}, indent=2))
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(figures, indent=1))


async def _soak(url: str, server: psutil.Process, duration_s: float, counts: Counter[str]) -> list[Sample]:
    until_s = time.monotonic() + duration_s
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="local", max_retries=0, timeout=120) as client:
        workers = [asyncio.create_task(_work(client, seed, until_s, counts)) for seed in range(NUM_WORKERS)]
        samples = await _watch(url, server, until_s)
        await asyncio.gather(*workers)
    await asyncio.sleep(1.0)
    return samples


async def _watch(url: str, server: psutil.Process, until_s: float) -> list[Sample]:
    samples: list[Sample] = []
    started_s = time.monotonic()
    while time.monotonic() < until_s:
        resident = server.memory_info().rss / 2**20
        samples.append(Sample(time.monotonic() - started_s, resident, await _kv_usage(url)))
        print(f"{samples[-1].at_s:7.0f} s  {resident:8.1f} MiB  KV {samples[-1].kv_usage:5.1%}", flush=True)
        await asyncio.sleep(SAMPLE_EVERY_S)
    return samples


async def _work(client: AsyncOpenAI, seed: int, until_s: float, counts: Counter[str]) -> None:
    rng = random.Random(seed)
    while time.monotonic() < until_s:
        kind = rng.choice(("stream", "stream", "unary", "leave", "leave", "schema", "bad", "choices"))
        try:
            await _send(client, kind, rng)
            counts[kind] += 1
        except openai.BadRequestError:
            counts["refused as bad"] += 1
        except openai.RateLimitError as error:
            counts["refused as full"] += 1
            await asyncio.sleep(min(2.0, float(error.response.headers.get("retry-after", "1"))))


async def _send(client: AsyncOpenAI, kind: str, rng: random.Random) -> None:
    task = sample_tasks(rng.randrange(10**6), 1, "held_out", ("invoice", "ticket", "sensor_log"))[0]
    common: dict[str, Any] = {
        "model": "pocket",
        "messages": list(task.messages),
        "max_tokens": 160,
        "service_tier": rng.choice(TIERS),
    }
    if kind == "bad":
        await client.chat.completions.create(**{**common, "temperature": -1})
    elif kind in ("stream", "leave"):
        await _stream(client, common, leaves_after=rng.randrange(1, 20) if kind == "leave" else None)
    elif kind == "schema":
        await client.chat.completions.create(**{**common, "response_format": _format(task)})
    else:
        await client.chat.completions.create(**common, n=3 if kind == "choices" else 1, temperature=0.7)


async def _stream(client: AsyncOpenAI, common: dict[str, Any], leaves_after: int | None) -> None:
    stream = await client.chat.completions.create(**common, stream=True)
    async with contextlib.aclosing(aiter(stream)):
        num_chunks = 0
        async for _ in stream:
            num_chunks += 1
            if num_chunks == leaves_after:
                await stream.close()
                return


def _format(task: Task) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": task.kind, "schema": SCHEMAS[task.kind]}}


async def _kv_usage(url: str) -> float:
    lines = (await get_text(f"{url}/metrics")).splitlines()
    return max(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("vllm:kv_cache_usage_perc{"))


def _server_process() -> psutil.Process:
    return next(p for p in psutil.Process().children(recursive=True) if "serve" in p.cmdline())


def _figures(samples: list[Sample], counts: Counter[str], usage_after: float) -> dict[str, Any]:
    """Growth compares the second quarter of the run with the last: the first one warms caches."""
    quarter = max(1, len(samples) // 4)
    early = statistics.median(s.resident_mib for s in samples[quarter : 2 * quarter] or samples)
    late = statistics.median(s.resident_mib for s in samples[-quarter:])
    return {
        "requests": dict(counts),
        "resident_mib_early": round(early, 1),
        "resident_mib_late": round(late, 1),
        "resident_mib_peak": round(max(s.resident_mib for s in samples), 1),
        "growth": round(late / early - 1, 4),
        "kv_usage_peak": max(s.kv_usage for s in samples),
        "kv_usage_after": usage_after,
        "samples": [[round(s.at_s, 1), round(s.resident_mib, 1), s.kv_usage] for s in samples],
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.soak")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="45 seconds")
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(main())
