"""Where and how a line ran: a line of the provenance file."""

import time

import msgspec
from msgspec import Struct

from speciate.batch.lines import LineAnswer
from speciate.batch.meter import Cost
from speciate.batch.records import Claim


class _Provenance(Struct, frozen=True):
    """Where and how a line ran. Null is what is not known here."""

    index: int
    custom_id: str
    attempt: int
    deaths: int
    worker: str
    replica: str | None
    market: str | None
    seconds: float
    finished_at: int
    price_usd: float | None
    """Its share of what the machine cost while it ran."""
    energy_j: float | None
    """Its share of what the processor used meanwhile, other work's too; null where no counter can be read."""


def provenance(claim: Claim, custom_id: str, answer: LineAnswer, worker: str, took_s: float, cost: Cost) -> str:
    """JSON without its newline."""
    row = _Provenance(
        index=claim.index,
        custom_id=custom_id,
        attempt=claim.attempt,
        deaths=claim.deaths,
        worker=worker,
        replica=answer.replica,
        market=answer.market,
        seconds=round(took_s, 4),
        finished_at=int(time.time()),
        price_usd=cost.usd,
        energy_j=cost.energy_j,
    )
    return msgspec.json.encode(row).decode()
