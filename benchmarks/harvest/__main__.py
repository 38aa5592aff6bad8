"""Idle steps turned into batch work: `python -m benchmarks.harvest [--json PATH] [--quick]`.

One server, interactive documents with the arrivals of a real chat trace, alone and beside a batch that never runs dry,
turn by turn. Says what the batch costs the promises, and how much of the idle time it got.
"""

import argparse
import asyncio
import json
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct
from openai import AsyncOpenAI
from rich.console import Console
from rich.table import Table

from benchmarks.harvest.counters import Counters, read_counters
from speciate.bench.client import Outcome, send_all
from speciate.bench.machine import describe_machine
from speciate.bench.report import is_kept, percentile
from speciate.bench.server import running_server
from speciate.bench.workload import Job, TierLoad, make_workload
from speciate.core.segment import Slo, Tier
from speciate.models.pocket.tasks import extraction_request

TRACES = Path("../shared/data")
PROMISE = Slo(ttft_s=1.0, tpot_s=0.1)
"""What the server promises interactive work by default."""
KINDS = ("invoice", "ticket", "sensor_log")
RAMP_S = 4.0
"""From a batch's start until its lines fill the device."""
MOST_OUTPUT_TOKENS = 200
Kind = Literal["alone", "beside"]


class Turn(Struct, frozen=True):
    """What one run of the load saw. Shares 0..1, tokens of the batch only."""

    kind: Kind
    offered: int
    attainment: float
    ttft_p50_s: float
    ttft_p99_s: float
    tpot_p99_s: float
    busy_share: float
    batch_tokens_per_s: float


def main() -> None:
    """Run the turns, print and write their figures."""
    given = _arguments()
    log = Path("out/harvest/server.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    folder = TRACES if TRACES.is_dir() else None
    document = asyncio.run(_measure(given, log, folder)) | {
        "machine": describe_machine(),
        "seconds_a_turn": given.seconds,
        "interactive_per_s": given.rate,
        "arrivals": "azure_llm_2023_conv" if folder else "generated like azure_llm_2023_conv",
    }
    _print(document)
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(document, indent=1) + "\n")


async def _measure(given: argparse.Namespace, log: Path, traces: Path | None) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as data:
        server = running_server("--data-dir", data, log=log)
        client = AsyncOpenAI(base_url="http://set.below", api_key="local", max_retries=0, timeout=120)
        async with server as url, client:
            client.base_url = f"{url}/v1"
            bench = Bench(url, client, await _upload(client, given.lines))
            most = await bench.batch_only(min(20.0, given.seconds))
            return _figures(await _turns(bench, given, traces), most)


async def _turns(bench: "Bench", given: argparse.Namespace, traces: Path | None) -> list[Turn]:
    """Both kinds on the same arrivals, in an order that alternates."""
    turns: list[Turn] = []
    for number in range(given.rounds):
        load = (TierLoad(Tier.INTERACTIVE, "conv", given.rate, start_s=300.0 * (number + 1)),)
        jobs = make_workload(load, given.seconds, number, traces, 1 / 8).jobs
        kinds: tuple[Kind, Kind] = ("alone", "beside") if number % 2 == 0 else ("beside", "alone")
        for kind in kinds:
            turns.append(await bench.turn(kind, jobs, given.seconds))
            print(f"round {number + 1}, {kind}: {msgspec.json.encode(turns[-1]).decode()}", flush=True)
    return turns


class Bench:
    """A running server, a client of it, and the file that batches are made of."""

    def __init__(self, url: str, client: AsyncOpenAI, input_file_id: str) -> None:
        self._url = url
        self._client = client
        self._file_id = input_file_id

    async def batch_only(self, seconds: float) -> float:
        """Batch tokens a second with nothing else about."""
        batch_id = await self._start_batch()
        before, started_s = await read_counters(self._url), time.perf_counter()
        await asyncio.sleep(seconds)
        after, ended_s = await read_counters(self._url), time.perf_counter()
        await self._end_batch(batch_id)
        return (after.batch_tokens - before.batch_tokens) / (ended_s - started_s)

    async def turn(self, kind: Kind, jobs: tuple[Job, ...], seconds: float) -> Turn:
        batch_id = await self._start_batch() if kind == "beside" else None
        outcomes: list[Outcome] = []
        before, started_s = await read_counters(self._url), time.perf_counter()
        load = asyncio.create_task(send_all(self._client, "pocket", jobs, outcomes.append))
        await asyncio.sleep(seconds)
        after, ended_s = await read_counters(self._url), time.perf_counter()
        await load
        if batch_id is not None:
            await self._end_batch(batch_id)
        return _turn(kind, outcomes, before, after, ended_s - started_s)

    async def _start_batch(self) -> str:
        """File a batch and wait until its lines fill the device."""
        batch = await self._client.batches.create(
            input_file_id=self._file_id, endpoint="/v1/chat/completions", completion_window="24h"
        )
        while batch.status == "validating":
            await asyncio.sleep(0.2)
            batch = await self._client.batches.retrieve(batch.id)
        await asyncio.sleep(RAMP_S)
        return batch.id

    async def _end_batch(self, batch_id: str) -> None:
        batch = await self._client.batches.cancel(batch_id)
        while batch.status in ("in_progress", "finalizing", "cancelling"):
            await asyncio.sleep(0.2)
            batch = await self._client.batches.retrieve(batch_id)
        if batch.status != "cancelled":
            raise RuntimeError(f"the batch ran dry ({batch.status}): ask for more --lines")


