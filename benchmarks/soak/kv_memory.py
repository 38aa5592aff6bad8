"""What the KV cache really takes: every block written once, and how much the process has grown by it.

KV memory is taken from the system when a block is first written, so growth over a fill is the memory of its blocks.
"""

import asyncio
import random

import psutil
from msgspec import Struct
from openai import AsyncOpenAI

from speciate.bench.server import get_text

PROMPT_TOKENS = 1_920
"""60 blocks, within the pocket model's context."""
WARM_PROMPTS = 32
TOLERANCE = 0.02


class KvMemory(Struct, frozen=True):
    """MiB: what the settings allow, what the server says that its blocks take, what the process grew by for the blocks
    that were written while it was watched, and what those should take."""

    budget_mib: float
    reported_mib: float
    written_mib: float
    grown_mib: float

    @property
    def error(self) -> float:
        """Of the growth, relative."""
        return self.grown_mib / self.written_mib - 1

    @property
    def is_kept(self) -> bool:
        """Neither the report nor the real memory is off by more than the tolerance, and the budget is not passed."""
        used = self.reported_mib / self.budget_mib
        return 1 - TOLERANCE <= used <= 1 and abs(self.error) <= TOLERANCE


async def measure_kv(url: str, server: psutil.Process, client: AsyncOpenAI, budget_mib: float) -> KvMemory:
    """Fills the whole cache with prompts that have nothing in common, in batch."""
    page = await get_text(f"{url}/metrics")
    num_bytes = read_gauge(page, "speciate:kv_cache_bytes")
    num_tokens = int(read_gauge(page, "speciate:kv_cache_tokens"))
    rng = random.Random(1)
    await _send(client, rng, WARM_PROMPTS)  # what the engine allocates for its own work is there from now on
    before = server.memory_info().rss
    left_tokens = num_tokens - WARM_PROMPTS * PROMPT_TOKENS
    await _send(client, rng, -(-left_tokens // PROMPT_TOKENS))
    grown = server.memory_info().rss - before
    written = num_bytes * left_tokens / num_tokens
    return KvMemory(*(round(b / 2**20, 2) for b in (budget_mib * 2**20, num_bytes, written, grown)))


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
