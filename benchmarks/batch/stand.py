"""The durable path without HTTP in front or a model behind: real store, real files, real gateway and scheduler.

`dialect` runs each line as a chat completion through the production gateway over the fake engine; `store` answers each
line at once, which leaves the worker, the store and the files.
"""

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from msgspec import Struct

from speciate.admission.admit import AdmissionOptions
from speciate.api.auth import KeyRing
from speciate.api.batches_lines import LineRunner
from speciate.api.call import Services
from speciate.api.options import ApiOptions
from speciate.batch.jobs import BatchJobs
from speciate.batch.line_job import LineJob
from speciate.batch.lines import LineAnswer
from speciate.batch.open import BatchPorts, open_jobs
from speciate.batch.options import BatchOptions
from speciate.batch.order import Credit
from speciate.batch.records import TERMINAL, BatchRecord, BatchSpec
from speciate.core.engine import TokenEngineShape
from speciate.core.segment import Segment, Slo, Tier
from speciate.engines.fake import FakeEngine, StepCost
from speciate.models.catalog import read_model_folder
from speciate.models.pocket import TEXT_DIR
from speciate.models.text_model import TextModel, load_text_model
from speciate.runtime.clock import MonotonicClock
from speciate.runtime.device import Device
from speciate.runtime.gateway import Gateway, ServedModel
from speciate.runtime.replica import Replica
from speciate.scheduling.token import TokenScheduler
from speciate.telemetry.metrics import BatchMetrics, Metrics, ReplicaMetrics

SEGMENTS = {tier: Segment(f"{tier}-text", tier, Slo(e2e_s=86_400.0)) for tier in Tier}
ANSWER_TOKENS = 1
"""A yes or a no: classification, the commonest batch work. Further tokens cost some 20 us of our CPU each."""
STEP_S = 0.02
"""Of the fake engine. One that took no time would be given two lines a step, and every step has its own cost."""
LATER_S = 0.05
MAX_LINES = 1_000_000
ANSWER = (
    b'{"id":"chatcmpl-0","created":1800000000,"model":"fake","choices":[{"index":0,"message":{"content":"Yes.",'
    b'"refusal":null,"role":"assistant"},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":20,'
    b'"completion_tokens":2,"total_tokens":22},"service_tier":"flex","object":"chat.completion"}'
)


class Timing(Struct, frozen=True):
    """One job; `lines_per_s` from its first claim to its last file."""

    num_lines: int
    upload_s: float
    validation_s: float
    run_s: float
    publish_s: float
    lines_per_s: float
    cpu_us_per_line: float
    """Of the whole process, all threads, from creation to the end."""


@asynccontextmanager
async def gateway_ports() -> AsyncGenerator[BatchPorts, None]:
    """Lines go through the gateway, admission, scheduler and detokeniser; a step of the fake engine costs nothing."""
    text = load_text_model(read_model_folder(TEXT_DIR))
    engine = fake_engine(text)
    device, clock, metrics = Device("fake"), MonotonicClock(), Metrics()
    scheduler, codec = TokenScheduler(engine.shape), text.tokenizer
    replica = Replica(engine, scheduler, codec, device, clock, ReplicaMetrics(metrics, "fake"))
    model = ServedModel("fake", "fake", "generate", 2048, 0, "fake", text, segments=SEGMENTS)
    options = ApiOptions()
    gateway = Gateway((model,), {"fake": replica}, {}, AdmissionOptions(), clock, metrics)
    gateway.start()
    runner = LineRunner(Services(gateway, options, KeyRing(())))
    yield BatchPorts(
        runner.run, lambda name: gateway.loads()["fake"].tiers[Tier.BATCH].num_running, {"fake"}.__contains__
    )
    await gateway.stop()
    await device.close()


