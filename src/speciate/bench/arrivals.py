"""When requests come and how long they are: from a real trace, or drawn like one. Pure; seeded."""

import csv
import random
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from msgspec import Struct

from speciate.core.errors import ConfigError


class Arrival(Struct, frozen=True):
    """One request of a trace: `at_s` after the trace's start, with its prompt and output lengths in tokens."""

    at_s: float
    prompt_tokens: int
    output_tokens: int


class TraceShape(Struct, frozen=True):
    """What a generator needs to resemble a trace: log-normal lengths, Gamma gaps."""

    gap_s: float
    gap_cv: float
    log_prompt_mean: float
    log_prompt_std: float
    log_output_mean: float
    log_output_std: float
    max_tokens: int = 8192


CONVERSATION = TraceShape(0.181, 1.09, 6.63, 0.99, 5.02, 0.86)
"""Fitted by moments to azure_llm_2023_conv.csv (19,366 rows, one hour; Azure Public Dataset, CC BY 4.0)."""

CODE = TraceShape(0.121, 3.0, 7.00, 1.36, 2.79, 0.85)
"""The same for azure_llm_2023_code.csv (8,819 rows), without the longest half percent of its gaps (8 s to 217 s): lulls
that a Gamma law could only draw by putting all else into a few bursts."""


def read_azure_trace(path: Path) -> list[Arrival]:
    """Rows of `TIMESTAMP,ContextTokens,GeneratedTokens` in order of arrival. Raises ConfigError."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    try:
        times = [datetime.fromisoformat(row["TIMESTAMP"][:26]).timestamp() for row in rows]
        lengths = [(int(row["ContextTokens"]), int(row["GeneratedTokens"])) for row in rows]
    except (KeyError, ValueError) as error:
        raise ConfigError(
            f"{path} is not an Azure LLM trace (TIMESTAMP,ContextTokens,GeneratedTokens): {error}"
        ) from error
    start = min(times, default=0.0)
    return [Arrival(at - start, prompt, output) for at, (prompt, output) in zip(times, lengths, strict=True)]


def draw_like(shape: TraceShape, num_arrivals: int, seed: int) -> list[Arrival]:
    """Arrivals drawn from a fitted shape; equal seeds give equal arrivals."""
    rng = random.Random(seed)
    gamma_shape = 1 / shape.gap_cv**2
    at_s, arrivals = 0.0, []
    for _ in range(num_arrivals):
        prompt = _clip(rng.lognormvariate(shape.log_prompt_mean, shape.log_prompt_std), shape.max_tokens)
        output = _clip(rng.lognormvariate(shape.log_output_mean, shape.log_output_std), shape.max_tokens)
        arrivals.append(Arrival(at_s, prompt, output))
        at_s += rng.gammavariate(gamma_shape, shape.gap_s / gamma_shape)
    return arrivals


def paced(arrivals: Iterable[Arrival], start_s: float, duration_s: float, rate_per_s: float) -> list[Arrival]:
    """A window of a trace with its time stretched so that `rate_per_s` arrive on average over `duration_s`.

    The pattern (bursts, lulls) stays; only the speed changes.
    """
    wanted = max(1, round(duration_s * rate_per_s))
    window = [a for a in arrivals if a.at_s >= start_s][:wanted]
    if not window:
        return []
    span_s = max(window[-1].at_s - window[0].at_s, 1e-9)
    stretch = duration_s / span_s * (len(window) / wanted)
    return [Arrival((a.at_s - window[0].at_s) * stretch, a.prompt_tokens, a.output_tokens) for a in window]


def _clip(value: float, most: int) -> int:
    return max(1, min(most, round(value)))
