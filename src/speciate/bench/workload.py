"""The demo's requests: real arrivals, three tiers, documents of the trace's scaled lengths, known right answers."""

import random
from pathlib import Path
from typing import Any

from msgspec import Struct

from speciate.bench.arrivals import CODE, CONVERSATION, Arrival, draw_like, paced, read_azure_trace
from speciate.core.segment import Tier
from speciate.models.pocket.tasks import Task, extraction_request

MIN_DOCUMENT_TOKENS = 60
MAX_DOCUMENT_TOKENS = 640
MAX_ANSWER_TOKENS = 200
DOCUMENT_KINDS = ("invoice", "ticket", "sensor_log")


class TierLoad(Struct, frozen=True):
    """How much of which trace a tier gets."""

    tier: Tier
    trace: str
    """`conv` or `code`."""
    rate_per_s: float
    start_s: float
    """Where in the trace its window begins."""
    max_document_tokens: int = MAX_DOCUMENT_TOKENS


class Job(Struct, frozen=True):
    """One request to send, and the answer it should bring."""

    index: int
    tier: Tier
    at_s: float
    task: Task
    max_tokens: int
    response_format: dict[str, Any] | None


class Workload(Struct, frozen=True):
    """Jobs in order of arrival, and where the arrivals came from."""

    jobs: tuple[Job, ...]
    source: str
    duration_s: float


def make_workload(
    loads: tuple[TierLoad, ...], duration_s: float, seed: int, trace_folder: Path | None, token_scale: float
) -> Workload:
    """Prompt lengths are the trace's times `token_scale`, kept within what the pocket model was trained for."""
    rng = random.Random(seed)
    is_real = trace_folder is not None and all(
        (trace_folder / f"azure_llm_2023_{t}.csv").exists() for t in ("conv", "code")
    )
    timed: list[tuple[TierLoad, Arrival]] = []
    for number, load in enumerate(loads):
        arrivals = _arrivals(load, trace_folder if is_real else None, duration_s, seed + number)
        timed += [(load, arrival) for arrival in arrivals]
    timed.sort(key=lambda pair: pair[1].at_s)
    jobs = tuple(_job(index, load, arrival, rng, token_scale) for index, (load, arrival) in enumerate(timed))
    source = "Azure LLM inference trace 2023 (conv, code)" if is_real else "generated like the Azure 2023 traces"
    return Workload(jobs, source, duration_s)


def _arrivals(load: TierLoad, folder: Path | None, duration_s: float, seed: int) -> list[Arrival]:
    if folder is not None:
        trace = read_azure_trace(folder / f"azure_llm_2023_{load.trace}.csv")
        return paced(trace, load.start_s, duration_s, load.rate_per_s)
    shape = CONVERSATION if load.trace == "conv" else CODE
    return paced(
        draw_like(shape, max(2, round(2 * duration_s * load.rate_per_s)), seed), 0.0, duration_s, load.rate_per_s
    )


def _job(index: int, load: TierLoad, arrival: Arrival, rng: random.Random, token_scale: float) -> Job:
    length = min(load.max_document_tokens, max(MIN_DOCUMENT_TOKENS, round(arrival.prompt_tokens * token_scale)))
    kind = DOCUMENT_KINDS[index % len(DOCUMENT_KINDS)]
    return Job(index, load.tier, arrival.at_s, extraction_request(kind, rng, length), MAX_ANSWER_TOKENS, None)
