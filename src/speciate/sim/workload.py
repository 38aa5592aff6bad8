"""Requests over time, as streams in order of arrival: drawn from seeded generators. Memory does not grow with length.

Traces are read in `sim.traces`. Text has no meaning here, only its lengths and which prompts begin alike (`Span`).
"""

import heapq
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, repeat
from math import cos, pi

from msgspec import Struct, structs

from speciate.core.segment import Tier

Lengths = Callable[[random.Random], tuple[int, int]]
"""Draws (prompt tokens, output tokens)."""
Gaps = Callable[[random.Random, float], float]
"""Draws the seconds to the next arrival, given the time of this one."""


class Span(Struct, frozen=True, gc=False):
    """A piece of a prompt; two prompts begin alike as far as their spans are equal. Id 0 is generated text."""

    id: int
    num_tokens: int


class SimRequest(Struct, frozen=True):
    """One request: when, what is promised, how long. `output_tokens` is known to the world, not to the scheduler."""

    at_s: float
    tier: Tier
    prompt_tokens: int
    output_tokens: int
    max_tokens: int
    """What the client allowed."""
    tenant: str = "default"
    spans: tuple[Span, ...] = ()
    """What the prompt is made of; empty: nothing that any other prompt has."""


def generate(
    tier: Tier, gaps: Gaps, lengths: Lengths, *, duration_s: float, seed: int, tenants: Sequence[str] = ("default",)
) -> Iterator[SimRequest]:
    """An open-loop stream of one tier until `duration_s`. Equal seeds give equal streams, whatever else runs."""
    draw = random.Random(f"{tier} {seed}")
    at_s = gaps(draw, 0.0)
    while at_s < duration_s:
        prompt, output = lengths(draw)
        tenant = tenants[0] if len(tenants) == 1 else draw.choice(tenants)
        yield make_request(at_s, tier, prompt, output, tenant=tenant)
        at_s += gaps(draw, at_s)


def make_request(
    at_s: float, tier: Tier, prompt: int, output: int, *, tenant: str = "default", spans: tuple[Span, ...] = ()
) -> SimRequest:
    """Clients allow at least twice what they get, a power of two: lengths cannot be read off the limit."""
    prompt, output = max(1, prompt), max(1, output)
    return SimRequest(at_s, tier, prompt, output, max(64, 1 << (2 * output - 1).bit_length()), tenant, spans)


def poisson(rate_per_s: float) -> Gaps:
    """Independent clients."""
    return lambda draw, now_s: draw.expovariate(rate_per_s)


def gamma_bursts(rate_per_s: float, cv: float) -> Gaps:
    """Gaps with this coefficient of variation; above 1 arrivals come in bursts (BurstGPT; Azure code has 13)."""
    shape = 1 / cv**2
    return lambda draw, now_s: draw.gammavariate(shape, 1 / (rate_per_s * shape))


def square_wave(low_per_s: float, high_per_s: float, period_s: float) -> Gaps:
    """Poisson, half a period slow and half a period fast."""
    return _thinned(lambda at_s: low_per_s if at_s % period_s < period_s / 2 else high_per_s, high_per_s)


def diurnal(low_per_s: float, high_per_s: float, period_s: float = 86_400.0) -> Gaps:
    """Poisson with a rate that swings like a day's; lowest at the start."""
    middle, swing = (high_per_s + low_per_s) / 2, (high_per_s - low_per_s) / 2
    return _thinned(lambda at_s: middle - swing * cos(2 * pi * at_s / period_s), high_per_s)


def _thinned(rate_per_s: Callable[[float], float], most_per_s: float) -> Gaps:
    """Lewis and Shedler 1979: draw at the highest rate, keep in proportion."""

    def gap_s(draw: random.Random, now_s: float) -> float:
        at_s = now_s
        while True:
            at_s += draw.expovariate(most_per_s)
            if draw.random() * most_per_s <= rate_per_s(at_s):
                return at_s - now_s

    return gap_s


def log_normal(prompt: tuple[float, float], output: tuple[float, float], most: int = 4096) -> Lengths:
    """(mean, deviation) of the logarithms."""

    def draw_lengths(draw: random.Random) -> tuple[int, int]:
        lengths = draw.lognormvariate(*prompt), draw.lognormvariate(*output)
        return _clip(lengths[0], most), _clip(lengths[1], most)

    return draw_lengths


