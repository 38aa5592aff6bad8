"""Real traces as streams of requests: Azure CSV, Mooncake JSONL, a plain CSV of our own. One row at a time."""

import csv
import os
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import msgspec
from msgspec import Struct

from speciate.core.errors import ConfigError
from speciate.core.segment import Tier
from speciate.sim.workload import SimRequest, Span, make_request

MOONCAKE_BLOCK = 512
"""Tokens that one of its hash ids stands for."""


class MooncakeRow(Struct):
    """A line of the traces in kvcache-ai/Mooncake (FAST'25)."""

    timestamp: float
    """Milliseconds after the start."""
    input_length: int
    output_length: int
    hash_ids: list[int] = []


def read_azure(path: Path, tier: Tier) -> Iterator[SimRequest]:
    """`TIMESTAMP,ContextTokens,GeneratedTokens` (Azure Public Dataset 2023, 2024); times from the first row."""
    start: datetime | None = None
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        names = next(rows)
        time, prompt, output = (names.index(name) for name in ("TIMESTAMP", "ContextTokens", "GeneratedTokens"))
        for row in filter(None, rows):
            at = datetime.fromisoformat(row[time][:26])
            start = at if start is None else start
            yield make_request((at - start).total_seconds(), tier, int(row[prompt]), int(row[output]))


def read_mooncake(path: Path, tier: Tier) -> Iterator[SimRequest]:
    """JSON lines with prefix hashes: equal leading ids are equal leading blocks of 512 tokens."""
    decoder = msgspec.json.Decoder(MooncakeRow)
    with path.open("rb") as file:
        for line in file:
            row = decoder.decode(line)
            spans = _spans(row.hash_ids, row.input_length)
            yield make_request(row.timestamp / 1000, tier, row.input_length, row.output_length, spans=spans)


def _spans(hash_ids: list[int], num_tokens: int) -> tuple[Span, ...]:
    """Ids of other kinds of spans are small; these are moved out of their way."""
    lengths = [min(MOONCAKE_BLOCK, num_tokens - MOONCAKE_BLOCK * i) for i in range(len(hash_ids))]
    return tuple(Span(hash_id + (1 << 40), num) for hash_id, num in zip(hash_ids, lengths, strict=True) if num > 0)


def read_plain(path: Path, tier: Tier) -> Iterator[SimRequest]:
    """`at_s,prompt_tokens,output_tokens` and, where there, `tier` and `tenant`."""
    for row in _rows(path):
        row_tier = Tier(row["tier"]) if row.get("tier") else tier
        lengths = int(row["prompt_tokens"]), int(row["output_tokens"])
        yield make_request(float(row["at_s"]), row_tier, *lengths, tenant=row.get("tenant") or "default")


READERS: dict[str, Callable[[Path, Tier], Iterator[SimRequest]]] = {
    "azure": read_azure,
    "mooncake": read_mooncake,
    "plain": read_plain,
}


def read_trace(path: Path, tier: Tier) -> Iterator[SimRequest]:
    """Any of the three, known by how it begins; rows without a tier get `tier`. Raises ConfigError."""
    kind, last_s = "text", 0.0
    try:
        kind = _kind(path)
        for request in READERS[kind](path, tier):
            if request.at_s < last_s:
                raise ConfigError(f"{path}: a row at {request.at_s:.3f} s follows one at {last_s:.3f} s; sort it")
            last_s = request.at_s
            yield request
    except OSError as error:
        raise ConfigError(f"Cannot read the trace {path}: {os.strerror(error.errno or 0)}. Check the path.") from error
    except (LookupError, ValueError) as error:
        raise ConfigError(f"{path} is not a {kind} trace: {error}") from error


def _kind(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        head = file.readline()
    if head.startswith("{"):
        return "mooncake"
    return "azure" if "ContextTokens" in head else "plain"


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)
