"""What LoRA adapters cost a decoding step, mixed in one step or one adapter a step:
`python -m benchmarks.engine.adapters [--json PATH] [--quick]`.

The same random base and adapters throughout; every adapter changes all seven matmuls of every layer.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from rich.console import Console
from rich.table import Table
from safetensors.numpy import save_file

from benchmarks.engine.weights import FULL, QUICK, ModelSize, prepare
from speciate.bench.machine import describe_machine
from speciate.core.engine import SequenceSpec, SequenceStep, StepPlan
from speciate.core.request import SamplingParams
from speciate.engines.openvino import AdapterFolder, OpenVinoEngine, OpenVinoOptions

NUM_ADAPTERS = 4
RANK = 16
NUM_ROWS = 8
CONTEXT_TOKENS = 256
BLOCKS_EACH = 16


def write_adapter(size: ModelSize, folder: Path, seed: int) -> Path:
    rng = np.random.default_rng(seed)
    tensors: dict[str, Any] = {}
    for name, shape in size.shapes():
        if name.endswith("_proj.weight"):
            stem = "base_model.model." + name.removesuffix(".weight")
            tensors[f"{stem}.lora_A.weight"] = rng.normal(0, 0.02, (RANK, shape[1])).astype(np.float32)
            tensors[f"{stem}.lora_B.weight"] = rng.normal(0, 0.02, (shape[0], RANK)).astype(np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": RANK, "lora_alpha": 2 * RANK}))
    return folder


def load(path: Path, options: OpenVinoOptions, adapters: tuple[str | None, ...]) -> OpenVinoEngine:
    """An engine with one sequence a row, row i using `adapters[i]`, each with its context computed."""
    engine = OpenVinoEngine.load(path, options)
    for row, adapter in enumerate(adapters):
        engine.add(SequenceSpec(row, (), SamplingParams(temperature=0), adapter=adapter))
        engine.step(StepPlan(0, (_part(row, [5 + row] * CONTEXT_TOKENS, 0),)))
    return engine


def decode_s(engine: OpenVinoEngine, groups: list[list[int]]) -> float:
    """Seconds to decode one token for every row, a step a group."""
    start = time.perf_counter()
    for group in groups:
        engine.step(StepPlan(0, tuple(_part(row, [7], CONTEXT_TOKENS) for row in group)))
    return time.perf_counter() - start


def _part(row: int, tokens: list[int], start: int) -> SequenceStep:
    blocks = tuple(range(row * BLOCKS_EACH, (row + 1) * BLOCKS_EACH))
    return SequenceStep(row, tuple(tokens), start, blocks, True)


def main() -> None:
    given = _arguments()
    size = QUICK if given.quick else FULL
    path = prepare(size, given.cache, ("hf",))["hf"]
    with tempfile.TemporaryDirectory() as name:
        made = [write_adapter(size, Path(name) / str(i), i) for i in range(NUM_ADAPTERS)]
        folders = tuple(AdapterFolder(f"adapter-{i}", folder) for i, folder in enumerate(made))
        plain = OpenVinoOptions(kv_bytes=1 << 28, threads=given.threads)
        with_adapters = msgspec.structs.replace(plain, adapters=folders)
        owners = tuple(folders[row % NUM_ADAPTERS].name for row in range(NUM_ROWS))
        none = (None,) * NUM_ROWS
        bare, based, mixed = load(path, plain, none), load(path, with_adapters, none), load(path, with_adapters, owners)
    rows = list(range(NUM_ROWS))
    by_adapter = [rows[i::NUM_ADAPTERS] for i in range(NUM_ADAPTERS)]
    cases: dict[str, Callable[[], float]] = {
        "no adapters built in": lambda: decode_s(bare, [rows]),
        "built in, base rows only": lambda: decode_s(based, [rows]),
        "all adapters in one step": lambda: decode_s(mixed, [rows]),
        "one adapter a step": lambda: decode_s(mixed, by_adapter),
    }
    seconds = _interleave(cases, 6 if given.quick else 40)
    _report(given.json, size, given.threads, seconds)


def _interleave(cases: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Each case some times in a row, in turn; its first two answers of a turn are thrown away."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, measure in cases.items():
            seconds[name].extend([measure() for _ in range(5)][2:])
    return seconds


def _report(target: Path | None, size: ModelSize, threads: int, seconds: dict[str, list[float]]) -> None:
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    first = medians["no adapters built in"]
    view = Table(title=f"{NUM_ROWS} rows, {NUM_ADAPTERS} adapters of rank {RANK}, {size.name}")
    for column in ("case", "ms for all rows", "of no adapters"):
        view.add_column(column)
    for name, value in medians.items():
        view.add_row(name, f"{1000 * value:.1f}", f"{value / first:.2f}")
    Console().print(view)
    document = {
        "machine": describe_machine(),
        "model": size.name,
        "threads": threads,
        "rows": NUM_ROWS,
        "adapters": NUM_ADAPTERS,
        "rank": RANK,
        "median_ms": {name: round(1000 * value, 2) for name, value in medians.items()},
        "mixed_over_separate_speedup": round(medians["one adapter a step"] / medians["all adapters in one step"], 3),
    }
    if target:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(document, indent=1) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.engine.adapters")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="four layers, a few rounds")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "speciate-engine-benchmark")
    return parser.parse_args()


if __name__ == "__main__":
    main()