def uniform(prompt: tuple[int, int], output: tuple[int, int]) -> Lengths:
    """Both ends included."""
    return lambda draw: (draw.randint(*prompt), draw.randint(*output))


def sampled(pairs: Sequence[tuple[int, int]]) -> Lengths:
    """Lengths of a real trace, drawn with replacement."""
    return lambda draw: draw.choice(pairs)


CONVERSATION = log_normal((6.63, 0.99), (5.02, 0.86))
"""Fitted by moments to azure_llm_2023_conv.csv (19,366 rows; Azure Public Dataset, CC BY 4.0)."""


def backlog(tier: Tier, num_requests: int, lengths: Lengths, seed: int) -> Iterator[SimRequest]:
    """A job filed at time 0."""
    draw = random.Random(f"backlog {tier} {seed}")
    for _ in range(num_requests):
        yield make_request(0.0, tier, *lengths(draw), tenant="backlog")


class SessionShape(Struct, frozen=True):
    """A conversation: each turn's prompt is all that was said before, plus something new."""

    turns: int = 6
    think_s: float = 20.0
    """Mean pause between a turn's arrival and the next one's (exponential)."""
    system_tokens: int = 256
    """How much of the first prompt every session shares."""
    context_tokens: int = 4096
    """A session ends before its prompt would be longer."""


def sessions(
    tier: Tier, gaps: Gaps, lengths: Lengths, shape: SessionShape, *, duration_s: float, seed: int
) -> Iterator[SimRequest]:
    """Sessions begin by `gaps`; their turns overlap. Memory grows with the sessions that are open at one time."""
    draw = random.Random(f"sessions {tier} {seed}")
    open_turns: list[tuple[float, int, SimRequest]] = []
    start_s, num_sessions = gaps(draw, 0.0), 0
    while start_s < duration_s or open_turns:
        if open_turns and open_turns[0][0] <= start_s:
            yield heapq.heappop(open_turns)[2]
            continue
        num_sessions += 1
        for turn, request in enumerate(_turns(tier, draw, lengths, shape, start_s, num_sessions)):
            if request.at_s < duration_s:
                heapq.heappush(open_turns, (request.at_s, num_sessions * shape.turns + turn, request))
        start_s += gaps(draw, start_s)
        start_s = start_s if start_s < duration_s else float("inf")


def _turns(
    tier: Tier, draw: random.Random, lengths: Lengths, shape: SessionShape, at_s: float, session: int
) -> Iterator[SimRequest]:
    spans: tuple[Span, ...] = (Span(1, shape.system_tokens),) if shape.system_tokens else ()
    for turn in range(shape.turns):
        prompt, output = lengths(draw)
        spans = (*spans, Span(2 + session * shape.turns + turn, prompt))
        num_tokens = sum(span.num_tokens for span in spans)
        if num_tokens + output > shape.context_tokens:
            return
        yield make_request(at_s, tier, num_tokens, output, tenant=f"session-{session}", spans=spans)
        spans = (*spans, Span(0, output))
        at_s += draw.expovariate(1 / shape.think_s)


def merged(*streams: Iterable[SimRequest]) -> Iterator[SimRequest]:
    """Several streams as one, in order of arrival; ties go to the earlier stream."""
    return heapq.merge(*streams, key=lambda request: request.at_s)


def faster(requests: Iterable[SimRequest], factor: float) -> Iterator[SimRequest]:
    """The same requests in the same pattern, at `factor` times the rate."""
    if factor == 1.0:
        return iter(requests)
    return (structs.replace(request, at_s=request.at_s / factor) for request in requests)


def again(make: Callable[[], Iterable[SimRequest]], span_s: float, times: int) -> Iterator[SimRequest]:
    """A stream of `span_s` seconds repeated end to end."""
    for offset_s in accumulate(repeat(span_s, times - 1), initial=0.0):
        for request in make():
            yield structs.replace(request, at_s=request.at_s + offset_s) if offset_s else request


def _clip(value: float, most: int) -> int:
    return max(1, min(most, round(value)))
