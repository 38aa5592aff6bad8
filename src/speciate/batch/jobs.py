"""The durable path as the front door sees it: files and batches of tenants. Owns the worker and the steward."""

import asyncio
import math
from collections.abc import AsyncGenerator, Callable
from typing import BinaryIO

import msgspec
from msgspec import Struct

from speciate.admission.windows import earliest_deadline_s
from speciate.batch.files import (
    FileKind,
    FileShelf,
    Part,
    batch_of_file,
    new_batch_id,
    new_file_id,
    safe_filename,
)
from speciate.batch.holding import Holding, JobOutlook
from speciate.batch.leaving import Leaving
from speciate.batch.market_sources import MarketBoard
from speciate.batch.options import BatchOptions
from speciate.batch.order import OWN_PACE
from speciate.batch.publish import Publisher
from speciate.batch.records import (
    TERMINAL,
    BatchChange,
    BatchQuery,
    BatchRecord,
    BatchSpec,
    BatchStatus,
    FileQuery,
    FileRecord,
)
from speciate.batch.steward import Steward
from speciate.batch.store import BatchStore
from speciate.batch.validate import peek_body
from speciate.batch.windows import offered_window
from speciate.batch.worker import Worker
from speciate.core.errors import InvalidRequest, NotFound, Overloaded, QuotaExceeded, WindowInfeasible
from speciate.core.ports import Clock
from speciate.core.window import OpenJob
from speciate.scaling.notice import NoticeOptions
from speciate.scaling.ways import LocalWork, Way, ways

COUNT_BYTES = 1 << 20
SAMPLE_BYTES = 1 << 18
SAMPLE_LINES = 64
BYTES_PER_TOKEN = 4
"""Of English text; a guess that only a job before the first measured one rests on."""
TIDY_ROWS = 5000


class RunningFile(Struct, frozen=True):
    """The file of a batch that still runs: what is there of it can be read."""

    batch: BatchRecord
    kind: FileKind


class Sample(Struct, frozen=True):
    """How big a job is, from its length and its first lines."""

    num_lines: int
    model: str
    prompt_tokens: int
    max_tokens: int


PredictRate = Callable[[Sample], float | None]
"""Lines a second that the engine would do of such work; None where nothing is known."""


def no_prediction(sample: Sample) -> float | None:
    return None


class Estimate(Struct, frozen=True):
    """Whether a job can be done in its window, as far as is known now."""

    num_lines: int
    rate_per_s: float | None
    """Seen lately, or else predicted; None where nothing is known."""
    is_measured: bool
    earliest_s: float | None
    """Seconds until it would be done, with nobody's deadline broken and a tenth of the pace kept back."""
    ahead_s: float = 0.0
    """Seconds of work of other jobs, at the pace seen, that is due before the window asked for ends."""
    ways: tuple[Way, ...] = ()
    """What it costs and when it ends, by the ways in which it could be done; none where no pace is known."""
    deadline_s: float = 0.0
    usd_per_h_here: float | None = None


