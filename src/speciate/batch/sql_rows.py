"""From rows of the store's tables to records."""

import msgspec

from speciate.batch.database import Row
from speciate.batch.records import BatchError, BatchRecord, BatchSpec, BatchStatus, JobFacts, LineCounts, TokenUsage


def read_batch(row: Row) -> BatchRecord:
    """The columns in the order of `find_batch`."""
    return BatchRecord(
        key=row[0],
        id=row[1],
        tenant=row[2],
        spec=msgspec.json.decode(row[3], type=BatchSpec),
        status=BatchStatus(row[4]),
        model=row[5],
        created_s=row[6],
        deadline_s=row[7],
        marks=msgspec.json.decode(row[8], type=dict[str, int]),
        errors=msgspec.json.decode(row[9], type=tuple[BatchError, ...]),
        counts=LineCounts(*row[10:15]),
        usage=TokenUsage(*row[15:19]),
        idempotency_key=row[19],
        is_tidy=bool(row[20]),
    )


def read_job(row: Row) -> JobFacts:
    """The columns in the order of `jobs`."""
    key, batch_id, tenant, model, spec, created_s, deadline_s, num_open, suspect_deaths = row
    decoded = msgspec.json.decode(spec, type=BatchSpec)
    return JobFacts(key, batch_id, tenant, model, decoded, created_s, deadline_s, num_open, suspect_deaths)
