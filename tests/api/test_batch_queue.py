"""Lines of batches and `flex` requests on one small engine: one queue, fair between tenants, in an order that pays."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from speciate.admission.admit import AdmissionOptions
from speciate.api.auth import KeyRing
from speciate.api.batches_lines import LineRunner
from speciate.api.call import Call, Services
from speciate.api.chat import create_chat
from speciate.api.options import ApiOptions
from speciate.batch.open import BatchPorts, open_jobs
from speciate.batch.options import BatchOptions
from speciate.batch.order import Credit
from speciate.batch.records import TERMINAL, BatchSpec
from speciate.batch.worker import LineJob
from speciate.core.engine import TokenEngineShape
from speciate.core.segment import Segment, Slo, Tier
from speciate.engines.fake import FakeEngine, StepCost
from speciate.models.catalog import read_model_folder
from speciate.models.pocket import TEXT_DIR
from speciate.models.text_model import load_text_model
from speciate.runtime.clock import MonotonicClock
from speciate.runtime.device import Device
from speciate.runtime.gateway import Gateway, ServedModel
from speciate.runtime.replica import Replica
from speciate.scheduling.token import TokenScheduler
from speciate.telemetry.metrics import BatchMetrics, Metrics, ReplicaMetrics

SEGMENTS = {tier: Segment(tier.value, tier, Slo(ttft_s=60.0, tpot_s=10.0)) for tier in Tier}
BLOCK = 16


@asynccontextmanager
async def running_gateway(num_blocks: int, max_sequences: int, step_s: float = 0.0) -> AsyncIterator[Gateway]:
    text = load_text_model(read_model_folder(TEXT_DIR))
    eos = read_model_folder(TEXT_DIR).eos_token_ids
    shape = TokenEngineShape(
        "m", text.tokenizer.vocab_size, 2048, BLOCK, num_blocks, 1, eos, max_step_sequences=max_sequences
    )
    device, clock, metrics = Device("m"), MonotonicClock(), Metrics()
    engine, scheduler = FakeEngine(shape, cost=StepCost(fixed_s=step_s)), TokenScheduler(shape)
    replica = Replica(engine, scheduler, text.tokenizer, device, clock, ReplicaMetrics(metrics, "m"))
    model = ServedModel("m", "m", "generate", 2048, 0, "m", text, segments=SEGMENTS)
    gateway = Gateway((model,), {"m": replica}, {}, AdmissionOptions(), clock, metrics)
    gateway.start()
    try:
        yield gateway
    finally:
        await gateway.stop()
        await device.close()


def _body(said: str, system: str = "", **more: object) -> bytes:
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": said})
    return json.dumps({"model": "m", "max_tokens": 1, "messages": messages, **more}).encode()


async def test_flex_waits_in_the_queue_of_the_lines_and_is_served_fairly() -> None:
    """One sequence a step: a tenant who comes last with one request is not last, as one more line would be."""
    over: list[str] = []
    async with running_gateway(num_blocks=256, max_sequences=1, step_s=0.01) as gateway:
        services = Services(gateway, ApiOptions(), KeyRing(()))
        runner = LineRunner(services)

        async def line(name: str) -> None:
            await runner.run(LineJob("/v1/chat/completions", _body(name), "jobs", 80_000.0, 86_400.0, name))
            over.append(name)

        async def flex() -> None:
            call = Call({}, {}, b"", _nowhere, "flex", 0.0, "me", _body("flex", service_tier="flex"))
            await create_chat(services, call)
            over.append("flex")

        lines = [asyncio.create_task(line(f"line {i}")) for i in range(8)]
        await asyncio.sleep(0)
        asked = asyncio.create_task(flex())
        last = asyncio.create_task(line("last line"))
        await asyncio.sleep(0)
        tiers = gateway.loads()["m"].tiers
        assert tiers[Tier.BATCH].num_waiting + tiers[Tier.BATCH].num_running == 10
        await asyncio.gather(*lines, asked, last)
    assert over[-1] == "last line"
    assert over.index("flex") <= 3


async def _nowhere(message: object) -> None:
    """Replies are not looked at."""


async def test_lines_with_one_system_prompt_run_together_so_that_the_cache_pays(tmp_path: Path) -> None:
    """Two long prompts in turns, and memory for one: in input order nothing would ever be found again."""
    systems = ["the number of apples " * 12, "the number of pears " * 12]
    lines = [
        b'{"custom_id":"%d","method":"POST","url":"/v1/chat/completions","body":%b}\n'
        % (i, _body("hi", systems[i % 2]))
        for i in range(20)
    ]
    async with running_gateway(num_blocks=10, max_sequences=8) as gateway:
        runner = LineRunner(Services(gateway, ApiOptions(), KeyRing(())))
        ports = BatchPorts(runner.run, lambda model: None, {"m"}.__contains__)
        options = BatchOptions(poll_s=0.02, credit=Credit(least=1, most=1))
        async with open_jobs(tmp_path, None, ports, options, BatchMetrics(Metrics())) as jobs:
            file_id, part = jobs.begin_file()
            with part:
                part.write(b"".join(lines))
                part.keep()
            await jobs.add_file(file_id, "", "batch", "in", part.num_bytes, None)
            batch = await jobs.create_batch("", BatchSpec("/v1/chat/completions", file_id, "24h", 86_400.0), None)
            async with asyncio.timeout(30):
                while (batch := await jobs.find_batch("", batch.id)).status not in TERMINAL:  # noqa: ASYNC110 -- polled as a client does
                    await asyncio.sleep(0.02)
    assert batch.counts.completed == 20
    assert batch.usage.cached_tokens > 0.7 * batch.usage.input_tokens
