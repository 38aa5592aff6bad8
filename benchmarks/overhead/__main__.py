"""CPU time of requests and streamed tokens without a model: `python -m benchmarks.overhead [--json PATH] [--quick]`.

Subjects, in turn, several rounds: our server around the fake engine, plain Starlette echo, llama.cpp's server with a
tiny model (where its wheel is installed). A request's cost is that of one unary request for one token; a token's is the
difference between streams of many tokens and of one. Servers may merge tokens that come close together into one chunk:
so it is tokens that count. Steps pause 2 ms. Ours includes what the fake engine itself computes in Python (a hash a
prompt token).
"""

import argparse
import asyncio
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from msgspec import Struct
from rich.console import Console
from rich.table import Table

from benchmarks.overhead.wire import Load, measure, wait_until_up
from speciate.bench.machine import describe_machine
from speciate.bench.server import free_port

CONCURRENCY = 8
LONG_TOKENS = 200


class Subject(Struct, frozen=True):
    """A server to measure: how it is started, and what is asked of it."""

    name: str
    command: tuple[str, ...]
    body: dict[str, Any]
    settings: str


class Figures(Struct, frozen=True):
    """One round: CPU microseconds of the server."""

    request_us: float
    token_us: float
    stream_request_us: float


def subjects() -> list[Subject]:
    message = {"messages": [{"role": "user", "content": "hello " * 40}]}
    python = sys.executable
    found = [
        Subject("speciate", (python, "-m", "benchmarks.overhead.fake_server"), {**message, "model": "fake"},
                "gateway, admission, scheduler, detokeniser, front door; the fake engine sleeps 2 ms a step"),
        Subject("starlette echo", (python, "-m", "benchmarks.overhead.echo_server"), {**message, "model": "fake"},
                "uvicorn with uvloop and httptools; json; 2 ms between chunks"),
    ]  # fmt: skip
    if importlib.util.find_spec("xllamacpp") and importlib.util.find_spec("gguf"):
        found.append(
            Subject("llama-server", (python, "-m", "benchmarks.overhead.llama_server"),
                    {**message, "model": "tiny", "ignore_eos": True, "cache_prompt": False},
                    "xllamacpp, one layer of width 64, f16, 1 thread, 32 slots"),
        )  # fmt: skip
    return found


@contextmanager
def running(subject: Subject, folder: Path) -> Iterator[tuple[str, int]]:
    """The subject's chat URL and process id."""
    port = free_port()
    log = (folder / "server.log").open("wb")
    command = [*subject.command, str(port), *([str(folder)] if subject.name == "llama-server" else [])]
    process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield f"http://127.0.0.1:{port}/v1/chat/completions", process.pid
    finally:
        process.kill()
        process.wait()
        log.close()


async def one_round(url: str, pid: int, body: dict[str, Any], scale: int) -> Figures:
    unary = await measure(url, pid, body, Load(100 * scale, CONCURRENCY, 1, stream=False))
    short = await measure(url, pid, body, Load(50 * scale, CONCURRENCY, 1, stream=True))
    long = await measure(url, pid, body, Load(8 * scale, CONCURRENCY, LONG_TOKENS, stream=True))
    short_us = 1e6 * short.cpu_s / short.num_requests
    token_us = (1e6 * long.cpu_s / long.num_requests - short_us) / (LONG_TOKENS - 1)
    return Figures(1e6 * unary.cpu_s / unary.num_requests, token_us, short_us)


async def main() -> None:
    given = _arguments()
    rounds, scale = (2, 2) if given.quick else (5, 10)
    results: dict[str, list[Figures]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tested = subjects()
        for _ in range(rounds):
            for subject in tested:
                with running(subject, folder) as (url, pid):
                    await wait_until_up(url, subject.body)
                    await one_round(url, pid, subject.body, 1)
                    results.setdefault(subject.name, []).append(await one_round(url, pid, subject.body, scale))
    document = _document(results, tested)
    _print(document)
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(document, indent=2))


def _document(results: dict[str, list[Figures]], tested: list[Subject]) -> dict[str, Any]:
    def summary(values: list[float]) -> dict[str, float]:
        return {
            "median": round(statistics.median(values), 1),
            "min": round(min(values), 1),
            "max": round(max(values), 1),
        }

    return {
        "machine": describe_machine(),
        "settings": {s.name: s.settings for s in tested},
        "cpu_us": {
            name: {f: summary([getattr(r, f) for r in rounds]) for f in Figures.__struct_fields__}
            for name, rounds in results.items()
        },
    }


def _print(document: dict[str, Any]) -> None:
    view = Table(title="CPU microseconds of the server process: median (min to max)")
    for column in ("server", "unary request", "streamed request", "streamed token"):
        view.add_column(column, justify="left" if column == "server" else "right")
    for name, figures in document["cpu_us"].items():
        cells = (figures[f] for f in ("request_us", "stream_request_us", "token_us"))
        view.add_row(name, *(f"{c['median']:,.0f} ({c['min']:,.0f} to {c['max']:,.0f})" for c in cells))
    Console().print(view)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.overhead")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="two short rounds, under a minute")
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(main())
