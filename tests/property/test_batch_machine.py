"""Any order of claims, heartbeats, results, deaths, cancels, expiries and clocks: every line ends exactly once.

One machine, run against both stores.
"""

import asyncio
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from speciate.batch.database import Database
from speciate.batch.postgres import PostgresDatabase
from speciate.batch.private_postgres import PrivatePostgres
from speciate.batch.records import BatchChange, BatchSpec, BatchStatus, Claim, LineResult, LineState, NewLine, Want
from speciate.batch.sql_store import SqlBatchStore
from speciate.batch.sqlite import SqliteDatabase

T = TypeVar("T")

LEASE_S = 30.0
MAX_DEATHS = 3
WORKERS = ("a", "b", "c")


class BatchStoreMachine(RuleBasedStateMachine):
    """Models what each line's end must be, and compares."""

    def __init__(self, open_database: Callable[[], Database]) -> None:
        super().__init__()
        self._loop = asyncio.new_event_loop()
        self._open_database = open_database
        self._database = open_database()
        self._store = SqlBatchStore(self._database)
        self._now_s = 1_800_000_000.0
        self._claims: dict[str, list[Claim]] = {worker: [] for worker in WORKERS}
        self._written: dict[int, str] = {}
        self._fences: dict[int, int] = {}
        self._seen: set[tuple[int, int]] = set()
        self._is_over = False
        self._num_lines = 0

    def teardown(self) -> None:
        self._run(self._database.close)
        self._loop.close()

    def _run(self, do: Callable[[], Awaitable[T]]) -> T:
        async def run() -> T:
            return await do()

        return self._loop.run_until_complete(run())

    @initialize(num_lines=st.integers(1, 12), data=st.data())
    def file(self, num_lines: int, data: st.DataObject) -> None:
        ranks = data.draw(st.permutations(range(num_lines)))
        self._num_lines = num_lines

        async def make() -> int:
            spec = BatchSpec("/v1/chat/completions", "file-in", "24h", 86_400.0)
            batch = await self._store.add_batch("batch_1", "t", spec, self._now_s, None)
            await self._store.take("s", (BatchStatus.VALIDATING,), self._now_s, 60.0)
            await self._store.add_lines(batch.key, "s", [NewLine(i, ranks[i], i, 1) for i in range(num_lines)])
            change = BatchChange(
                batch.key, (BatchStatus.VALIDATING,), BatchStatus.IN_PROGRESS, self._now_s, "s", "m", num_lines
            )
            assert await self._store.change(change)
            return batch.key

        self._key = self._run(make)

    @rule(worker=st.sampled_from(WORKERS), num=st.integers(1, 5), suspects=st.booleans())
    def claim(self, worker: str, num: int, suspects: bool) -> None:
        want = Want(self._key, num, LineState.SUSPECT if suspects else LineState.PENDING)
        claims = self._run(lambda: self._store.claim(worker, (want,), self._now_s, LEASE_S))
        assert len(claims) <= num
        assert not (claims and self._is_over)
        for claim in claims:
            assert claim.index not in self._written, "a line that is over was given out"
            assert (claim.index, claim.fence) not in self._seen, "a fence was used twice"
            self._seen.add((claim.index, claim.fence))
            self._fences[claim.index] = claim.fence
        self._claims[worker] += claims

    @rule(worker=st.sampled_from(WORKERS), is_success=st.booleans(), share=st.integers(1, 5))
    def finish(self, worker: str, is_success: bool, share: int) -> None:
        """Also with claims that were lost long ago: a worker that was thought dead comes back."""
        claims = self._claims[worker][:share]
        results = [
            LineResult(c.batch_key, c.index, c.fence, is_success, f'"{worker}-{c.fence}-{c.index}"', "{}")
            for c in claims
        ]
        if not results:
            return
        taken = self._run(lambda: self._store.finish(results, self._now_s))
        for result, is_taken in zip(results, taken, strict=True):
            if is_taken:
                assert result.fence == self._fences[result.index], "a worker wrote over another's lease"
                assert result.index not in self._written, "a line was published twice"
                self._written[result.index] = result.line if is_success else ""

    @rule(worker=st.sampled_from(WORKERS))
    def forget(self, worker: str) -> None:
        self._claims[worker].clear()

    @rule(worker=st.sampled_from(WORKERS), counted=st.booleans())
    def give_back(self, worker: str, counted: bool) -> None:
        claims, self._claims[worker] = self._claims[worker], []
        self._run(lambda: self._store.give_back(claims, counts_as_attempt=counted))

    @rule(worker=st.sampled_from(WORKERS))
    def heartbeat(self, worker: str) -> None:
        self._run(lambda: self._store.extend(worker, self._now_s, LEASE_S))

    @rule(seconds=st.sampled_from([1.0, 29.0, 31.0, 100.0, -40.0, -100_000.0]))
    def pass_time(self, seconds: float) -> None:
        self._now_s += seconds

    @rule()
    def reap(self) -> None:
        self._run(lambda: self._store.reap(self._now_s, MAX_DEATHS))

    @rule()
    def restart(self) -> None:
        """The process died: another opens the store."""

        async def again() -> None:
            await self._database.close()
            self._database = self._open_database()
            self._store = SqlBatchStore(self._database)
            await self._store.recover(self._now_s, MAX_DEATHS)

        self._run(again)

    @rule(thief=st.sampled_from(WORKERS))
    def take_over(self, thief: str) -> None:
        """All leases end, and another gets the lines, while those who had them still hold their old claims."""
        self._run(lambda: self._store.recover(self._now_s, MAX_DEATHS))
        self.claim(thief, 5, suspects=True)

    @precondition(lambda self: not self._is_over)
    @rule(cancels=st.booleans())
    def end(self, cancels: bool) -> None:
        target = BatchStatus.CANCELLING if cancels else BatchStatus.FINALIZING
        state = LineState.CANCELLED if cancels else LineState.EXPIRED

        async def close() -> bool:
            change = BatchChange(self._key, (BatchStatus.IN_PROGRESS,), target, self._now_s)
            changed = await self._store.change(change)
            if changed:
                await self._store.close_lines(self._key, state)
            return changed

        self._is_over = self._run(close) or self._is_over

    @invariant()
    def counts_add_up(self) -> None:
        if not self._num_lines:
            return
        batch = self._run(lambda: self._store.find_batch("batch_1"))
        assert batch is not None
        counts = batch.counts
        assert counts.total == self._num_lines
        assert counts.open >= 0
        assert counts.completed == sum(bool(line) for line in self._written.values())
        closed = self._run(self._all_closed)
        states = [line.state for line in closed]
        is_readable = counts.open == 0
        if is_readable:
            assert [line.index for line in closed] == list(range(self._num_lines))
            assert states.count(LineState.COMPLETED) == counts.completed
            assert states.count(LineState.FAILED) + states.count(LineState.POISONED) == counts.failed
            assert states.count(LineState.CANCELLED) == counts.cancelled
            assert states.count(LineState.EXPIRED) == counts.expired
            assert batch.status is not BatchStatus.IN_PROGRESS
        assert (batch.status is BatchStatus.IN_PROGRESS) == (counts.open > 0 and not self._is_over)

    @invariant()
    def the_output_is_a_prefix_in_order(self) -> None:
        if not self._num_lines:
            return
        page = self._run(lambda: self._store.output_page(self._key, 0, 100))
        lines = page.data.decode().splitlines()
        expected = [self._written[i] for i in sorted(self._written) if self._written[i]]
        assert lines == expected[: len(lines)]

    async def _all_closed(self) -> list[Any]:
        return await self._store.closed_page(self._key, 0, 1000, LineState.COMPLETED)