def fake_engine(text: TextModel) -> FakeEngine:
    """It answers `yes`, in steps of `STEP_S`."""
    folder = read_model_folder(TEXT_DIR)
    shape = TokenEngineShape("fake", folder.vocab_size, 2048, 32, 16_384, 1, folder.eos_token_ids)
    answer = text.tokenizer.encode(" yes", False)
    return FakeEngine(shape, cost=StepCost(fixed_s=STEP_S), script=lambda prompt: answer)


async def answer_at_once(job: LineJob) -> LineAnswer:
    await asyncio.sleep(0)
    return LineAnswer(200, ANSWER, job.request_id)


def instant_ports() -> BatchPorts:
    return BatchPorts(answer_at_once, lambda name: None, {"fake"}.__contains__)


async def answer_later(job: LineJob) -> LineAnswer:
    await asyncio.sleep(LATER_S)
    return LineAnswer(200, ANSWER, job.request_id)


def waiting_ports() -> BatchPorts:
    """A worker whose engine is elsewhere: each line takes a while and none of our CPU."""
    return BatchPorts(answer_later, lambda name: None, {"fake"}.__contains__)


def write_input(path: Path, num_lines: int) -> None:
    """Chat completions of about 220 bytes."""
    with path.open("w", encoding="utf-8") as file:
        for number in range(num_lines):
            body = {
                "model": "fake",
                "max_tokens": ANSWER_TOKENS,
                "messages": [
                    {"role": "system", "content": "Answer yes or no."},
                    {"role": "user", "content": f"Is {number} an even number?"},
                ],
            }
            line = {"custom_id": f"line-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
            file.write(json.dumps(line) + "\n")


@asynccontextmanager
async def open_stand(
    folder: Path, ports: BatchPorts, postgres: str | None, num_at_once: int = 512
) -> AsyncGenerator[BatchJobs, None]:
    options = BatchOptions(
        poll_s=0.25,
        max_lines=MAX_LINES,
        max_file_bytes=1 << 40,
        tenant_bytes=1 << 40,
        credit=Credit(most=num_at_once),
    )
    async with open_jobs(folder, postgres, ports, options, BatchMetrics(Metrics())) as jobs:
        yield jobs


async def submit(jobs: BatchJobs, source: Path) -> tuple[BatchRecord, float]:
    """The batch, and how long it took to store its file."""
    started_s = time.monotonic()
    file_id, part = jobs.begin_file()
    with part, source.open("rb") as file:
        while block := await asyncio.to_thread(file.read, 1 << 20):
            await asyncio.to_thread(part.write, block)
        await asyncio.to_thread(part.keep)
    await jobs.add_file(file_id, "", "batch", source.name, part.num_bytes, None)
    upload_s = time.monotonic() - started_s
    spec = BatchSpec("/v1/chat/completions", file_id, "24h", 86_400.0)
    return await jobs.create_batch("", spec, None), upload_s


async def run_job(jobs: BatchJobs, source: Path, num_lines: int) -> Timing:
    batch, upload_s = await submit(jobs, source)
    created_s, cpu_s = time.monotonic(), time.process_time()
    seen: dict[str, float] = {}
    while batch.status not in TERMINAL:
        await asyncio.sleep(0.02)
        batch = await jobs.find_batch("", batch.id)
        seen.setdefault(batch.status, time.monotonic())
    if batch.counts.completed != num_lines:
        raise RuntimeError(f"{batch.status}: {batch.counts}, {batch.errors[:1]}")
    ended_s = time.monotonic()
    started_s = seen.get("in_progress", created_s)
    finalizing_s = seen.get("finalizing", ended_s)
    return Timing(
        num_lines=num_lines,
        upload_s=round(upload_s, 2),
        validation_s=round(started_s - created_s, 2),
        run_s=round(finalizing_s - started_s, 2),
        publish_s=round(ended_s - finalizing_s, 2),
        lines_per_s=round(num_lines / (ended_s - started_s), 1),
        cpu_us_per_line=round((time.process_time() - cpu_s) / num_lines * 1e6, 1),
    )
