"""/v1/batches in OpenAI's dialect: create, list, retrieve, cancel."""

from typing import Annotated, Literal
from urllib.parse import parse_qs

import msgspec
from msgspec import Meta, Struct

from speciate.api.batch_outlook import OutlookAnswer, WayAnswer, outlook_answer, way_answer
from speciate.api.body import decode_body
from speciate.api.call import BytesReply, Call, Reply, Services
from speciate.api.files import checked_expiry_s, limit_of
from speciate.batch.files import derived_file_id
from speciate.batch.holding import JobOutlook
from speciate.batch.jobs import BatchJobs, Estimate
from speciate.batch.publish import published_kinds
from speciate.batch.records import BatchError, BatchQuery, BatchRecord, BatchSpec, TokenUsage
from speciate.batch.windows import offered_window, parse_window
from speciate.core.errors import InvalidRequest

ENDPOINTS = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/embeddings",
    "/v1/messages",
    "/v1/images/generations",
)
MAX_LIMIT = 100
MAX_KEY_CHARS = 255

MetadataKey = Annotated[str, Meta(max_length=64)]
MetadataValue = Annotated[str, Meta(max_length=512)]
Metadata = Annotated[dict[MetadataKey, MetadataValue], Meta(max_length=16)]


class ExpiresAfter(Struct, frozen=True):
    anchor: Literal["created_at"]
    seconds: int


class BatchBody(Struct):
    input_file_id: str
    endpoint: str
    completion_window: str
    metadata: Metadata | None = None
    output_expires_after: ExpiresAfter | None = None


class EstimateBody(Struct):
    input_file_id: str
    completion_window: str = "24h"


class EstimateAnswer(Struct, frozen=True):
    """Nulls where neither a pace was seen nor one can be predicted."""

    num_lines: int
    lines_per_second: float | None
    is_measured: bool
    """Whether that was seen on this server, not predicted."""
    seconds: float | None
    """Until it would be done, after the work of earlier deadlines."""
    is_feasible: bool | None
    earliest_window: str | None
    ahead_seconds: float
    """Work of other jobs that is due before the window ends."""
    deadline_at: int
    usd_per_hour_here: float | None
    ways: list[WayAnswer]
    """In which the job could be done; the first is what an idle server does at once."""
    object: str = "batch.estimate"


class CountsAnswer(Struct, frozen=True):
    total: int
    completed: int
    failed: int
    """All lines of the error file: those that were cancelled or ran out of time too."""


class InputDetails(Struct, frozen=True):
    cached_tokens: int


class OutputDetails(Struct, frozen=True):
    reasoning_tokens: int


class UsageAnswer(Struct, frozen=True):
    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int


class ErrorsAnswer(Struct, frozen=True):
    data: list[BatchError]
    object: str = "list"


class BatchAnswer(Struct, frozen=True):
    """All keys are always there. `provenance_file_id` and `outlook` are ours."""

    id: str
    endpoint: str
    input_file_id: str
    completion_window: str
    status: str
    created_at: int
    expires_at: int
    model: str | None
    errors: ErrorsAnswer | None
    output_file_id: str | None
    error_file_id: str | None
    provenance_file_id: str | None
    in_progress_at: int | None
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: CountsAnswer
    usage: UsageAnswer
    metadata: dict[str, str] | None
    outlook: OutlookAnswer | None
    """While it runs, where prices differ by the hour or machines are offered."""
    object: str = "batch"


class BatchList(Struct, frozen=True):
    data: list[BatchAnswer]
    first_id: str | None
    last_id: str | None
    has_more: bool
    object: str = "list"


_ESTIMATE_DECODER = msgspec.json.Decoder(EstimateBody)
_DECODER = msgspec.json.Decoder(BatchBody)
_encode = msgspec.json.Encoder().encode


