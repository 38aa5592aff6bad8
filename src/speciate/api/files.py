"""/v1/files: upload, list, retrieve, content with ranges, delete."""

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import BinaryIO
from urllib.parse import parse_qs

import msgspec
from msgspec import Struct

from speciate.api.call import BytesReply, Call, Reply, Services
from speciate.api.files_upload import UploadForm, read_upload
from speciate.api.whole_number import whole_number
from speciate.batch.jobs import BatchJobs, RunningFile
from speciate.batch.publish import PURPOSES
from speciate.batch.records import FileQuery, FileRecord
from speciate.core.errors import InvalidRequest, RangeNotSatisfiable

PURPOSES_OF_UPLOADS = ("batch", "assistants", "fine-tune", "vision", "user_data", "evals")
MIN_EXPIRY_S = 3600
MAX_EXPIRY_S = 2_592_000
MAX_LIMIT = 10_000
BLOCK_BYTES = 1 << 18

_RANGE = re.compile(rb"bytes=(\d*)-(\d*)")


class FileAnswer(Struct, frozen=True):
    """`bytes` of a file that is being written counts nothing yet."""

    id: str
    bytes: int
    created_at: int
    filename: str
    purpose: str
    status: str = "processed"
    expires_at: int | None = None
    status_details: str | None = None
    object: str = "file"


class FileList(Struct, frozen=True):
    data: list[FileAnswer]
    first_id: str | None
    last_id: str | None
    has_more: bool
    object: str = "list"


_encode = msgspec.json.Encoder().encode


class FilesApi:
    """The endpoints over the durable path's files."""

    def __init__(self, jobs: BatchJobs) -> None:
        self._jobs = jobs

    async def upload(self, services: Services, call: Call) -> Reply:
        tenant = call.tenant or ""
        max_bytes = min(self._jobs.options.max_file_bytes, await self._jobs.room_bytes(tenant))
        file_id, part = self._jobs.begin_file()
        with part:
            form = await read_upload(call, part.write, max_bytes)
            purpose, expires_after_s = _purpose(form), expiry_s(form)
            await asyncio.to_thread(part.keep)
        record = await self._jobs.add_file(file_id, tenant, purpose, form.filename, part.num_bytes, expires_after_s)
        return BytesReply(_encode(file_answer(record)))

    async def list_files(self, services: Services, call: Call) -> Reply:
        query = parse_qs(call.query.decode("latin-1"))
        limit = limit_of(query, MAX_LIMIT, MAX_LIMIT)
        wanted = FileQuery(
            tenant=call.tenant or "",
            after=query.get("after", [None])[-1],
            limit=limit + 1,
            purpose=query.get("purpose", [None])[-1],
            newest_first=_is_newest_first(query),
        )
        records = await self._jobs.list_files(wanted)
        page = [file_answer(record) for record in records[:limit]]
        first, last = (page[0].id, page[-1].id) if page else (None, None)
        return BytesReply(_encode(FileList(page, first, last, len(records) > limit)))

    async def retrieve(self, services: Services, call: Call) -> Reply:
        return BytesReply(_encode(file_answer(await self._find(call))))

    async def delete(self, services: Services, call: Call) -> Reply:
        file_id = call.path_params["file_id"]
        await self._jobs.delete_file(call.tenant or "", file_id)
        return BytesReply(_encode({"id": file_id, "object": "file", "deleted": True}))

    async def content(self, services: Services, call: Call) -> Reply:
        record = await self._find(call)
        if isinstance(record, RunningFile):
            return PagesReply(self._jobs.running_pages(record))
        start, stop = _range(call.headers.get(b"range"), record.num_bytes)
        return FileReply(self._jobs.open_file(record.id), record, start, stop)

    async def _find(self, call: Call) -> FileRecord | RunningFile:
        return await self._jobs.find_file(call.tenant or "", call.path_params["file_id"])


