"""A line on its way through a worker: claimed, asked for, running."""

from collections.abc import Awaitable, Callable

from msgspec import Struct

from speciate.batch.lines import LineAnswer
from speciate.batch.records import Claim, JobFacts, LineResult


class LineJob(Struct, frozen=True):
    """A line to run, and for whom."""

    url: str
    body: bytes
    tenant: str
    left_s: float
    """Until the batch's deadline."""
    window_s: float
    request_id: str


RunLine = Callable[[LineJob], Awaitable[LineAnswer]]
NumRunning = Callable[[str], int | None]
"""Batch sequences that run on a model's replica; None where it is not known."""


MayRun = Callable[[list[JobFacts]], Awaitable[list[JobFacts]]]
"""Which of these jobs wait for nothing."""


async def all_may(jobs: list[JobFacts]) -> list[JobFacts]:
    return jobs


Place = tuple[int, int, int]
"""Batch, index and fence: a line may be claimed again here while its first run is still about."""


class Leased(Struct):
    """A claimed line. A worker owns and changes it."""

    claim: Claim
    job: JobFacts
    started_s: float | None = None
    """Monotonic; None while it waits for a runner."""
    is_over: bool = False
    """It has its answer, or is given back, and waits to be written."""
    is_handed_back: bool = False
    """Its run is being stopped because the machine goes."""


def place_of(line: Claim | LineResult) -> Place:
    return line.batch_key, line.index, line.fence