class SqliteMachine(BatchStoreMachine):
    """A new file for each life."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp())
        super().__init__(lambda: SqliteDatabase(self._folder / "batch.db"))

    def teardown(self) -> None:
        super().teardown()
        shutil.rmtree(self._folder)


class PostgresMachine(BatchStoreMachine):
    """One database, emptied for each life. Its clock is ours, so that it can be set."""

    def __init__(self, url: str) -> None:
        super().__init__(lambda: PostgresDatabase(url, uses_its_clock=False))
        with psycopg.connect(url) as connection:
            connection.execute("TRUNCATE file, batch, item, result, lease RESTART IDENTITY")


def _lives(num: int, num_steps: int) -> settings:
    """Shrinking a machine over a disk takes minutes; and how long anything takes is no fault of the store's."""
    return settings(
        max_examples=num,
        stateful_step_count=num_steps,
        deadline=None,
        phases=(Phase.explicit, Phase.reuse, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )


def test_every_line_ends_once_on_sqlite() -> None:
    run_state_machine_as_test(SqliteMachine, settings=_lives(40, 30))


def test_every_line_ends_once_on_postgres(postgres_server: PrivatePostgres) -> None:
    url = postgres_server.create_database("machine")
    run_state_machine_as_test(lambda: PostgresMachine(url), settings=_lives(8, 30))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", ["sqlite", "postgres"])
def test_many_lives(name: str, request: pytest.FixtureRequest) -> None:
    if name == "sqlite":
        run_state_machine_as_test(SqliteMachine, settings=_lives(600, 60))
        return
    url = request.getfixturevalue("postgres_server").create_database("machine_long")
    run_state_machine_as_test(lambda: PostgresMachine(url), settings=_lives(150, 60))
