"""Takes batches through their states: reads the files of new ones, ends those whose lines are over, whose time is up or
that were cancelled, and clears away. One steward a batch at a time; whoever dies is replaced when its lease ends.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress

from speciate.batch.files import FileShelf
from speciate.batch.options import BatchOptions
from speciate.batch.publish import Publisher
from speciate.batch.records import TERMINAL, BatchChange, BatchError, BatchRecord, BatchStatus, LineState, NewLine
from speciate.batch.store import BatchStore
from speciate.batch.validate import FileRules, InputFile
from speciate.core.errors import CallerError, NotFound, SpeciateError
from speciate.core.ports import Clock

log = logging.getLogger(__name__)

TIDY_ROWS = 5000
"""Rows that one transaction removes: claims wait no longer than it takes."""
GRACE_POLL_S = 0.1
MAX_BACKOFF_S = 15.0


class Steward:
    """`start` on the event loop, `stop` once. `on_work` is called when a batch has lines to run."""

    def __init__(
        self,
        store: BatchStore,
        shelf: FileShelf,
        publisher: Publisher,
        options: BatchOptions,
        clock: Clock,
        serves: Callable[[str], bool],
        *,
        name: str,
        on_work: Callable[[], None],
    ) -> None:
        self._store = store
        self._shelf = shelf
        self._publisher = publisher
        self._options = options
        self._clock = clock
        self._serves = serves
        self._name = name
        self._on_work = on_work
        self._bells: list[asyncio.Event] = []
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        duties: list[tuple[tuple[BatchStatus, ...], Callable[[BatchRecord], Awaitable[None]]]] = [
            ((BatchStatus.VALIDATING,), self._validate),
            ((BatchStatus.FINALIZING,), self._finalize),
            ((BatchStatus.CANCELLING,), self._end_cancelled),
            (tuple(sorted(TERMINAL)), self._tidy),
        ]
        self._tasks = [asyncio.create_task(self._attend(statuses, duty)) for statuses, duty in duties]
        self._tasks.append(asyncio.create_task(self._watch_the_time()))

    def wake(self) -> None:
        for bell in self._bells:
            bell.set()

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)

    # ---- duties ----------------------------------------------------------------------------------------------------

    async def _attend(self, statuses: tuple[BatchStatus, ...], duty: Callable[[BatchRecord], Awaitable[None]]) -> None:
        """One batch after the other, as long as the process lives."""
        bell = asyncio.Event()
        self._bells.append(bell)
        backoff_s = self._options.poll_s
        while True:
            try:
                did = await self._attend_one(statuses, duty)
                backoff_s = self._options.poll_s
            except SpeciateError as error:
                log.warning("%s: %s; trying again in %.1f s", duty.__name__, error, backoff_s)
                did, backoff_s = False, min(MAX_BACKOFF_S, backoff_s * 2)
            except Exception:  # the boundary of a task: other batches go on, and the log says what happened
                log.exception("the batch steward hit a bug in %s", duty.__name__)
                did, backoff_s = False, min(MAX_BACKOFF_S, backoff_s * 2)
            if not did:
                with suppress(TimeoutError):
                    async with asyncio.timeout(backoff_s):
                        await bell.wait()
                bell.clear()

    async def _attend_one(
        self, statuses: tuple[BatchStatus, ...], duty: Callable[[BatchRecord], Awaitable[None]]
    ) -> bool:
        batch = await self._store.take(self._name, statuses, self._clock.now_s(), self._options.lease_s)
        if batch is None:
            return False
        async with self._tending(batch):
            await duty(batch)
        self.wake()
        return True

    @asynccontextmanager
    async def _tending(self, batch: BatchRecord) -> AsyncGenerator[None, None]:
        """The lease is renewed meanwhile, and given up at the end."""
        renewing = asyncio.create_task(self._renew(batch))
        try:
            yield
        finally:
            renewing.cancel()
            await asyncio.wait([renewing])
            with suppress(SpeciateError):
                await self._store.tend(batch.key, self._name, self._clock.now_s(), 0.0)

    async def _renew(self, batch: BatchRecord) -> None:
        while True:
            await asyncio.sleep(self._options.lease_s / 3)
            with suppress(SpeciateError):
                await self._store.tend(batch.key, self._name, self._clock.now_s(), self._options.lease_s)

    async def _validate(self, batch: BatchRecord) -> None:
        """Every line is looked at before any runs."""
        rules = FileRules(
            batch.spec.endpoint,
            self._options.max_lines,
            self._options.max_line_bytes,
            self._serves,
            judges_bodies=batch.spec.dialect == "openai",
        )
        try:
            file = self._shelf.open(batch.spec.input_file_id)
        except NotFound:
            log.warning("the input file of %s is gone", batch.id)
            await self._fail_without_file(batch)
            return
        with file:
            inputs = InputFile(file, rules)
            chunks = inputs.chunks()
            while (chunk := await asyncio.to_thread(_next, chunks)) is not None:
                if chunk:
                    await self._store.add_lines(batch.key, self._name, chunk)
        await self._store.change(self._verdict(batch, inputs))
        self._on_work()

    def _verdict(self, batch: BatchRecord, inputs: InputFile) -> BatchChange:
        sources, now_s = (BatchStatus.VALIDATING,), self._clock.now_s()
        if inputs.errors:
            errors = tuple(sorted(inputs.errors, key=lambda error: error.line or 0))
            return BatchChange(batch.key, sources, BatchStatus.FAILED, now_s, self._name, inputs.model, None, errors)
        return BatchChange(
            batch.key, sources, BatchStatus.IN_PROGRESS, now_s, self._name, inputs.model, inputs.num_lines
        )

    async def _fail_without_file(self, batch: BatchRecord) -> None:
        errors = (BatchError("file_not_found", f"The input file {batch.spec.input_file_id} is not there any more."),)
        now_s = self._clock.now_s()
        await self._store.change(
            BatchChange(batch.key, (BatchStatus.VALIDATING,), BatchStatus.FAILED, now_s, self._name, errors=errors)
        )

    async def _finalize(self, batch: BatchRecord) -> None:
        """All lines are over, or the time is up: those that are still open expire."""
        if batch.counts.open:
            await self._store.close_lines(batch.key, LineState.EXPIRED)
        ended = await self._store.find_batch(batch.id)
        if ended is None:
            return
        await self._publisher.publish(ended, self._clock.now_s())
        target = BatchStatus.EXPIRED if ended.counts.expired else BatchStatus.COMPLETED
        await self._store.change(BatchChange(batch.key, (BatchStatus.FINALIZING,), target, self._clock.now_s()))

    async def _end_cancelled(self, batch: BatchRecord) -> None:
        """Lines that run may finish for a moment; what is done is kept."""
        for _ in range(round(self._options.cancel_grace_s / GRACE_POLL_S)):
            if not await self._store.num_leased(batch.key):
                break
            await asyncio.sleep(GRACE_POLL_S)
        await self._store.close_lines(batch.key, LineState.CANCELLED)
        ended = await self._store.find_batch(batch.id)
        if ended is not None:
            await self._publisher.publish(ended, self._clock.now_s())
        sources = (BatchStatus.CANCELLING,)
        await self._store.change(BatchChange(batch.key, sources, BatchStatus.CANCELLED, self._clock.now_s()))

    async def _tidy(self, batch: BatchRecord) -> None:
        while not await self._store.tidy(batch.key, TIDY_ROWS):
            pass

    # ---- time ------------------------------------------------------------------------------------------------------

    async def _watch_the_time(self) -> None:
        while True:
            try:
                await self._end_late_batches()
                await self._drop_expired_files()
            except SpeciateError as error:
                log.warning("looking at deadlines failed: %s; trying again", error)
            await asyncio.sleep(self._options.poll_s)

    async def _end_late_batches(self) -> None:
        now_s = self._clock.now_s()
        for job in await self._store.jobs():
            if job.deadline_s <= now_s:
                sources = (BatchStatus.IN_PROGRESS,)
                await self._store.change(BatchChange(job.key, sources, BatchStatus.FINALIZING, now_s))
                self.wake()

    async def _drop_expired_files(self) -> None:
        for record in await self._store.expired_files(self._clock.now_s()):
            with suppress(CallerError):  # a batch still reads it
                await self._store.delete_file(record.id)
                await asyncio.to_thread(self._shelf.remove, record.id)


def _next(chunks: Iterator[list[NewLine]]) -> list[NewLine] | None:
    return next(chunks, None)
