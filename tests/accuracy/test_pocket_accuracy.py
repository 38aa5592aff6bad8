"""The pocket model through our own engine, scheduler and sampler: right answers, in every weight format.

Held-out documents; exact match of fields. int8 is what ships; f32 is the reference; int4 may drop a little.
"""

import asyncio
import json
import random
import time
from contextlib import aclosing

import pytest

from speciate.core.output import Delta
from speciate.core.request import GenerateRequest, SamplingParams, StopRules
from speciate.core.segment import Segment, Slo, Tier
from speciate.engines.openvino.engine import OpenVinoEngine
from speciate.engines.openvino.options import AdapterFolder, OpenVinoOptions, Weights
from speciate.models.catalog import read_model_folder
from speciate.models.pocket import TEXT_ADAPTER_DIR, TEXT_DIR
from speciate.models.pocket.evaluate import max_answer_tokens
from speciate.models.pocket.tasks import Task, extraction_request, is_correct, sample_tasks
from speciate.models.text_model import load_text_model
from speciate.runtime.clock import MonotonicClock
from speciate.runtime.device import Device
from speciate.runtime.replica import Replica
from speciate.scheduling.token import TokenScheduler
from speciate.telemetry.metrics import Metrics, ReplicaMetrics

ADAPTER = "pocket-delivery"
KINDS = ("invoice", "ticket", "sensor_log")
SEGMENT = Segment("test", Tier.BATCH, Slo())
TEXT = load_text_model(read_model_folder(TEXT_DIR))


async def _answers(weights: Weights, asked: list[tuple[Task, str | None]]) -> list[str]:
    """All tasks at once, so that steps mix prompts, decodes and adapters."""
    options = OpenVinoOptions(weights=weights, kv_bytes=64 << 20, adapters=(AdapterFolder(ADAPTER, TEXT_ADAPTER_DIR),))
    engine, device = OpenVinoEngine.load(TEXT_DIR, options), Device("test")
    metrics = ReplicaMetrics(Metrics(), "pocket")
    replica = Replica(engine, TokenScheduler(engine.shape), TEXT.tokenizer, device, MonotonicClock(), metrics)
    replica.start()
    try:
        return list(await asyncio.gather(*(_answer(replica, task, adapter) for task, adapter in asked)))
    finally:
        replica.check()
        await replica.stop()
        await device.close()


async def _answer(replica: Replica, task: Task, adapter: str | None) -> str:
    prompt = TEXT.template.render(task.messages, task.tools or None)
    request = GenerateRequest(
        "r", "pocket", TEXT.tokenizer.encode(prompt, False), SEGMENT, time.monotonic(), SamplingParams(temperature=0),
        StopRules(max_tokens=max_answer_tokens(task)), adapter=adapter, skip_special_tokens=False,
    )  # fmt: skip
    async with aclosing(replica.generate(request)) as events:
        return "".join([event.text async for event in events if isinstance(event, Delta)])


def _field_accuracy(tasks: list[Task], answers: list[str]) -> float:
    """Share of the fields whose value is exactly right."""
    right = total = 0
    for task, answer in zip(tasks, answers, strict=True):
        wanted, given = json.loads(task.answer), _parsed(answer)
        total += len(wanted)
        right += sum(given.get(name) == value for name, value in wanted.items())
    return right / total


def _parsed(text: str) -> dict[str, object]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


@pytest.mark.parametrize(("weights", "least"), [("f32", 0.95), ("int8", 0.95), ("int4", 0.94)])
async def test_extracted_fields_are_right_in_every_weight_format(weights: Weights, least: float) -> None:
    """All fields in the demo's wording, and some or all of them in mixed wordings, from 40 to 700 tokens."""
    rng = random.Random(77)
    tasks = sample_tasks(101, 150, "held_out", KINDS)
    tasks += [extraction_request(KINDS[i % 3], rng, rng.randint(60, 640), "held_out") for i in range(150)]
    answers = await _answers(weights, [(task, None) for task in tasks])
    accuracy = _field_accuracy(tasks, answers)
    print(f"\n{weights}: fields exactly right {accuracy:.1%}")
    assert accuracy >= least


async def test_other_skills_and_the_adapter_beside_the_base() -> None:
    """Bounds are what the model card says, less noise: paragraphs and tools are its weak side."""
    others = sample_tasks(12, 120, "held_out", ("paragraph", "arithmetic", "tool_call", "tool_result"))
    notes = sample_tasks(13, 60, "held_out", ("delivery_note",))
    asked = [(t, None) for t in others] + [(t, ADAPTER) for t in notes] + [(t, None) for t in notes]
    answers = await _answers("int8", asked)
    by_kind: dict[str, list[bool]] = {}
    for task, answer in zip(others, answers, strict=False):
        by_kind.setdefault(task.kind, []).append(is_correct(task, answer))
    shares = {kind: sum(right) / len(right) for kind, right in by_kind.items()}
    with_adapter = _field_accuracy(notes, answers[len(others) : len(others) + len(notes)])
    without = _field_accuracy(notes, answers[len(others) + len(notes) :])
    print(f"\n{shares}, delivery notes: adapter {with_adapter:.1%}, base {without:.1%}")
    assert shares["tool_result"] >= 0.9
    assert shares["arithmetic"] >= 0.6
    assert min(shares.values()) >= 0.3
    assert with_adapter >= 0.8
    assert without < 0.2
