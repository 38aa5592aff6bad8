"""Sends jobs open-loop through the official OpenAI client: each at its own time, however late the others are."""

import asyncio
import itertools
import time
from collections.abc import Callable

import openai
from msgspec import Struct
from openai import AsyncOpenAI

from speciate.bench.workload import Job
from speciate.core.segment import Tier
from speciate.models.pocket.tasks import is_correct

SERVICE_TIER = {Tier.REALTIME: "priority", Tier.INTERACTIVE: "default", Tier.BATCH: "flex"}
"""What OpenAI's API calls our tiers."""


class Outcome(Struct, frozen=True):
    """What one job got. Times are seconds from its scheduled arrival; None where it never came so far."""

    index: int
    tier: Tier
    at_s: float
    ttft_s: float | None
    e2e_s: float | None
    gaps_s: tuple[float, ...]
    """Between two consecutive text events."""
    prompt_tokens: int
    output_tokens: int
    served_tier: str | None
    is_correct: bool
    error: str | None

    @property
    def tpot_s(self) -> float | None:
        """Mean seconds an output token after the first."""
        if self.ttft_s is None or self.e2e_s is None or self.output_tokens < 2:
            return None
        return (self.e2e_s - self.ttft_s) / (self.output_tokens - 1)


async def send_all(
    client: AsyncOpenAI, model: str, jobs: tuple[Job, ...], on_outcome: Callable[[Outcome], None]
) -> None:
    """Send each job at `start + job.at_s`; `on_outcome` hears of each as it ends."""
    start_s = time.perf_counter() + 0.2

    async def one(job: Job) -> None:
        await asyncio.sleep(max(0.0, start_s + job.at_s - time.perf_counter()))
        on_outcome(await send(client, model, job, start_s + job.at_s))

    await asyncio.gather(*(one(job) for job in jobs))


async def send(client: AsyncOpenAI, model: str, job: Job, due_s: float) -> Outcome:
    """Stream one job; `due_s` is when it should have been sent (perf_counter), from which all times count."""
    record = _Recorder(job, due_s)
    try:
        stream = await client.chat.completions.create(
            model=model,
            messages=list(job.task.messages),
            max_tokens=job.max_tokens,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
            service_tier=SERVICE_TIER[job.tier],
        )  # type: ignore[call-overload]
        async for chunk in stream:
            record.take(chunk)
    except openai.APIError as error:
        return record.outcome(f"{type(error).__name__}: {error}")
    return record.outcome(None)


class _Recorder:
    """Gathers one stream's times and text."""

    def __init__(self, job: Job, due_s: float) -> None:
        self._job = job
        self._due_s = due_s
        self._texts: list[str] = []
        self._times_s: list[float] = []
        self._usage = (0, 0)
        self._tier: str | None = None

    def take(self, chunk: openai.types.chat.ChatCompletionChunk) -> None:
        if chunk.choices and chunk.choices[0].delta.content:
            self._texts.append(chunk.choices[0].delta.content)
            self._times_s.append(time.perf_counter() - self._due_s)
        if chunk.usage is not None:
            self._usage = (chunk.usage.prompt_tokens, chunk.usage.completion_tokens)
        if chunk.service_tier is not None:
            self._tier = chunk.service_tier

    def outcome(self, error: str | None) -> Outcome:
        times = self._times_s
        return Outcome(
            index=self._job.index,
            tier=self._job.tier,
            at_s=self._job.at_s,
            ttft_s=times[0] if times else None,
            e2e_s=times[-1] if times and error is None else None,
            gaps_s=tuple(b - a for a, b in itertools.pairwise(times)),
            prompt_tokens=self._usage[0],
            output_tokens=self._usage[1],
            served_tier=self._tier,
            is_correct=error is None and is_correct(self._job.task, "".join(self._texts)),
            error=error,
        )
