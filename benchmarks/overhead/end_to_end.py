"""What is left of the raw engine loop's tokens/s at 8 streams over HTTP: `python -m benchmarks.overhead.end_to_end`.

Random weights of a real 0.5 B shape, 8-bit. In turn, several rounds: the bare loop (engine.step on a fixed plan of 8
decodes, sampling included, nothing else) and 8 streams from our server through a raw HTTP client on the same two cores.
Both count tokens between the moment when all 8 decode and the moment when the first ends.
"""

import argparse
import asyncio
import json
import shutil
import statistics
import time
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.engine.weights import FULL, QUICK, prepare
from speciate.bench.machine import describe_machine
from speciate.bench.server import running_server
from speciate.core.engine import SequenceSpec, SequenceStep, StepPlan
from speciate.core.request import SamplingParams
from speciate.engines.openvino.engine import OpenVinoEngine
from speciate.engines.openvino.options import OpenVinoOptions
from speciate.models.pocket import TEXT_DIR

NUM_STREAMS = 8
PROMPT_TOKENS = 64
SHOWN_TOKEN = 300
"""Random weights would say tokens that have no text; a bias, in both loops, makes each say this one."""
TARGET = 0.92


def model_folder(is_quick: bool, cache: Path) -> Path:
    """The random model, with the pocket model's tokenizer so that the server can detokenise."""
    folder = prepare(QUICK if is_quick else FULL, cache, ("hf",))["hf"]
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TEXT_DIR / name, folder / name)
    return folder


class RawLoop:
    """The engine and a plan; nothing of ours in between."""

    def __init__(self, folder: Path) -> None:
        self._engine = OpenVinoEngine.load(folder, OpenVinoOptions(kv_bytes=256 << 20))
        self._block_tokens = self._engine.shape.block_tokens

    def tokens_per_s(self, num_steps: int) -> float:
        """Decode rate of 8 sequences after their prompts."""
        greedy = SamplingParams(temperature=0, logit_bias=((SHOWN_TOKEN, 100.0),))
        prompt = tuple(range(10, 10 + PROMPT_TOKENS))
        for seq_id in range(NUM_STREAMS):
            self._engine.add(SequenceSpec(seq_id, prompt, greedy))
        self._step(tuple(self._share(n, prompt, 0) for n in range(NUM_STREAMS)))
        started_s = time.perf_counter()
        for place in range(PROMPT_TOKENS, PROMPT_TOKENS + num_steps):
            self._step(tuple(self._share(n, (7,), place) for n in range(NUM_STREAMS)))
        elapsed_s = time.perf_counter() - started_s
        for seq_id in range(NUM_STREAMS):
            self._engine.remove(seq_id)
        return num_steps * NUM_STREAMS / elapsed_s

    def _step(self, shares: tuple[SequenceStep, ...]) -> None:
        self._engine.step(StepPlan(0, shares))

    def _share(self, number: int, tokens: tuple[int, ...], start: int) -> SequenceStep:
        num_blocks = -(-(start + len(tokens)) // self._block_tokens)
        first = number * 32
        return SequenceStep(number, tokens, start, tuple(range(first, first + num_blocks)), samples=True)


async def streamed_tokens_per_s(url: str, num_tokens: int) -> float:
    """Chunks a second while all streams run."""
    firsts: list[float] = []
    lasts: list[float] = []
    stamps: list[float] = []

    async def one(session: aiohttp.ClientSession, number: int) -> None:
        prompt = [10 + number, *range(11, 10 + PROMPT_TOKENS)]
        body = {"model": "big", "prompt": prompt, "max_tokens": num_tokens, "temperature": 0, "stream": True,
                "ignore_eos": True, "service_tier": "flex", "logit_bias": {str(SHOWN_TOKEN): 100}}  # fmt: skip
        mine: list[float] = []
        async with session.post(f"{url}/v1/completions", json=body) as response:
            response.raise_for_status()
            async for block in response.content.iter_any():
                mine += [time.perf_counter()] * block.count(b"data: {")
        firsts.append(mine[0])
        lasts.append(mine[-1])
        stamps.extend(mine)

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(one(session, n) for n in range(NUM_STREAMS)))
    start_s, end_s = max(firsts), min(lasts)
    return sum(start_s < s <= end_s for s in stamps) / (end_s - start_s)


async def main() -> None:
    given = _arguments()
    rounds, num_tokens = (3, 64) if given.quick else (5, 160)
    folder = model_folder(given.quick, given.cache)
    raw, streamed = [], []
    loop = RawLoop(folder)
    log = Path("out/end-to-end-server.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    async with running_server(str(folder), "--name", "big", "--kv-mib", "256", log=log) as url:
        await streamed_tokens_per_s(url, 32)
        loop.tokens_per_s(16)
        for _ in range(rounds):
            raw.append(loop.tokens_per_s(num_tokens))
            streamed.append(await streamed_tokens_per_s(url, num_tokens))
            print(f"raw loop {raw[-1]:7.1f} tokens/s   8 streams over HTTP {streamed[-1]:7.1f} tokens/s", flush=True)
    document = _document(raw, streamed)
    print(f"kept: {document['kept']['median']:.1%} of the raw loop (target {TARGET:.0%})")
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(document, indent=2))


def _document(raw: list[float], streamed: list[float]) -> dict[str, Any]:
    kept = [s / r for r, s in zip(raw, streamed, strict=True)]

    def summary(values: list[float], digits: int) -> dict[str, float]:
        return {f.__name__: round(f(values), digits) for f in (statistics.median, min, max)}

    return {
        "raw_tokens_per_s": summary(raw, 1),
        "streamed_tokens_per_s": summary(streamed, 1),
        "kept": summary(kept, 4),
        "target": TARGET,
        "settings": {"streams": NUM_STREAMS, "prompt_tokens": PROMPT_TOKENS, "weights": "int8", "kv": "u8"},
        "machine": describe_machine(),
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.overhead.end_to_end")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="four layers, three short rounds")
    parser.add_argument("--cache", type=Path, default=Path("out/bench-models"), help="where random models are kept")
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(main())
