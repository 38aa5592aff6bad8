"""Drains the store: claims lines, runs them through the gateway, writes what came of them in groups.

    claim -> inbox -> runners (one line each) -> outbox -> finish, as many at once as came while the last commit ran

At least once executed: whoever dies with a line is found out by its lease. Exactly once published: a result is taken
only under the fence that holds the line.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection

from speciate.batch.files import FileShelf
from speciate.batch.held_lines import HeldLines
from speciate.batch.inputs import InputFiles
from speciate.batch.line_job import Leased, LineJob, MayRun, NumRunning, RunLine, all_may, place_of
from speciate.batch.lines import LineAnswer, answered_line, unrunnable, usage_of
from speciate.batch.meter import Cost, Meter
from speciate.batch.options import BatchOptions
from speciate.batch.order import choose, suspects_first
from speciate.batch.pace import Paces
from speciate.batch.provenance import provenance
from speciate.batch.records import BatchStatus, Claim, JobFacts, LineResult, TokenUsage, Want
from speciate.batch.store import BatchStore
from speciate.core.errors import StoreUnavailable
from speciate.core.ports import Clock
from speciate.scaling.notice import RunningLine
from speciate.telemetry.metrics import BatchMetrics

log = logging.getLogger(__name__)

LINES_IN_A_ROW = 4
"""Taken in at once, at some 0.15 ms a line: between two such groups the event loop is everybody's."""
MIN_BACKOFF_S = 0.1
MAX_BACKOFF_S = 15.0
MIN_REFUSED_S = 0.05
MAX_REFUSED_S = 5.0
"""After a refusal nothing new is claimed for so long, whatever `Retry-After` says: batch work asks again cheaply."""
NO_COST = Cost(None, None)


