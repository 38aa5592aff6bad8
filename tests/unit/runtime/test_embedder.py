import asyncio

import numpy as np
import pytest

from speciate.core.errors import ContextLengthExceeded, EngineFailed, ShuttingDown
from speciate.core.request import EmbedRequest
from speciate.core.segment import Segment, Slo, Tier
from speciate.runtime.clock import MonotonicClock
from speciate.runtime.device import Device
from speciate.runtime.embedder import MAX_STEP_TOKENS, Embedder

INTERACTIVE = Segment("i", Tier.INTERACTIVE, Slo())


class SumEngine:
    """A real, tiny embedding function: the vector of a row is its (sum, length)."""

    model = "sums"
    dimensions = 2
    context_tokens = 300

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.fails = False

    def embed(self, inputs: tuple[tuple[int, ...], ...]) -> tuple[bytes, ...]:
        if self.fails:
            raise RuntimeError("broken")
        self.batches.append(len(inputs) * max(map(len, inputs)))
        return tuple(np.array([sum(row), len(row)], dtype="<f4").tobytes() for row in inputs)

    def close(self) -> None:
        self.batches.append(-1)


def _request(*rows: tuple[int, ...]) -> EmbedRequest:
    return EmbedRequest("r", "sums", rows, INTERACTIVE, 0.0)


async def test_rows_come_back_in_order_in_bounded_steps() -> None:
    engine, device = SumEngine(), Device("test")
    embedder = Embedder(engine, device, MonotonicClock())
    embedder.start()
    rows = tuple(tuple(range(1 + n % 200)) for n in range(100))
    vectors = await embedder.embed(_request(*rows))
    assert [tuple(np.frombuffer(v, "<f4")) for v in vectors] == [(sum(r), len(r)) for r in rows]
    assert max(engine.batches) <= MAX_STEP_TOKENS
    await embedder.stop()
    await device.close()
    assert engine.batches[-1] == -1


async def test_bad_rows_and_failures_are_told_and_the_next_request_is_served() -> None:
    engine, device = SumEngine(), Device("test")
    embedder = Embedder(engine, device, MonotonicClock())
    embedder.start()
    with pytest.raises(ContextLengthExceeded, match="300 tokens; input 1 has 301"):
        await embedder.embed(_request((1,), tuple(range(301))))
    engine.fails = True
    with pytest.raises(EngineFailed, match="broken"):
        await embedder.embed(_request((1,)))
    engine.fails = False
    assert len(await embedder.embed(_request((1,)))) == 1
    await embedder.stop()
    with pytest.raises(ShuttingDown):
        await embedder.embed(_request((1,)))
    await device.close()


async def test_a_caller_that_leaves_takes_its_rows_along() -> None:
    engine, device = SumEngine(), Device("test")
    embedder = Embedder(engine, device, MonotonicClock())
    leaving = asyncio.create_task(embedder.embed(_request((1, 2))))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    embedder.start()
    await embedder.embed(_request((1,)))
    assert engine.batches == [1]
    await embedder.stop()
    await device.close()