class BatchJobs:
    """`start` on the event loop, `stop` once. A tenant sees its own; another's is as unknown as a wrong id."""

    def __init__(
        self,
        store: BatchStore,
        shelf: FileShelf,
        publisher: Publisher,
        worker: Worker,
        steward: Steward,
        predict_rate: PredictRate,
        board: MarketBoard,
        options: BatchOptions,
        clock: Clock,
    ) -> None:
        self._store = store
        self._shelf = shelf
        self._publisher = publisher
        self._worker = worker
        self._steward = steward
        self._predict_rate = predict_rate
        self._board = board
        self._clock = clock
        self._holding = Holding(board, worker.paces.rate_per_s, clock)
        self._leaving = Leaving(worker, store, NoticeOptions(margin_s=board.spec.here.notice.margin_s))
        self.options = options

    def start(self) -> None:
        self._worker.may_run = self._holding.may_run
        self._worker.start()
        self._steward.start()
        self._holding.start()

    async def stop(self) -> None:
        await self._holding.stop()
        await self._steward.stop()
        await self._worker.stop()

    def leave(self, notice_s: float) -> None:
        """This machine goes in so many seconds: claim nothing new, finish what fits, hand the rest back."""
        self._leaving.begin(notice_s)

    async def left(self) -> None:
        """Wait until that is done; at once where nobody said so."""
        await self._leaving.left()

    def outlook_of(self, batch: BatchRecord) -> JobOutlook | None:
        """What was decided for a batch in progress: whether it waits, and what a fleet would rent."""
        return self._holding.outlook_of(batch.key) if batch.status is BatchStatus.IN_PROGRESS else None

    def wake(self) -> None:
        self._worker.wake()
        self._steward.wake()

    def now_s(self) -> float:
        return self._clock.now_s()

    # ---- files -----------------------------------------------------------------------------------------------------

    def begin_file(self) -> tuple[str, Part]:
        file_id = new_file_id()
        return file_id, self._shelf.begin(file_id)

    def begin_named_file(self, file_id: str) -> Part:
        """For whoever knows its id, from its content."""
        return self._shelf.begin(file_id)

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

    async def list_batches(self, query: BatchQuery) -> list[BatchRecord]:
        """Raises NotFound for a cursor that names no batch."""
        return await self._store.list_batches(query)

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

    async def estimate(self, tenant: str, file_id: str, window_s: float) -> Estimate:
        """What is known of a job before it is filed. Raises NotFound."""
        await self.find_file(tenant, file_id)
        found, now_s, board = await self._estimate(file_id, window_s), self._clock.now_s(), self._board
        told: tuple[Way, ...] = ()
        if found.rate_per_s is not None:
            work_s = found.num_lines / found.rate_per_s
            work = LocalWork(work_s, found.ahead_s, now_s + window_s, now_s, OWN_PACE.safety)
            told = await asyncio.to_thread(ways, board.spec, board.signals, work, board.history)
        return msgspec.structs.replace(
            found, ways=told, deadline_s=now_s + window_s, usd_per_h_here=board.usd_per_h_here(now_s)
        )

    async def _check_window(self, spec: BatchSpec) -> None:
        """Refuse what cannot be done in time; believe where nothing is known."""
        found = await self._estimate(spec.input_file_id, spec.window_s)
        if found.earliest_s is None or found.rate_per_s is None or found.earliest_s <= spec.window_s:
            return
        seen = "seen" if found.is_measured else "predicted"
        raise WindowInfeasible(
            f"{found.num_lines} lines cannot be done within {spec.window}: at {found.rate_per_s:.3g} lines/s ({seen}), "
            f"after the work of earlier deadlines, they need {math.ceil(found.earliest_s)} s. The earliest window that "
            f"can be kept is {offered_window(found.earliest_s)}.",
            param="completion_window",
        )

    async def _estimate(self, file_id: str, window_s: float) -> Estimate:
        sample = await asyncio.to_thread(self._sample, file_id)
        paces = self._worker.paces
        is_known = paces.is_known(sample.model)
        rate_per_s = paces.rate_per_s(sample.model) if is_known else self._predict_rate(sample)
        if not rate_per_s:
            return Estimate(sample.num_lines, None, is_known, None)
        others = [
            OpenJob(
                job_id=job.id,
                work_s=job.num_open / (paces.rate_per_s(job.model) if paces.is_known(job.model) else rate_per_s),
                deadline_s=job.deadline_s,
            )
            for job in await self._store.jobs()
        ]
        now_s = self._clock.now_s()
        earliest_s = earliest_deadline_s(others, sample.num_lines / rate_per_s, OWN_PACE, now_s) - now_s
        ahead_s = sum(job.work_s for job in others if job.deadline_s <= now_s + window_s)
        return Estimate(sample.num_lines, rate_per_s, is_known, earliest_s, ahead_s)

    def _sample(self, file_id: str) -> Sample:
        """Blocks: it counts the lines of the whole file."""
        with self._shelf.open(file_id) as file:
            head = file.read(SAMPLE_BYTES).splitlines()[:SAMPLE_LINES]
            file.seek(0)
            num_lines = 0
            while block := file.read(COUNT_BYTES):
                num_lines += block.count(b"\n")
        bodies = [body for line in head if (body := peek_body(line)) is not None]
        num = max(1, len(bodies))
        return Sample(
            num_lines=max(1, num_lines),
            model=bodies[0].model if bodies else "",
            prompt_tokens=sum(len(line) for line in head) // (max(1, len(head)) * BYTES_PER_TOKEN) + 1,
            max_tokens=sum(body.longest for body in bodies) // num + 1,
        )
