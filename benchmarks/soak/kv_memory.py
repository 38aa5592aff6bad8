"""What the KV cache really takes: every block written once, and how much the process has grown by it.

KV memory is taken from the system when a block is first written, so growth over a fill is the memory of its blocks and
of what else is met for the first time meanwhile (kernels, the heap). So the fill is watched in parts: what every part
grows by alike is KV.
"""

import asyncio
import random
import statistics

import psutil
from msgspec import Struct
from openai import AsyncOpenAI

from speciate.bench.server import get_text

PROMPT_TOKENS = 1_920
"""60 blocks, within the pocket model's context."""
NUM_PARTS = 10
"""Of the whole cache; the first one warms what is not KV."""
TOLERANCE = 0.02


class KvMemory(Struct, frozen=True):
    """MiB: what the settings allow, what the server says that its blocks take, what the blocks of a part of the fill
    should take, and what the process grew by in each part but the first."""

    budget_mib: float
    reported_mib: float
    part_mib: float
    grown_mib: tuple[float, ...]

    @property
    def error(self) -> float:
        """Of the median part's growth, relative."""
        return statistics.median(self.grown_mib) / self.part_mib - 1

    @property
    def is_kept(self) -> bool:
        """Neither the report nor the real memory is off by more than the tolerance, and the budget is not passed."""
        used = self.reported_mib / self.budget_mib
        return 1 - TOLERANCE <= used <= 1 and abs(self.error) <= TOLERANCE


async def measure_kv(url: str, server: psutil.Process, client: AsyncOpenAI, budget_mib: float) -> KvMemory:
    """Fills the whole cache with prompts that have nothing in common, in batch."""
    page = await get_text(f"{url}/metrics")
    num_bytes = read_gauge(page, "speciate:kv_cache_bytes")
    num_prompts = int(read_gauge(page, "speciate:kv_cache_tokens")) // PROMPT_TOKENS // NUM_PARTS
    part_bytes = num_bytes / read_gauge(page, "speciate:kv_cache_tokens") * num_prompts * PROMPT_TOKENS
    rng = random.Random(1)
    grown: list[float] = []
    for _ in range(NUM_PARTS):
        before = server.memory_info().rss
        await _send(client, rng, num_prompts)
        grown.append(_mib(server.memory_info().rss - before))
    return KvMemory(_mib(budget_mib * 2**20), _mib(num_bytes), _mib(part_bytes), tuple(grown[1:]))


def _mib(num_bytes: float) -> float:
    return round(num_bytes / 2**20, 2)


def read_gauge(page: str, name: str) -> float:
    """The largest value of a metric on a page."""
    return max(float(line.rsplit(" ", 1)[1]) for line in page.splitlines() if line.startswith(name + "{"))


async def _send(client: AsyncOpenAI, rng: random.Random, num_prompts: int) -> None:
    """Four at a time."""
    left = iter(range(num_prompts))

    async def worker() -> None:
        for _ in left:
            tokens = [rng.randrange(300, 900) for _ in range(PROMPT_TOKENS)]
            await client.completions.create(
                model="pocket", prompt=tokens, max_tokens=1, temperature=0, extra_body={"service_tier": "flex"}
            )

    await asyncio.gather(*(worker() for _ in range(4)))