class BatchesApi:
    """The endpoints over the durable path's jobs."""

    def __init__(self, jobs: BatchJobs) -> None:
        self._jobs = jobs

    async def create(self, services: Services, call: Call) -> Reply:
        spec = _spec(decode_body(_DECODER, call.body))
        batch = await self._jobs.create_batch(call.tenant or "", spec, idempotency_key(call))
        return self._reply(batch)

    async def estimate(self, services: Services, call: Call) -> Reply:
        """Ours: what a batch would meet, without filing it."""
        body = decode_body(_ESTIMATE_DECODER, call.body)
        window_s = parse_window(body.completion_window)
        found = await self._jobs.estimate(call.tenant or "", body.input_file_id, window_s)
        return BytesReply(_encode(_estimate_answer(found, window_s)))

    async def list_batches(self, services: Services, call: Call) -> Reply:
        query = parse_qs(call.query.decode("latin-1"))
        limit = limit_of(query, 20, MAX_LIMIT)
        after = query.get("after", [None])[-1]
        batches = await self._jobs.list_batches(BatchQuery(call.tenant or "", "openai", limit + 1, after))
        page = [batch_answer(batch, self._jobs.outlook_of(batch)) for batch in batches[:limit]]
        first, last = (page[0].id, page[-1].id) if page else (None, None)
        return BytesReply(_encode(BatchList(page, first, last, len(batches) > limit)))

    async def retrieve(self, services: Services, call: Call) -> Reply:
        return self._reply(await self._jobs.find_batch(call.tenant or "", call.path_params["batch_id"]))

    async def cancel(self, services: Services, call: Call) -> Reply:
        return self._reply(await self._jobs.cancel_batch(call.tenant or "", call.path_params["batch_id"]))

    def _reply(self, batch: BatchRecord) -> Reply:
        return BytesReply(_encode(batch_answer(batch, self._jobs.outlook_of(batch))))


def idempotency_key(call: Call) -> str | None:
    """Raises InvalidRequest for one that is too long."""
    given = call.headers.get(b"idempotency-key")
    if given is not None and not 1 <= len(given) <= MAX_KEY_CHARS:
        raise InvalidRequest(f"Idempotency-Key takes 1 to {MAX_KEY_CHARS} characters.", param="idempotency_key")
    return None if given is None else given.decode("latin-1")


def batch_answer(batch: BatchRecord, outlook: JobOutlook | None = None) -> BatchAnswer:
    counts, marks = batch.counts, batch.marks
    kinds = published_kinds(batch)
    files = {kind: derived_file_id(batch.id, kind) for kind in kinds}
    return BatchAnswer(
        id=batch.id,
        endpoint=batch.spec.endpoint,
        input_file_id=batch.spec.input_file_id,
        completion_window=batch.spec.window,
        status=batch.status.value,
        created_at=int(batch.created_s),
        expires_at=int(batch.deadline_s),
        model=batch.model,
        errors=ErrorsAnswer(list(batch.errors)) if batch.errors else None,
        output_file_id=files.get("ou"),
        error_file_id=files.get("er"),
        provenance_file_id=files.get("pr"),
        in_progress_at=marks.get("in_progress"),
        finalizing_at=marks.get("finalizing"),
        completed_at=marks.get("completed"),
        failed_at=marks.get("failed"),
        expired_at=marks.get("expired"),
        cancelling_at=marks.get("cancelling"),
        cancelled_at=marks.get("cancelled"),
        request_counts=CountsAnswer(counts.total, counts.completed, counts.unsuccessful),
        usage=_usage(batch.usage),
        metadata=batch.spec.metadata,
        outlook=None if outlook is None else outlook_answer(outlook),
    )


def _estimate_answer(found: Estimate, window_s: float) -> EstimateAnswer:
    earliest_s = found.earliest_s
    return EstimateAnswer(
        num_lines=found.num_lines,
        lines_per_second=found.rate_per_s,
        is_measured=found.is_measured,
        seconds=earliest_s,
        is_feasible=None if earliest_s is None else earliest_s <= window_s,
        earliest_window=None if earliest_s is None else offered_window(earliest_s),
        ahead_seconds=found.ahead_s,
        deadline_at=int(found.deadline_s),
        usd_per_hour_here=found.usd_per_h_here,
        ways=[way_answer(way) for way in found.ways],
    )


def _usage(usage: TokenUsage) -> UsageAnswer:
    return UsageAnswer(
        input_tokens=usage.input_tokens,
        input_tokens_details=InputDetails(usage.cached_tokens),
        output_tokens=usage.output_tokens,
        output_tokens_details=OutputDetails(usage.reasoning_tokens),
        total_tokens=usage.input_tokens + usage.output_tokens,
    )


def _spec(body: BatchBody) -> BatchSpec:
    if body.endpoint not in ENDPOINTS:
        raise InvalidRequest(f"endpoint is {body.endpoint!r}; batches run {', '.join(ENDPOINTS)}.", param="endpoint")
    expires = body.output_expires_after
    return BatchSpec(
        endpoint=body.endpoint,
        input_file_id=body.input_file_id,
        window=body.completion_window,
        window_s=parse_window(body.completion_window),
        metadata=body.metadata,
        output_expires_after_s=None if expires is None else checked_expiry_s(expires.seconds, "output_expires_after"),
    )