class Worker:
    """`start` on the event loop, `stop` once: what runs is given back. `wake` when there may be new work."""

    def __init__(
        self,
        store: BatchStore,
        shelf: FileShelf,
        run_line: RunLine,
        num_running: NumRunning,
        serves: Callable[[str], bool],
        options: BatchOptions,
        clock: Clock,
        metrics: BatchMetrics,
        meter: Meter,
        *,
        name: str,
        owns_store: bool,
    ) -> None:
        self._store = store
        self._run_line = run_line
        self._num_running = num_running
        self._serves = serves
        self._options = options
        self._clock = clock
        self._metrics = metrics
        self._meter = meter
        self._name = name
        self._owns_store = owns_store
        self._inbox: asyncio.Queue[Leased] = asyncio.Queue()
        self._outbox: list[LineResult] = []
        self._returns: list[tuple[Claim, bool]] = []
        self._held = HeldLines()
        self._inputs = InputFiles(shelf)
        self._served: dict[str, float] = {}
        self._has_output = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_work = asyncio.Event()
        self._rest_until_s = 0.0
        self._store_failed_s = clock.now_s()
        self._tasks: list[asyncio.Task[None]] = []
        self._claiming: asyncio.Future[list[Claim]] | None = None
        self.paces = Paces()
        self.may_run: MayRun = all_may
        """Asked before lines are claimed: which jobs wait for nothing."""

    def start(self) -> None:
        loops = [self._claim_loop, self._write_loop, self._lease_loop, self._abandon_loop]
        loops += [self._run_loop] * self._options.credit.most
        self._tasks = [asyncio.create_task(self._guard(loop), name=f"batch{loop.__name__}") for loop in loops]

    def wake(self) -> None:
        self._has_work.set()

    async def stop(self) -> None:
        """Running lines are abandoned and given back, results that are there are written."""
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        try:
            claims = await self._last_claims() + [held.claim for held in self._held]
            await self._write()
            await self._store.give_back(claims, counts_as_attempt=False)
            await self._store.announce()
        except StoreUnavailable as error:
            log.warning("lines could not be given back: %s; their lease ends by itself", error)
        self._inputs.close()

    # ---- leaving: `leaving.py` asks for it --------------------------------------------------------------------------

    async def stop_claiming(self) -> None:
        """For good. What was being claimed just then is given back."""
        self._tasks[0].cancel()
        await asyncio.wait(self._tasks[:1])
        claims = await self._last_claims()
        if claims:
            await self._store.give_back(claims, counts_as_attempt=False)

    def running(self) -> dict[str, RunningLine]:
        """All that is held and neither done nor on its way back."""
        return {line.line_id: line for line in self._held.running()}

    def hand_back(self, line_ids: Collection[str]) -> None:
        """Their runs stop, and they wait again for whoever claims them."""
        for leased in self._held.hand_back(line_ids):
            self._return(leased, counts_as_attempt=False)

    async def until_written(self, most_s: float) -> bool:
        """Wait for a group of results or returned lines to be written; whether nothing is held any more."""
        if self._held:
            await self._pause(self._has_room, most_s)
        return not self._held

    async def _last_claims(self) -> list[Claim]:
        """What a claim that was being committed when its task was cancelled has brought."""
        claiming, self._claiming = self._claiming, None
        try:
            return [] if claiming is None else await claiming
        except StoreUnavailable:
            return []

    # ---- claiming --------------------------------------------------------------------------------------------------

    async def _claim_loop(self) -> None:
        while True:
            await self._until_rested()
            every = await self._store.jobs()
            self._forget_inputs(every)
            self._metrics.queued(len(every), sum(job.num_open for job in every))
            jobs = await self.may_run([job for job in every if self._can_run(job)])
            suspects = suspects_first(jobs)
            if suspects is not None:
                await self._run_suspects(suspects, jobs)
            elif not await self._claim_some(jobs):
                await self._pause(self._has_work, self._options.poll_s)

    def _can_run(self, job: JobFacts) -> bool:
        """A job whose model is not here waits. In Anthropic's dialect each line has its own, and its own error."""
        return job.spec.dialect == "anthropic" or self._serves(job.model)

    async def _claim_some(self, jobs: list[JobFacts]) -> bool:
        """False when nothing waits."""
        room = await self._room(jobs)
        now_s = self._clock.now_s()
        active = [job for job in jobs if job.deadline_s > now_s]
        wants = choose(active, self._joined(active), self._held.in_flight, self.paces.rate_per_s, room, now_s)
        return bool(wants) and bool(await self._claim(wants, jobs))

    async def _room(self, jobs: list[JobFacts]) -> int:
        """How many lines may be claimed now; waits until that is worth a transaction."""
        while True:
            await self._until_rested()
            allowed, flying = self._allowed(jobs), len(self._held) - self._num_answered
            room = min(allowed - flying, self._options.credit.most_held - len(self._held))
            if room > 0 and (flying == 0 or room >= allowed // 4):
                return room
            await self._pause(self._has_room, self._options.poll_s)

    @property
    def _num_answered(self) -> int:
        """Lines that only wait to be written: the engine is done with them."""
        return len(self._outbox) + len(self._returns)

    async def _until_rested(self) -> None:
        rest_s = self._rest_until_s - time.monotonic()
        if rest_s > 0:
            await asyncio.sleep(rest_s)

    def _allowed(self, jobs: list[JobFacts]) -> int:
        models = {job.model for job in jobs if self._serves(job.model)}
        running = [self._num_running(model) for model in models]
        if None in running:
            return self._options.credit.most
        return self._options.credit.allowed(sum(r for r in running if r is not None))

    async def _run_suspects(self, want: Want, jobs: list[JobFacts]) -> None:
        """Alone: whatever runs beside them would die with them, or hide which of them it was."""
        await self._until_idle()
        await self._claim((want,), jobs)
        await self._until_idle()

    async def _until_idle(self) -> None:
        while self._held:
            await self._pause(self._has_room, self._options.poll_s)

    async def _claim(self, wants: tuple[Want, ...], jobs: list[JobFacts]) -> list[Claim]:
        of_key = {job.key: job for job in jobs}
        claim = self._store.claim(self._name, wants, self._clock.now_s(), self._options.lease_s)
        self._claiming = asyncio.ensure_future(claim)
        claims = await asyncio.shield(self._claiming)
        self._claiming = None
        every = [self._held.add(claim, of_key[claim.batch_key]) for claim in claims]
        for leased in every:
            self._served[leased.job.tenant] = self._served.get(leased.job.tenant, 0.0) + 1.0
        for number, leased in enumerate(every):
            self._inbox.put_nowait(leased)
            if number % LINES_IN_A_ROW == 0:
                await asyncio.sleep(0)
        return claims

    def _joined(self, jobs: list[JobFacts]) -> dict[str, float]:
        """Who comes to the queue begins level with who has had least of those there (virtual time, as in start-time
        fair queueing, Goyal 1996)."""
        tenants = {job.tenant for job in jobs}
        least = min((served for tenant, served in self._served.items() if tenant in tenants), default=0.0)
        self._served = {tenant: self._served.get(tenant, least) for tenant in tenants}
        return self._served

    # ---- running ---------------------------------------------------------------------------------------------------

    async def _run_loop(self) -> None:
        while True:
            leased = await self._inbox.get()
            try:
                await self._run(leased)
            except Exception:  # the boundary of a line: whatever is wrong with it, it must not stay leased for ever
                log.exception("line %d of %s could not be run", leased.claim.index, leased.job.id)
                self._give_up(leased)

    async def _run(self, leased: Leased) -> None:
        if leased.is_over:
            return
        claim, job, started_s = leased.claim, leased.job, time.monotonic()
        leased.started_s = started_s
        line = self._inputs.read(job.spec.input_file_id, claim)
        left_s = job.deadline_s - self._clock.now_s()
        if left_s <= 0:
            self._return(leased, counts_as_attempt=False)
            return
        request_id = f"{job.id}-{claim.index}"
        begun = self._meter.begin()
        try:
            request = LineJob(line.url, bytes(line.body), job.tenant, left_s, job.spec.window_s, request_id)
            answer = await self._held.within(leased, self._run_line(request))
        finally:
            cost = self._meter.end(begun)
        if answer is None and leased.is_handed_back:
            self._return(leased, counts_as_attempt=False)
        elif answer is None:
            self._held.let_go([place_of(claim)])
            self._has_room.set()
        elif answer.is_refusal:
            self._rest(answer.retry_after_s)
            self._return(leased, counts_as_attempt=False)
        elif answer.is_retryable and claim.attempt < self._options.max_attempts:
            self._metrics.retried(job.model)
            self._return(leased, counts_as_attempt=True)
        else:
            self._keep(leased, line.custom_id, answer, time.monotonic() - started_s, cost)

    def _give_up(self, leased: Leased) -> None:
        """It runs again, until its attempts are used up."""
        claim, job = leased.claim, leased.job
        if claim.attempt < self._options.max_attempts:
            self._return(leased, counts_as_attempt=True)
        else:
            self._keep(leased, "", unrunnable(job.spec.dialect, f"{job.id}-{claim.index}"), 0.0, NO_COST)

    async def _abandon_loop(self) -> None:
        """Lines of batches that are over (cancelled and past their grace, expired, removed) stop."""
        while True:
            await asyncio.sleep(self._options.poll_s)
            for key, batch_id in {(h.claim.batch_key, h.job.id) for h in self._held}:
                batch = await self._store.find_batch(batch_id)
                if batch is None or batch.status not in (BatchStatus.IN_PROGRESS, BatchStatus.CANCELLING):
                    self._held.stop_batch(key)

    def _keep(self, leased: Leased, custom_id: str, answer: LineAnswer, took_s: float, cost: Cost) -> None:
        claim, job = leased.claim, leased.job
        leased.is_over = True
        self._held.times.add(job.model, took_s)
        self._outbox.append(
            LineResult(
                batch_key=claim.batch_key,
                index=claim.index,
                fence=claim.fence,
                is_success=answer.is_success,
                line=answered_line(job.spec.dialect, job.id, claim.index, custom_id, answer),
                provenance=provenance(claim, custom_id, answer, self._name, took_s, cost),
                usage=usage_of(answer.body) if answer.is_success else TokenUsage(),
            )
        )
        self._has_output.set()
        self._has_room.set()

    def _return(self, leased: Leased, *, counts_as_attempt: bool) -> None:
        leased.is_over = True
        self._returns.append((leased.claim, counts_as_attempt))
        self._has_output.set()

    def _rest(self, retry_after_s: float) -> None:
        rest_s = min(MAX_REFUSED_S, max(MIN_REFUSED_S, retry_after_s))
        self._rest_until_s = max(self._rest_until_s, time.monotonic() + rest_s)

    # ---- writing ---------------------------------------------------------------------------------------------------

    async def _write_loop(self) -> None:
        while True:
            await self._has_output.wait()
            self._has_output.clear()
            await self._write()

    async def _write(self) -> None:
        """What is in the outbox; it stays there until the store has it."""
        results, returns = self._outbox[:], self._returns[:]
        if results:
            taken = await self._store.finish(results, self._clock.now_s())
            del self._outbox[: len(results)]
            self._count(results, taken)
            self._held.let_go(place_of(result) for result in results)
        for counts in (False, True):
            claims = [claim for claim, counted in returns if counted is counts]
            if claims:
                await self._store.give_back(claims, counts_as_attempt=counts)
        del self._returns[: len(returns)]
        self._held.let_go(place_of(claim) for claim, _ in returns)
        self._has_room.set()

    def _count(self, results: list[LineResult], taken: list[bool]) -> None:
        kept = [result for result, is_taken in zip(results, taken, strict=True) if is_taken]
        for key, num in Counter(result.batch_key for result in kept).items():
            leased = next(h for h in self._held if h.claim.batch_key == key)
            num_good = sum(r.is_success for r in kept if r.batch_key == key)
            self._metrics.published(leased.job.model, num_good, num - num_good)
            self.paces.add(leased.job.model, num, time.monotonic())

    # ---- leases ----------------------------------------------------------------------------------------------------

    async def _lease_loop(self) -> None:
        while True:
            await asyncio.sleep(self._options.lease_s / 3)
            if self._held:
                await self._store.extend(self._name, self._clock.now_s(), self._options.lease_s)
            if not self._owns_store and self._clock.now_s() - self._store_failed_s > self._options.lease_s:
                await self._reap()

    async def _reap(self) -> None:
        """Not soon after an outage: those who live could not extend their leases either."""
        reaped = await self._store.reap(self._clock.now_s(), self._options.max_deaths)
        self._metrics.reaped(reaped.num_suspects, reaped.num_poisoned)
        if reaped.num_suspects:
            log.warning("%d lines lost their worker and run again", reaped.num_suspects)
            self.wake()

    # ---- the rest --------------------------------------------------------------------------------------------------

    async def _guard(self, loop: Callable[[], Awaitable[None]]) -> None:
        """Run a loop again when the store was away, ever more slowly; a bug ends nothing but its own round."""
        backoff_s = MIN_BACKOFF_S
        while True:
            started_s = time.monotonic()
            try:
                await loop()
            except StoreUnavailable as error:
                self._store_failed_s = self._clock.now_s()
                log.warning("the batch store is away: %s", error)
            except Exception:  # the boundary of a task: batch work goes on, and the log says what happened
                log.exception("the batch worker hit a bug in %s", loop.__name__)
            if time.monotonic() - started_s > MAX_BACKOFF_S:
                backoff_s = MIN_BACKOFF_S
            await asyncio.sleep(backoff_s)
            self._has_output.set()
            backoff_s = min(MAX_BACKOFF_S, backoff_s * 2)

    async def _pause(self, event: asyncio.Event, most_s: float) -> None:
        try:
            async with asyncio.timeout(most_s):
                await event.wait()
        except TimeoutError:
            return
        finally:
            event.clear()

    def _forget_inputs(self, jobs: list[JobFacts]) -> None:
        held = {leased.job.spec.input_file_id for leased in self._held}
        self._inputs.keep_only({job.spec.input_file_id for job in jobs} | held)
