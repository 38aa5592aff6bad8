"""`python -m benchmarks.soak [--minutes 20] [--json PATH] [--quick]`: is the KV budget kept, and is memory flat?

First every KV block is written once (kv_memory.py). Then twelve workers send all kinds of requests in three tiers,
leave mid-stream and make mistakes, while resident size, KV use, threads and open files are watched. Status 1 where it
is not so.
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

import msgspec
import openai
import psutil
from msgspec import Struct
from openai import AsyncOpenAI
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmarks.soak.kv_memory import KvMemory, measure_kv, read_gauge
from speciate.bench.machine import describe_machine
from speciate.bench.server import get_text, running_server
from speciate.models.pocket.documents import SCHEMAS
from speciate.models.pocket.tasks import Task, sample_tasks

NUM_WORKERS = 12
SAMPLE_EVERY_S = 5.0
QUICK_SAMPLE_EVERY_S = 1.0
TIERS = ("priority", "default", "flex")
KINDS = ("stream", "stream", "unary", "leave", "leave", "schema", "bad", "choices", "tools", "completion", "response",
         "embedding", "adapter", "logprobs")  # fmt: skip
MAX_GROWTH = 0.02
"""Of resident size from the second quarter of the run to the last."""


class Sample(Struct, frozen=True):
    """One look at the server: seconds since start, resident MiB, share of KV blocks in use, threads, open files."""

    at_s: float
    resident_mib: float
    kv_usage: float
    num_threads: int
    num_files: int


async def main() -> int:
    """Run the soak, print and write its figures."""
    given = _arguments()
    minutes, kv_mib, every_s = (
        (0.5, 96.0, QUICK_SAMPLE_EVERY_S) if given.quick else (given.minutes, 512.0, SAMPLE_EVERY_S)
    )
    log = Path("out/soak-server.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    counts: Counter[str] = Counter()
    async with (
        running_server("--kv-mib", str(kv_mib), log=log) as url,
        AsyncOpenAI(base_url=f"{url}/v1", api_key="local", max_retries=0, timeout=120) as client,
    ):
        server = _server_process()
        kv = await measure_kv(url, server, client, kv_mib)
        print(f"KV: for {kv.part_mib:.1f} MiB of blocks each the process grew by {kv.grown_mib} MiB", flush=True)
        samples = await _soak(url, client, server, minutes * 60, every_s, counts)
        usage_after = await _kv_usage(url)
    figures = _figures(samples, counts, usage_after, kv) | {"machine": describe_machine(), "minutes": minutes}
    _print(figures)
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(figures, indent=1))
    return 0 if all(figures["held"].values()) else 1


async def _soak(
    url: str, client: AsyncOpenAI, server: psutil.Process, duration_s: float, every_s: float, counts: Counter[str]
) -> list[Sample]:
    until_s = time.monotonic() + duration_s
    workers = [asyncio.create_task(_work(client, seed, until_s, counts)) for seed in range(NUM_WORKERS)]
    samples = await _watch(url, server, until_s, every_s)
    await asyncio.gather(*workers)
    await asyncio.sleep(1.0)
    return samples


async def _watch(url: str, server: psutil.Process, until_s: float, every_s: float) -> list[Sample]:
    samples: list[Sample] = []
    started_s = time.monotonic()
    while time.monotonic() < until_s:
        resident = server.memory_info().rss / 2**20
        at_s = time.monotonic() - started_s
        samples.append(Sample(at_s, resident, await _kv_usage(url), server.num_threads(), server.num_fds()))
        if len(samples) % 6 == 1:
            print(f"{at_s:7.0f} s  {resident:8.1f} MiB  KV {samples[-1].kv_usage:5.1%}", flush=True)
        await asyncio.sleep(every_s)
    return samples


async def _work(client: AsyncOpenAI, seed: int, until_s: float, counts: Counter[str]) -> None:
    rng = random.Random(seed)
    while time.monotonic() < until_s:
        kind = rng.choice(KINDS)
        try:
            await _send(client, kind, rng)
            counts[kind] += 1
        except openai.BadRequestError:
            counts["refused as bad"] += 1
        except openai.RateLimitError as error:
            counts["refused as full"] += 1
            await asyncio.sleep(min(2.0, float(error.response.headers.get("retry-after", "1"))))
        except openai.APIError as error:
            counts[f"failed: {type(error).__name__}"] += 1


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
    elif kind in ("completion", "response", "embedding"):
        await _send_elsewhere(client, kind, task.messages[-1]["content"], common["service_tier"])
    elif kind == "tools":
        await client.chat.completions.create(**{**common, "tools": [_tool(task)], "tool_choice": "required"})
    elif kind == "adapter":
        await client.chat.completions.create(**{**common, "model": "pocket-delivery"})
    elif kind == "logprobs":
        await client.chat.completions.create(**common, logprobs=True, top_logprobs=5)
    elif kind == "schema":
        await client.chat.completions.create(**{**common, "response_format": _format(task)})
    else:
        await client.chat.completions.create(**common, n=3 if kind == "choices" else 1, temperature=0.7)


async def _send_elsewhere(client: AsyncOpenAI, kind: str, text: str, tier: str) -> None:
    if kind == "completion":
        more = {"extra_body": {"service_tier": tier}}
        await client.completions.create(model="pocket", prompt=text, max_tokens=40, **more)  # type: ignore[call-overload]
    elif kind == "response":
        await client.responses.create(model="pocket", input=text, max_output_tokens=80, service_tier=tier)  # type: ignore[call-overload]
    else:
        await client.embeddings.create(model="pocket", input=[text, text[:200]])


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


def _tool(task: Task) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "file_document", "parameters": SCHEMAS[task.kind]}}


async def _kv_usage(url: str) -> float:
    return read_gauge(await get_text(f"{url}/metrics"), "vllm:kv_cache_usage_perc")


def _server_process() -> psutil.Process:
    return next(p for p in psutil.Process().children(recursive=True) if "serve" in p.cmdline())


def _figures(samples: list[Sample], counts: Counter[str], usage_after: float, kv: KvMemory) -> dict[str, Any]:
    """Growth compares the second quarter of the run with the last: the first one warms what is not KV."""
    quarter = max(1, len(samples) // 4)
    second, last = samples[quarter : 2 * quarter] or samples, samples[-quarter:]
    early, late = (statistics.median(s.resident_mib for s in part) for part in (second, last))
    threads, files = (max(s.num_threads for s in last), max(s.num_files for s in last))
    held = {
        "KV memory within 2 % of what is reported, the budget not passed": kv.is_kept,
        "resident size grows by at most 2 %": late / early - 1 <= MAX_GROWTH,
        "no KV block is held at the end": usage_after == 0.0,
        "nothing failed": not any(name.startswith("failed") for name in counts),
    }
    return {
        "requests": dict(sorted(counts.items())),
        "kv": {**msgspec.to_builtins(kv), "error": round(kv.error, 4)},
        "resident_mib": {"first": samples[0].resident_mib, "second_quarter": early, "last_quarter": late,
                         "peak": max(s.resident_mib for s in samples)},
        "growth": round(late / early - 1, 4),
        "mib_per_hour": round(_slope(samples[quarter:]) * 3600, 2),
        "kv_usage_peak": max(s.kv_usage for s in samples),
        "kv_usage_after": usage_after,
        "threads": threads,
        "open_files": files,
        "held": held,
        "samples": [[round(s.at_s, 1), round(s.resident_mib, 1), round(s.kv_usage, 4)] for s in samples],
    }  # fmt: skip


def _slope(samples: list[Sample]) -> float:
    """MiB a second, least squares."""
    if len(samples) < 2:
        return 0.0
    return statistics.linear_regression([s.at_s for s in samples], [s.resident_mib for s in samples]).slope


def _print(figures: dict[str, Any]) -> None:
    view = Table(title=f"Soak of {figures['minutes']:g} minutes", box=SIMPLE_HEAD, show_header=False)
    kv, resident = figures["kv"], figures["resident_mib"]
    rows = [
        ("requests", ", ".join(f"{count} {name}" for name, count in figures["requests"].items())),
        ("KV budget, reported", f"{kv['budget_mib']:.1f} MiB, {kv['reported_mib']:.1f} MiB"),
        (
            "KV written a part, grown by (median)",
            f"{kv['part_mib']:.1f} MiB, {statistics.median(kv['grown_mib']):.1f} MiB ({kv['error']:+.2%})",
        ),
        ("resident: first, 2nd quarter, last, peak", ", ".join(f"{mib:.1f}" for mib in resident.values()) + " MiB"),
        ("growth, trend", f"{figures['growth']:+.2%}, {figures['mib_per_hour']:+.1f} MiB/h"),
        ("KV in use: peak, at the end", f"{figures['kv_usage_peak']:.1%}, {figures['kv_usage_after']:.1%}"),
        ("threads, open files", f"{figures['threads']}, {figures['open_files']}"),
        *((what, "yes" if is_so else "NO") for what, is_so in figures["held"].items()),
    ]
    for row in rows:
        view.add_row(*row)
    Console().print(view)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.soak")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="half a minute of traffic, a small KV cache")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main()))
