"""How fast the durable path publishes, how much memory a million lines take, what more workers on Postgres bring.

python -m benchmarks.batch throughput million postgres --json out/bench/batch.json
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import psutil
import uvloop

from benchmarks.batch.client import run_over_http, running_server
from benchmarks.batch.stand import (
    ANSWER_TOKENS,
    LATER_S,
    STEP_S,
    Timing,
    gateway_ports,
    instant_ports,
    open_stand,
    run_job,
    waiting_ports,
    write_input,
)
from benchmarks.batch.worker import AT_ONCE
from speciate.batch.jobs import BatchJobs
from speciate.batch.private_postgres import private_postgres
from speciate.bench.machine import describe_machine
from speciate.runtime.garbage import collect_seldom

REPEATS = 3
SAMPLE_S = 0.1


@asynccontextmanager
async def _stand(folder: Path, kind: str) -> AsyncGenerator[BatchJobs, None]:
    if kind == "store":
        async with open_stand(folder, instant_ports(), None) as jobs:
            yield jobs
    else:
        async with gateway_ports() as ports, open_stand(folder, ports, None) as jobs:
            yield jobs


async def throughput(scratch: Path, num_lines: int) -> dict[str, Any]:
    source = scratch / "in.jsonl"
    write_input(source, num_lines)
    found: dict[str, Any] = {}
    for kind in ("dialect", "store"):
        async with _stand(scratch / kind, kind) as jobs:
            timings = [await run_job(jobs, source, num_lines) for _ in range(REPEATS)]
        rates = [timing.lines_per_s for timing in timings]
        found[kind] = {
            "lines_per_s": {"median": statistics.median(rates), "min": min(rates), "max": max(rates)},
            "runs": msgspec.to_builtins(timings),
        }
        print(kind, found[kind]["lines_per_s"])
    return {"answer_tokens": ANSWER_TOKENS, "engine_step_s": STEP_S, **found}


async def server(scratch: Path, num_lines: int) -> dict[str, Any]:
    """The whole server as a process of its own; this process only uploads, asks and downloads."""
    source = scratch / "in.jsonl"
    write_input(source, num_lines)
    with running_server(scratch / "server") as (port, process):
        timings = [await asyncio.to_thread(run_over_http, port, process, source, num_lines) for _ in range(REPEATS)]
    rates = [timing.lines_per_s for timing in timings]
    found = {"lines_per_s": {"median": statistics.median(rates), "min": min(rates), "max": max(rates)}}
    print("server", found["lines_per_s"])
    return {**found, "engine_step_s": STEP_S, "runs": msgspec.to_builtins(timings)}


async def million(scratch: Path, num_lines: int) -> dict[str, Any]:
    """Memory of the process, sampled while it runs, over what it had before the job came."""
    source = scratch / "in.jsonl"
    write_input(source, num_lines)
    async with open_stand(scratch / "million", instant_ports(), None) as jobs:
        process = psutil.Process()
        idle_bytes, most = process.memory_info().rss, [0]

        async def sample() -> None:
            while True:
                most[0] = max(most[0], process.memory_info().rss)
                await asyncio.sleep(SAMPLE_S)

        sampling = asyncio.create_task(sample())
        timing = await run_job(jobs, source, num_lines)
        sampling.cancel()
    database = sum(f.stat().st_size for f in (scratch / "million").glob("batch.db*"))
    output = sum(f.stat().st_size for f in (scratch / "million" / "files").iterdir())
    found = {
        "timing": msgspec.to_builtins(timing),
        "idle_mib": round(idle_bytes / 2**20, 1),
        "above_idle_mib": round((most[0] - idle_bytes) / 2**20, 1),
        "input_mib": round(source.stat().st_size / 2**20, 1),
        "database_mib": round(database / 2**20, 1),
        "files_mib": round(output / 2**20, 1),
    }
    print("million", found)
    return found


async def postgres(scratch: Path, num_lines: int) -> dict[str, Any]:
    """Workers in processes of their own; this process files the job and works too."""
    source = scratch / "in.jsonl"
    write_input(source, num_lines)
    found: dict[str, Any] = {"line_s": LATER_S, "at_once_per_worker": AT_ONCE, "lines": num_lines}
    with private_postgres(scratch / "postgres") as server:
        for num_workers in (1, 2, 4):
            url = server.create_database(f"w{num_workers}")
            folder = scratch / f"data{num_workers}"
            with _workers(num_workers - 1, folder, url):
                async with open_stand(folder, waiting_ports(), url, AT_ONCE) as jobs:
                    await asyncio.sleep(3.0)
                    timing: Timing = await run_job(jobs, source, num_lines)
            found[f"{num_workers} workers"] = msgspec.to_builtins(timing)
            print(num_workers, "workers", timing.lines_per_s)
    return found


@contextmanager
def _workers(num: int, folder: Path, url: str) -> Iterator[None]:
    command = [sys.executable, "-m", "benchmarks.batch.worker", str(folder)]
    env = {**os.environ, "SPECIATE_BATCH_POSTGRES": url}
    processes = [subprocess.Popen(command, env=env) for _ in range(num)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


PARTS = {
    "server": (server, 30_000),
    "throughput": (throughput, 30_000),
    "million": (million, 1_000_000),
    "postgres": (postgres, 20_000),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.batch")
    parser.add_argument("parts", nargs="+", choices=PARTS)
    parser.add_argument("--lines", type=int, help="instead of each part's own number")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--scratch", type=Path, help="where files and database lie while it runs")
    given = parser.parse_args()
    results: dict[str, Any] = {"machine": describe_machine(), "at": time.strftime("%Y-%m-%d %H:%M")}
    for name in given.parts:
        measure, num_lines = PARTS[name]
        with (
            tempfile.TemporaryDirectory(dir=given.scratch) as folder,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            Path(folder).chmod(0o755)  # Postgres runs as a user of its own
            collect_seldom()  # as the server does when it starts
            results[name] = runner.run(measure(Path(folder), given.lines or num_lines))
        if given.json is not None:
            given.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
