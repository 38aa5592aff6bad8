"""The durable path as the front door sees it: files and batches of tenants. Owns the worker and the steward."""

import asyncio
import math
from collections.abc import AsyncGenerator
from typing import BinaryIO

from msgspec import Struct

from speciate.batch.files import (
    FileKind,
    FileShelf,
    Part,
    batch_of_file,
    new_batch_id,
    new_file_id,
    safe_filename,
)
from speciate.batch.options import BatchOptions
from speciate.batch.publish import Publisher
from speciate.batch.records import (
    TERMINAL,
    BatchChange,
    BatchRecord,
    BatchSpec,
    BatchStatus,
    FileQuery,
    FileRecord,
)
from speciate.batch.steward import Steward
from speciate.batch.store import BatchStore
from speciate.batch.windows import Backlog, earliest_window_s, offered_window
from speciate.batch.worker import Worker
from speciate.core.errors import InvalidRequest, NotFound, Overloaded, QuotaExceeded, WindowInfeasible
from speciate.core.ports import Clock

COUNT_BYTES = 1 << 20
TIDY_ROWS = 5000


class RunningFile(Struct, frozen=True):
    """The file of a batch that still runs: what is there of it can be read."""

    batch: BatchRecord
    kind: FileKind


class BatchJobs:
    """`start` on the event loop, `stop` once. A tenant sees its own; another's is as unknown as a wrong id."""

    def __init__(
        self,
        store: BatchStore,
        shelf: FileShelf,
        publisher: Publisher,
        worker: Worker,
        steward: Steward,
        options: BatchOptions,
        clock: Clock,
    ) -> None:
        self._store = store
        self._shelf = shelf
        self._publisher = publisher
        self._worker = worker
        self._steward = steward
        self._clock = clock
        self.options = options

    def start(self) -> None:
        self._worker.start()
        self._steward.start()

    async def stop(self) -> None:
        await self._steward.stop()
        await self._worker.stop()

    def wake(self) -> None:
        self._worker.wake()
        self._steward.wake()

    def now_s(self) -> float:
        return self._clock.now_s()

    # ---- files -----------------------------------------------------------------------------------------------------

    def begin_file(self) -> tuple[str, Part]:
        file_id = new_file_id()
        return file_id, self._shelf.begin(file_id)

    async def room_bytes(self, tenant: str) -> int:
        """What the tenant may still store. Raises QuotaExceeded when that is nothing."""
        room = self.options.tenant_bytes - await self._store.used_bytes(tenant)
        if room <= 0:
            raise QuotaExceeded(
                f"This tenant's files have the {self.options.tenant_bytes} bytes that it may store; delete some."
            )
        return room

    async def add_file(
        self, file_id: str, tenant: str, purpose: str, filename: str, num_bytes: int, expires_after_s: int | None
    ) -> FileRecord:
        """Make a file visible whose bytes are on the shelf."""
        if expires_after_s is None and purpose == "batch":
            expires_after_s = self.options.input_expires_after_s
        now_s = int(self._clock.now_s())
        expires_s = None if expires_after_s is None else now_s + expires_after_s
        record = FileRecord(file_id, tenant, purpose, safe_filename(filename), num_bytes, now_s, expires_s)
        await self._store.add_file(record)
        return record

    async def find_file(self, tenant: str, file_id: str) -> FileRecord | RunningFile:
        """Raises NotFound."""
        record = await self._store.find_file(file_id)
        if record is not None and record.tenant == tenant and not self._is_expired(record):
            return record
        running = await self._running_file(tenant, file_id) if record is None else None
        if running is None:
            raise NotFound(f"There is no file {file_id!r}.", param="file_id")
        return running

    async def list_files(self, query: FileQuery) -> list[FileRecord]:
        return [record for record in await self._store.list_files(query) if not self._is_expired(record)]

    async def delete_file(self, tenant: str, file_id: str) -> None:
        """Raises NotFound, InvalidRequest while a batch reads or writes it."""
        record = await self.find_file(tenant, file_id)
        if isinstance(record, RunningFile):
            raise InvalidRequest(f"File {file_id} is being written by {record.batch.id}; wait for its end.")
        await self._store.delete_file(file_id)
        await asyncio.to_thread(self._shelf.remove, file_id)

    def open_file(self, file_id: str) -> BinaryIO:
        return self._shelf.open(file_id)

    def running_pages(self, file: RunningFile) -> AsyncGenerator[bytes, None]:
        return self._publisher.pages(file.batch, file.kind)

    async def _running_file(self, tenant: str, file_id: str) -> RunningFile | None:
        found = batch_of_file(file_id)
        if found is None:
            return None
        for prefix in ("batch_", "msgbatch_"):
            batch = await self._store.find_batch(prefix + found[0])
            if batch is not None and batch.tenant == tenant and batch.status not in TERMINAL:
                return RunningFile(batch, found[1])
        return None

    def _is_expired(self, record: FileRecord) -> bool:
        return record.expires_s is not None and record.expires_s <= self._clock.now_s()

    # ---- batches ---------------------------------------------------------------------------------------------------

    async def create_batch(self, tenant: str, spec: BatchSpec, idempotency_key: str | None) -> BatchRecord:
        """Raises NotFound, InvalidRequest, Overloaded, WindowInfeasible."""
        source = await self.find_file(tenant, spec.input_file_id)
        if isinstance(source, RunningFile) or source.purpose != "batch":
            raise InvalidRequest(
                f"File {spec.input_file_id} cannot be the input of a batch; upload one with purpose 'batch'.",
                param="input_file_id",
            )
        await self._check_number(tenant)
        await self._check_window(spec)
        batch_id = new_batch_id()
        if spec.dialect == "anthropic":
            batch_id = f"msg{batch_id}"
        batch = await self._store.add_batch(batch_id, tenant, spec, self._clock.now_s(), idempotency_key)
        if batch.id != batch_id and batch.spec != spec:
            raise InvalidRequest(
                f"The idempotency key was used for {batch.id}, which asked for something else; use a new key.",
                param="idempotency_key",
            )
        self.wake()
        return batch

    async def find_batch(self, tenant: str, batch_id: str, dialect: str = "openai") -> BatchRecord:
        """Raises NotFound."""
        batch = await self._store.find_batch(batch_id)
        if batch is None or batch.tenant != tenant or batch.spec.dialect != dialect:
            raise NotFound(f"There is no batch {batch_id!r}.", param="batch_id")
        return batch

    async def list_batches(self, tenant: str, dialect: str, after: str | None, limit: int) -> list[BatchRecord]:
        return await self._store.list_batches(tenant, dialect, after, limit)

    async def cancel_batch(self, tenant: str, batch_id: str, dialect: str = "openai") -> BatchRecord:
        """What is done is kept. Raises NotFound, InvalidRequest for one that is over."""
        batch = await self.find_batch(tenant, batch_id, dialect)
        sources = (BatchStatus.VALIDATING, BatchStatus.IN_PROGRESS)
        change = BatchChange(batch.key, sources, BatchStatus.CANCELLING, self._clock.now_s())
        if not await self._store.change(change):
            batch = await self.find_batch(tenant, batch_id, dialect)
            if batch.status not in (BatchStatus.CANCELLING, BatchStatus.CANCELLED):
                raise InvalidRequest(f"Batch {batch_id} is {batch.status}; only one that runs can be cancelled.")
        self.wake()
        return await self.find_batch(tenant, batch_id, dialect)

    async def remove_batch(self, tenant: str, batch_id: str, dialect: str) -> None:
        """Forget a batch that is over, and its files. Raises NotFound, InvalidRequest."""
        batch = await self.find_batch(tenant, batch_id, dialect)
        if batch.status not in TERMINAL:
            raise InvalidRequest(f"Batch {batch_id} is {batch.status}; cancel it and wait for its end.")
        while not await self._store.tidy(batch.key, TIDY_ROWS):
            pass
        await self._store.remove_batch(batch.key)

    async def _check_number(self, tenant: str) -> None:
        num_open = sum(job.tenant == tenant for job in await self._store.jobs())
        if num_open >= self.options.max_open_batches:
            raise Overloaded(
                f"{num_open} batches of this tenant run; at most {self.options.max_open_batches} may. "
                "Wait for some of them.",
                retry_after_s=60.0,
            )

    async def _check_window(self, spec: BatchSpec) -> None:
        """Refuse what cannot be done in time at the pace that was seen; without one, believe."""
        pace = self._worker.pace
        if not pace.is_known:
            return
        num_lines = await asyncio.to_thread(self._count_lines, spec.input_file_id)
        others = [Backlog(job.num_open, job.deadline_s) for job in await self._store.jobs()]
        now_s = self._clock.now_s()
        earliest_s = earliest_window_s(num_lines, spec.window_s, others, pace.rate_per_s(), now_s)
        if earliest_s > spec.window_s:
            raise WindowInfeasible(
                f"{num_lines} lines cannot be done within {spec.window}: at {pace.rate_per_s():.3g} lines/s and with "
                f"the work of earlier deadlines they need {math.ceil(earliest_s)} s. The earliest window that can be "
                f"kept is {offered_window(earliest_s)}.",
                param="completion_window",
            )

    def _count_lines(self, file_id: str) -> int:
        num_lines = 0
        with self._shelf.open(file_id) as file:
            while block := file.read(COUNT_BYTES):
                num_lines += block.count(b"\n")
        return max(1, num_lines)
