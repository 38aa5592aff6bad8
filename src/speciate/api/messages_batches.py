"""Anthropic's /v1/messages/batches: the same jobs, with the requests inline and one file of results."""

import asyncio
from datetime import UTC, datetime
from typing import Annotated, Literal
from urllib.parse import parse_qs

import msgspec
from msgspec import Meta, Raw, Struct

from speciate.api.batches import idempotency_key
from speciate.api.body import decode_body
from speciate.api.call import BytesReply, Call, Reply, Services
from speciate.api.files import FileReply, PagesReply, limit_of
from speciate.batch.files import Part, derived_file_id
from speciate.batch.jobs import BatchJobs, RunningFile
from speciate.batch.records import TERMINAL, BatchQuery, BatchRecord, BatchSpec, BatchStatus
from speciate.core.errors import InvalidRequest

WINDOW = "24h"
WINDOW_S = 86_400.0
MAX_LIMIT = 1000
WRITE_LINES = 1000

CustomId = Annotated[str, Meta(min_length=1, max_length=64)]


class InlineRequest(Struct):
    custom_id: CustomId
    params: Raw


class MessageBatchBody(Struct):
    requests: Annotated[list[InlineRequest], Meta(min_length=1)]


class CountsAnswer(Struct, frozen=True):
    """Live, where Anthropic's stay zero until the end."""

    processing: int
    succeeded: int
    errored: int
    canceled: int
    expired: int


class MessageBatchAnswer(Struct, frozen=True):
    id: str
    processing_status: Literal["in_progress", "canceling", "ended"]
    request_counts: CountsAnswer
    created_at: str
    expires_at: str
    ended_at: str | None
    cancel_initiated_at: str | None
    results_url: str | None
    archived_at: str | None = None
    type: str = "message_batch"


class MessageBatchList(Struct, frozen=True):
    data: list[MessageBatchAnswer]
    first_id: str | None
    last_id: str | None
    has_more: bool


_DECODER = msgspec.json.Decoder(MessageBatchBody)
_encode = msgspec.json.Encoder().encode


class MessageBatchesApi:
    """The endpoints over the durable path's jobs."""

    def __init__(self, jobs: BatchJobs) -> None:
        self._jobs = jobs

    async def create(self, services: Services, call: Call) -> Reply:
        requests = decode_body(_DECODER, call.body).requests
        self._check(requests)
        tenant = call.tenant or ""
        await self._jobs.room_bytes(tenant)
        file_id, part = self._jobs.begin_file()
        with part:
            await asyncio.to_thread(_write, part, requests)
        await self._jobs.add_file(file_id, tenant, "batch", "requests.jsonl", part.num_bytes, None)
        spec = BatchSpec("/v1/messages", file_id, WINDOW, WINDOW_S, dialect="anthropic")
        batch = await self._jobs.create_batch(tenant, spec, idempotency_key(call))
        return BytesReply(_encode(_answer(batch, call)))

    async def list_batches(self, services: Services, call: Call) -> Reply:
        query = parse_qs(call.query.decode("latin-1"))
        limit = limit_of(query, 20, MAX_LIMIT)
        after, before = (query.get(name, [None])[-1] for name in ("after_id", "before_id"))
        if after is not None and before is not None:
            raise InvalidRequest("after_id and before_id cannot be used together; send one.", param="before_id")
        wanted = BatchQuery(call.tenant or "", "anthropic", limit + 1, after, before)
        batches = await self._jobs.list_batches(wanted)
        page = [_answer(batch, call) for batch in (batches[:limit] if before is None else batches[-limit:])]
        first, last = (page[0].id, page[-1].id) if page else (None, None)
        return BytesReply(_encode(MessageBatchList(page, first, last, len(batches) > limit)))

    async def retrieve(self, services: Services, call: Call) -> Reply:
        return BytesReply(_encode(_answer(await self._find(call), call)))

    async def cancel(self, services: Services, call: Call) -> Reply:
        batch = await self._jobs.cancel_batch(call.tenant or "", call.path_params["batch_id"], "anthropic")
        return BytesReply(_encode(_answer(batch, call)))

    async def delete(self, services: Services, call: Call) -> Reply:
        batch_id = call.path_params["batch_id"]
        await self._jobs.remove_batch(call.tenant or "", batch_id, "anthropic")
        return BytesReply(_encode({"id": batch_id, "type": "message_batch_deleted"}))

    async def results(self, services: Services, call: Call) -> Reply:
        """Of a batch that runs: what is there, in order."""
        batch = await self._find(call)
        record = await self._jobs.find_file(call.tenant or "", derived_file_id(batch.id, "ou"))
        if isinstance(record, RunningFile):
            return PagesReply(self._jobs.running_pages(record))
        return FileReply(self._jobs.open_file(record.id), record, 0, record.num_bytes)

    async def _find(self, call: Call) -> BatchRecord:
        return await self._jobs.find_batch(call.tenant or "", call.path_params["batch_id"], "anthropic")

    def _check(self, requests: list[InlineRequest]) -> None:
        """Raises InvalidRequest for too many, and for ids that repeat."""
        if len(requests) > self._jobs.options.max_lines:
            raise InvalidRequest(
                f"requests has {len(requests)} entries; at most {self._jobs.options.max_lines} may be sent.",
                param="requests",
            )
        seen: set[str] = set()
        for index, request in enumerate(requests):
            if request.custom_id in seen:
                raise InvalidRequest(
                    f"requests[{index}].custom_id {request.custom_id!r} was used before.", param="requests"
                )
            seen.add(request.custom_id)


def _write(part: Part, requests: list[InlineRequest]) -> None:
    """As lines of a batch file, which is what the durable path reads."""
    for start in range(0, len(requests), WRITE_LINES):
        part.write(b"".join(_line(request) for request in requests[start : start + WRITE_LINES]))
    part.keep()


def _line(request: InlineRequest) -> bytes:
    params = msgspec.json.encode(msgspec.json.decode(request.params))  # without the line breaks it may have
    return b'{"custom_id":%b,"method":"POST","url":"/v1/messages","body":%b}\n' % (_encode(request.custom_id), params)


def _answer(batch: BatchRecord, call: Call) -> MessageBatchAnswer:
    counts, marks = batch.counts, batch.marks
    ended = next((marks[status] for status in sorted(TERMINAL) if status in marks), None)
    return MessageBatchAnswer(
        id=batch.id,
        processing_status=_status(batch.status),
        request_counts=CountsAnswer(counts.open, counts.completed, counts.failed, counts.cancelled, counts.expired),
        created_at=_rfc3339(batch.created_s),
        expires_at=_rfc3339(batch.deadline_s),
        ended_at=None if ended is None else _rfc3339(ended),
        cancel_initiated_at=_rfc3339(marks["cancelling"]) if "cancelling" in marks else None,
        results_url=f"{_root(call)}/v1/messages/batches/{batch.id}/results" if ended is not None else None,
    )


def _status(status: BatchStatus) -> Literal["in_progress", "canceling", "ended"]:
    if status in TERMINAL:
        return "ended"
    return "canceling" if status is BatchStatus.CANCELLING else "in_progress"


def _root(call: Call) -> str:
    """As the client reached us."""
    scheme = call.headers.get(b"x-forwarded-proto", b"http").decode("latin-1")
    return f"{scheme}://{call.headers.get(b'host', b'localhost').decode('latin-1')}"


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