class FileReply:
    """Bytes `start` to `stop` of a file, read in blocks; closes it."""

    def __init__(self, file: BinaryIO, record: FileRecord, start: int, stop: int) -> None:
        self._file = file
        self._record = record
        self._start = start
        self._stop = stop

    async def send(self, call: Call) -> None:
        with self._file:
            await call.start(*self._head())
            self._file.seek(self._start)
            left = self._stop - self._start
            while left > 0:
                block = await asyncio.to_thread(self._file.read, min(left, BLOCK_BYTES))
                left -= len(block)
                await call.send({"type": "http.response.body", "body": block, "more_body": left > 0})
            if self._start == self._stop:
                await call.send({"type": "http.response.body", "body": b""})

    def _head(self) -> tuple[int, list[tuple[bytes, bytes]]]:
        size, length = self._record.num_bytes, self._stop - self._start
        headers = [
            (b"content-type", b"application/octet-stream"),
            (b"content-length", b"%d" % length),
            (b"accept-ranges", b"bytes"),
        ]
        if length == size:
            return 200, headers
        return 206, [*headers, (b"content-range", b"bytes %d-%d/%d" % (self._start, self._stop - 1, size))]


class PagesReply:
    """What is there of a file that is being written: whole lines, in order, with no length told before."""

    def __init__(self, pages: AsyncGenerator[bytes, None]) -> None:
        self._pages = pages

    async def send(self, call: Call) -> None:
        await call.start(200, [(b"content-type", b"application/octet-stream"), (b"x-speciate-complete", b"false")])
        async with aclosing(self._pages) as pages:
            async for page in pages:
                await call.send({"type": "http.response.body", "body": page, "more_body": True})
        await call.send({"type": "http.response.body", "body": b""})


def file_answer(record: FileRecord | RunningFile) -> FileAnswer:
    if isinstance(record, RunningFile):
        batch = record.batch
        created = batch.marks.get("in_progress", int(batch.created_s))
        return FileAnswer(
            f"file-{record.kind}{batch.id.rpartition('_')[2]}", 0, created, f"{batch.id}.jsonl", PURPOSES[record.kind],
            status="uploaded",
        )  # fmt: skip
    return FileAnswer(
        record.id, record.num_bytes, record.created_s, record.filename, record.purpose, expires_at=record.expires_s
    )


def expiry_s(form: UploadForm) -> int | None:
    """Of `expires_after[anchor]` and `expires_after[seconds]`. Raises InvalidRequest."""
    anchor, seconds = form.fields.get("expires_after[anchor]"), form.fields.get("expires_after[seconds]")
    if anchor is None and seconds is None:
        return None
    if anchor != "created_at":
        raise InvalidRequest(f"expires_after[anchor] is {anchor!r}; it takes created_at.", param="expires_after")
    given = whole_number(seconds or "")
    return checked_expiry_s(-1 if given is None else given, "expires_after")


def checked_expiry_s(seconds: int, param: str) -> int:
    if not MIN_EXPIRY_S <= seconds <= MAX_EXPIRY_S:
        raise InvalidRequest(f"{param}.seconds takes {MIN_EXPIRY_S} to {MAX_EXPIRY_S}.", param=param)
    return seconds


def limit_of(query: dict[str, list[str]], default: int, most: int) -> int:
    """Raises InvalidRequest."""
    given = query.get("limit", [str(default)])[-1]
    limit = whole_number(given)
    if limit is None or not 1 <= limit <= most:
        raise InvalidRequest(f"limit is {given!r}; it takes 1 to {most}.", param="limit")
    return limit


def _is_newest_first(query: dict[str, list[str]]) -> bool:
    given = query.get("order", ["desc"])[-1]
    if given not in ("asc", "desc"):
        raise InvalidRequest(f"order is {given!r}; it takes asc or desc.", param="order")
    return given == "desc"


def _purpose(form: UploadForm) -> str:
    purpose = form.fields.get("purpose")
    if purpose not in PURPOSES_OF_UPLOADS:
        allowed = ", ".join(PURPOSES_OF_UPLOADS)
        raise InvalidRequest(f"purpose is {purpose!r}; it takes one of {allowed}.", param="purpose")
    return purpose


def _range(header: bytes | None, size: int) -> tuple[int, int]:
    """(start, stop) of one range; the whole file where none, several or other units are asked for (RFC 9110, 14.2)."""
    found = _RANGE.fullmatch(header.strip()) if header else None
    if found is None or not (found[1] or found[2]):
        return 0, size
    if not found[1]:
        start, stop = max(0, size - int(found[2])), size
    else:
        start, stop = int(found[1]), min(size, int(found[2]) + 1 if found[2] else size)
    if start >= size or start >= stop:
        raise RangeNotSatisfiable(f"The file has {size} bytes; the range {header!r} holds none of them.")
    return start, stop
