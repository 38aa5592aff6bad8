"""The oneshot shape for embeddings: rows of many requests share a step; a step is bounded so that text steps get in.

Longest wait in a tier first, tiers by rank. Each row is one unit of work; a request is done when its rows are.
"""

import asyncio
import heapq
import itertools
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from speciate.core.engine import EmbedEngine
from speciate.core.errors import ContextLengthExceeded, EngineFailed, InvalidRequest, ShuttingDown
from speciate.core.ports import Clock
from speciate.core.request import EmbedRequest
from speciate.core.segment import TIER_RANK
from speciate.runtime.device import Device

log = logging.getLogger(__name__)

MAX_STEP_TOKENS = 512
"""Padded tokens a step may hold: bounds how long a real-time text step waits behind an embedding step."""


@dataclass(order=True, slots=True)
class _Row:
    rank: int
    ticket: int
    tokens: tuple[int, ...] = field(compare=False)
    vector: "asyncio.Future[bytes]" = field(compare=False)


class Embedder:
    """Queues rows and runs them in batches on a shared device. `start` before use, `stop` once."""

    def __init__(self, engine: EmbedEngine, device: Device, clock: Clock) -> None:
        self._engine = engine
        self._device = device
        self._clock = clock
        self._rows: list[_Row] = []
        self._tickets = itertools.count()
        self._work_arrived = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None
        self._is_stopping = False

    @property
    def engine(self) -> EmbedEngine:
        return self._engine

    @property
    def num_waiting(self) -> int:
        return len(self._rows)

    @property
    def is_healthy(self) -> bool:
        return self._loop is not None and not self._loop.done()

    def start(self) -> None:
        self._loop = asyncio.get_running_loop().create_task(self._run(), name=f"embedder-{self._engine.model}")

    async def stop(self) -> None:
        """End after the running step; rows that wait raise ShuttingDown."""
        self._is_stopping = True
        self._work_arrived.set()
        if self._loop is not None:
            await self._loop
        for row in self._rows:
            if not row.vector.done():
                row.vector.set_exception(ShuttingDown("The server is shutting down; send the request again elsewhere."))
        self._engine.close()

    async def embed(self, request: EmbedRequest) -> tuple[bytes, ...]:
        """Vectors in input order. Raises InvalidRequest, EngineFailed, ShuttingDown. Cancelling drops waiting rows."""
        if self._is_stopping:
            raise ShuttingDown("The server is shutting down; send the request again elsewhere.")
        self._validate(request)
        rows = [self._row(request, tokens) for tokens in request.inputs]
        for row in rows:
            heapq.heappush(self._rows, row)
        self._work_arrived.set()
        try:
            return tuple(await asyncio.gather(*(row.vector for row in rows)))
        finally:
            for row in rows:
                row.vector.cancel()

    def _validate(self, request: EmbedRequest) -> None:
        limit = self._engine.context_tokens
        for index, tokens in enumerate(request.inputs):
            if not tokens:
                raise InvalidRequest(f"Input {index} has no tokens; send at least one.", param="input")
            if len(tokens) > limit:
                raise ContextLengthExceeded(
                    f"This model's context is {limit} tokens; input {index} has {len(tokens)}. Split it.", param="input"
                )

    def _row(self, request: EmbedRequest, tokens: tuple[int, ...]) -> _Row:
        vector: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        return _Row(TIER_RANK[request.segment.tier], next(self._tickets), tokens, vector)

    async def _run(self) -> None:
        while not self._is_stopping:
            batch = self._take()
            if batch:
                await self._step(batch)
            else:
                self._work_arrived.clear()
                await self._work_arrived.wait()

    def _take(self) -> list[_Row]:
        """The most urgent rows that fit a step when padded to the longest of them."""
        batch: list[_Row] = []
        longest = 0
        while self._rows:
            if self._rows[0].vector.done():
                heapq.heappop(self._rows)
                continue
            longest = max(longest, len(self._rows[0].tokens))
            if batch and longest * (len(batch) + 1) > MAX_STEP_TOKENS:
                break
            batch.append(heapq.heappop(self._rows))
        return batch

    async def _step(self, batch: list[_Row]) -> None:
        inputs = tuple(row.tokens for row in batch)
        try:
            vectors = await self._device.submit(batch[0].rank, self._guarded(inputs))
        except EngineFailed as error:
            for row in batch:
                if not row.vector.done():
                    row.vector.set_exception(error)
            return
        for row, vector in zip(batch, vectors, strict=True):
            if not row.vector.done():
                row.vector.set_result(vector)

    def _guarded(self, inputs: tuple[tuple[int, ...], ...]) -> Callable[[], tuple[bytes, ...]]:
        """The step that the worker thread runs."""

        def run() -> tuple[bytes, ...]:
            try:
                return self._engine.embed(inputs)
            except EngineFailed:
                raise
            except Exception as error:  # the boundary to model runtimes: whatever they raise, only this step is lost
                log.exception("an embedding step failed")
                raise EngineFailed(f"The embedding engine failed: {error}. Send the request again.") from error

        return run