async def _upload(client: AsyncOpenAI, num_lines: int) -> str:
    rng = random.Random(0)
    lines = [_line(number, rng) for number in range(num_lines)]
    file = await client.files.create(file=("documents.jsonl", "\n".join(lines).encode()), purpose="batch")
    return file.id


def _line(number: int, rng: random.Random) -> str:
    task = extraction_request(KINDS[number % len(KINDS)], rng, rng.randrange(80, 400))
    body = {"model": "pocket", "messages": list(task.messages), "max_tokens": MOST_OUTPUT_TOKENS, "temperature": 0}
    return json.dumps(
        {"custom_id": f"document-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
    )


def _turn(kind: Kind, outcomes: Sequence[Outcome], before: Counters, after: Counters, wall_s: float) -> Turn:
    ttfts = [o.ttft_s for o in outcomes if o.ttft_s is not None]
    tpots = [o.tpot_s for o in outcomes if o.tpot_s is not None]
    return Turn(
        kind=kind,
        offered=len(outcomes),
        attainment=sum(is_kept(o, PROMISE) for o in outcomes) / len(outcomes),
        ttft_p50_s=percentile(ttfts, 0.5) or 0.0,
        ttft_p99_s=percentile(ttfts, 0.99) or 0.0,
        tpot_p99_s=percentile(tpots, 0.99) or 0.0,
        busy_share=(after.step_s - before.step_s) / wall_s,
        batch_tokens_per_s=(after.batch_tokens - before.batch_tokens) / wall_s,
    )


def _figures(turns: Sequence[Turn], most_tokens_per_s: float) -> dict[str, Any]:
    pairs = list(zip([t for t in turns if t.kind == "alone"], [t for t in turns if t.kind == "beside"], strict=True))
    return {
        "batch_only_tokens_per_s": round(most_tokens_per_s, 1),
        "attainment_points_lost": _spread([100 * (a.attainment - b.attainment) for a, b in pairs]),
        "ttft_p99_ratio": _spread([b.ttft_p99_s / a.ttft_p99_s for a, b in pairs]),
        "ttft_p99_beside_s": _spread([b.ttft_p99_s for _, b in pairs]),
        "idle_share_alone": _spread([1 - a.busy_share for a, _ in pairs]),
        "idle_step_seconds_used": _spread([(b.busy_share - a.busy_share) / (1 - a.busy_share) for a, b in pairs]),
        "idle_tokens_got": _spread([b.batch_tokens_per_s / (most_tokens_per_s * (1 - a.busy_share)) for a, b in pairs]),
        "turns": [msgspec.to_builtins(turn) for turn in turns],
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 4),
        "low": round(min(values), 4),
        "high": round(max(values), 4),
    }


def _print(document: dict[str, Any]) -> None:
    view = Table(title="Interactive work alone and beside a batch")
    for name in ("", "median", "low", "high"):
        view.add_column(name, justify="right" if name else "left")
    for name, cell in document.items():
        if isinstance(cell, dict) and "median" in cell:
            view.add_row(name.replace("_", " "), *(f"{cell[key]:.3f}" for key in ("median", "low", "high")))
    Console().print(view)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.harvest")
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument("--quick", action="store_true", help="one round of 12 seconds")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=45.0, help="length of a turn")
    parser.add_argument("--rate", type=float, default=4.0, help="interactive requests a second")
    parser.add_argument("--lines", type=int, default=20_000, help="lines of a batch: more than a turn can do")
    given = parser.parse_args()
    if given.quick:
        given.rounds, given.seconds, given.lines = 1, 12.0, 3000
    return given


if __name__ == "__main__":
    main()
