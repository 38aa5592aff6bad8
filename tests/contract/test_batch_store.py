"""One suite for every batch store: what the worker, the publisher and the front door rely on."""

import itertools
import json
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from speciate.batch.database import Database, load_migrations
from speciate.batch.records import (
    BatchChange,
    BatchError,
    BatchQuery,
    BatchRecord,
    BatchSpec,
    BatchStatus,
    Claim,
    FileQuery,
    FileRecord,
    LineResult,
    LineState,
    NewLine,
    TokenUsage,
    Want,
)
from speciate.batch.sql_store import SqlBatchStore
from speciate.batch.sqlite import SqliteDatabase
from speciate.core.errors import ConfigError, Conflict, NotFound

NOW = 1_800_000_000.0
SPEC = BatchSpec("/v1/chat/completions", "file-in", "24h", 86_400.0, {"a": "b"})
_numbers = itertools.count()


@pytest.fixture(params=["sqlite", "postgres"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    if request.param == "sqlite":
        opened: Database = SqliteDatabase(tmp_path / "batch.db")
    else:
        server = request.getfixturevalue("postgres_server")
        from speciate.batch.postgres import PostgresDatabase

        opened = PostgresDatabase(server.create_database(f"t{next(_numbers)}"), uses_its_clock=False)
    yield opened
    await opened.close()


@pytest.fixture
def store(database: Database) -> SqlBatchStore:
    return SqlBatchStore(database)


async def _running(store: SqlBatchStore, num_lines: int, batch_id: str = "batch_1") -> BatchRecord:
    """A batch in progress whose lines wait in input order."""
    batch = await store.add_batch(batch_id, "t", SPEC, NOW, None)
    assert await store.take("me", (BatchStatus.VALIDATING,), NOW, 60.0) is not None
    await store.add_lines(batch.key, "me", [NewLine(i, i, i * 10, 10) for i in range(num_lines)])
    started = BatchChange(
        batch.key, (BatchStatus.VALIDATING,), BatchStatus.IN_PROGRESS, NOW, "me", model="m", total=num_lines
    )
    assert await store.change(started)
    assert await store.tend(batch.key, "me", NOW, 0.0)
    found = await store.find_batch(batch_id)
    assert found is not None
    return found


def _result(claim: Claim, line: str = "", *, is_success: bool = True) -> LineResult:
    text = line or json.dumps({"index": claim.index})
    return LineResult(claim.batch_key, claim.index, claim.fence, is_success, text, '{"p":1}', TokenUsage(1, 0, 2, 0))


async def test_files_are_listed_newest_first_by_tenant_with_cursors(store: SqlBatchStore) -> None:
    for i in range(5):
        await store.add_file(FileRecord(f"file-{i}", "t", "batch" if i % 2 else "user_data", f"{i}.jsonl", 10, 100 + i))
    await store.add_file(FileRecord("file-x", "other", "batch", "x", 7, 100))
    assert [f.id for f in await store.list_files(FileQuery("t", limit=2))] == ["file-4", "file-3"]
    assert [f.id for f in await store.list_files(FileQuery("t", after="file-3"))] == ["file-2", "file-1", "file-0"]
    assert [f.id for f in await store.list_files(FileQuery("t", purpose="batch", newest_first=False))] == [
        "file-1",
        "file-3",
    ]
    with pytest.raises(NotFound):
        await store.list_files(FileQuery("t", after="file-x"))
    assert await store.used_bytes("t") == 50
    assert await store.delete_file("file-0")
    assert not await store.delete_file("file-0")
    assert await store.find_file("file-0") is None


async def test_expired_files_are_those_whose_time_has_come(store: SqlBatchStore) -> None:
    await store.add_file(FileRecord("file-a", "t", "batch", "a", 1, 100, 200))
    await store.add_file(FileRecord("file-b", "t", "batch", "b", 1, 100))
    assert await store.expired_files(199.0) == []
    assert [f.id for f in await store.expired_files(200.0)] == ["file-a"]


async def test_a_batch_is_as_it_was_made(store: SqlBatchStore) -> None:
    made = await store.add_batch("batch_1", "t", SPEC, NOW, None)
    assert (made.status, made.spec, made.deadline_s) == (BatchStatus.VALIDATING, SPEC, NOW + 86_400)
    assert await store.find_batch("batch_1") == made
    assert await store.find_batch("batch_2") is None


async def test_one_idempotency_key_makes_one_batch_of_a_tenant(store: SqlBatchStore) -> None:
    first = await store.add_batch("batch_1", "t", SPEC, NOW, "k")
    assert (await store.add_batch("batch_2", "t", SPEC, NOW, "k")).id == first.id
    assert (await store.add_batch("batch_3", "u", SPEC, NOW, "k")).id == "batch_3"


async def test_batches_are_listed_newest_first_with_cursors(store: SqlBatchStore) -> None:
    for i in range(4):
        await store.add_batch(f"batch_{i}", "t", SPEC, NOW, None)
    for limit, after, before, found in (
        (2, None, None, "32"),
        (9, "batch_2", None, "10"),
        (1, "batch_2", None, "1"),
        (9, None, "batch_1", "32"),
        (1, None, "batch_0", "1"),
        (9, None, "batch_3", ""),
    ):
        listed = await store.list_batches(BatchQuery("t", "openai", limit, after, before))
        assert [b.id for b in listed] == [f"batch_{i}" for i in found]
    assert await store.list_batches(BatchQuery("t", "anthropic", 9)) == []
    for tenant, dialect in (("u", "openai"), ("t", "anthropic")):
        for cursor in ({"after": "batch_2"}, {"before": "batch_2"}):
            with pytest.raises(NotFound):
                await store.list_batches(BatchQuery(tenant, dialect, 9, **cursor))  # type: ignore[arg-type]


async def test_a_change_needs_its_source_and_its_steward(store: SqlBatchStore) -> None:
    batch = await store.add_batch("batch_1", "t", SPEC, NOW, None)
    failed = BatchChange(
        batch.key, (BatchStatus.VALIDATING,), BatchStatus.FAILED, NOW + 5, "me", errors=(BatchError("c", "m", 3),)
    )
    assert not await store.change(failed)
    assert await store.take("me", (BatchStatus.VALIDATING,), NOW, 60.0) is not None
    assert await store.take("you", (BatchStatus.VALIDATING,), NOW + 59, 60.0) is None
    assert await store.change(failed)
    assert not await store.change(failed)
    found = await store.find_batch("batch_1")
    assert found is not None
    assert (found.status, found.marks, found.errors) == (
        BatchStatus.FAILED,
        {"failed": int(NOW) + 5},
        (BatchError("c", "m", 3),),
    )


async def test_a_steward_that_went_away_is_replaced_and_shut_out(store: SqlBatchStore) -> None:
    batch = await store.add_batch("batch_1", "t", SPEC, NOW, None)
    assert await store.take("me", (BatchStatus.VALIDATING,), NOW, 60.0) is not None
    assert await store.take("you", (BatchStatus.VALIDATING,), NOW + 61, 60.0) is not None
    assert not await store.tend(batch.key, "me", NOW + 61, 60.0)
    with pytest.raises(Conflict):
        await store.add_lines(batch.key, "me", [NewLine(0, 0, 0, 1)])


async def test_times_never_go_back_with_the_clock(store: SqlBatchStore) -> None:
    batch = await store.add_batch("batch_1", "t", SPEC, NOW, None)
    change = BatchChange(batch.key, (BatchStatus.VALIDATING,), BatchStatus.IN_PROGRESS, NOW + 100)
    assert await store.change(change)
    back = BatchChange(batch.key, (BatchStatus.IN_PROGRESS,), BatchStatus.CANCELLING, NOW - 5000)
    assert await store.change(back)
    found = await store.find_batch("batch_1")
    assert found is not None
    assert found.marks["cancelling"] == found.marks["in_progress"] == int(NOW) + 100


async def test_lines_are_claimed_by_rank_and_once(store: SqlBatchStore) -> None:
    batch = await store.add_batch("batch_1", "t", SPEC, NOW, None)
    await store.take("me", (BatchStatus.VALIDATING,), NOW, 60.0)
    await store.add_lines(batch.key, "me", [NewLine(i, 3 - i, i * 10, 10) for i in range(4)])
    assert await store.claim("me", (Want(batch.key, 4),), NOW, 30.0) == []
    change = BatchChange(batch.key, (BatchStatus.VALIDATING,), BatchStatus.IN_PROGRESS, NOW, "me", total=4)
    assert await store.change(change)
    first = await store.claim("me", (Want(batch.key, 3),), NOW, 30.0)
    second = await store.claim("you", (Want(batch.key, 3),), NOW, 30.0)
    assert sorted(c.index for c in first) == [1, 2, 3]
    assert [(c.index, c.start, c.num_bytes, c.attempt, c.deaths) for c in second] == [(0, 0, 10, 1, 0)]
    assert len({c.fence for c in first}) == 1
    assert first[0].fence != second[0].fence


async def test_results_are_taken_once_and_only_under_the_fence_that_holds(store: SqlBatchStore) -> None:
    batch = await _running(store, 3)
    claims = await store.claim("me", (Want(batch.key, 2),), NOW, 30.0)
    good, stale = _result(claims[0]), LineResult(batch.key, claims[1].index, claims[1].fence + 1, True, "{}", "{}")
    assert await store.finish([good, stale, _result(claims[0], '"again"')], NOW) == [True, False, False]
    assert await store.finish([good], NOW) == [False]
    found = await store.find_batch("batch_1")
    assert found is not None
    assert found.counts.completed == 1
    assert (await store.output_page(batch.key, 0, 10)).data.count(b"\n") == 1


async def test_counts_and_usage_add_up_and_the_last_line_ends_the_batch(store: SqlBatchStore) -> None:
    batch = await _running(store, 3)
    claims = await store.claim("me", (Want(batch.key, 9),), NOW, 30.0)
    await store.finish([_result(claims[0]), _result(claims[1], is_success=False)], NOW)
    half = await store.find_batch("batch_1")
    assert half is not None
    assert (half.status, half.counts.completed, half.counts.failed, half.counts.open) == ("in_progress", 1, 1, 1)
    await store.finish([_result(claims[2])], NOW + 9)
    done = await store.find_batch("batch_1")
    assert done is not None
    assert (done.status, done.counts.open, done.marks["finalizing"]) == ("finalizing", 0, int(NOW) + 9)
    assert done.usage == TokenUsage(3, 0, 6, 0)


async def test_a_dead_workers_lines_are_suspects_and_given_up_at_last(store: SqlBatchStore) -> None:
    batch = await _running(store, 1)
    for death in range(1, 4):
        state = LineState.PENDING if death == 1 else LineState.SUSPECT
        claims = await store.claim(f"w{death}", (Want(batch.key, 5, state),), NOW, 30.0)
        assert [(c.attempt, c.deaths) for c in claims] == [(death, death - 1)]
        assert (await store.reap(NOW + 29, 3)).num_suspects == 0
        reaped = await store.reap(NOW + 30, 3)
        assert (reaped.num_suspects, reaped.num_poisoned) == ((1, 0) if death < 3 else (0, 1))
        assert await store.finish([_result(claims[0])], NOW) == [False]
    found = await store.find_batch("batch_1")
    assert found is not None
    assert (found.status, found.counts.failed) == (BatchStatus.FINALIZING, 1)
    closed = await store.closed_page(batch.key, 0, 10, LineState.FAILED)
    assert [(c.index, c.state, c.deaths, c.line) for c in closed] == [(0, LineState.POISONED, 3, None)]


async def test_jobs_tell_of_suspects(store: SqlBatchStore) -> None:
    batch = await _running(store, 3)
    await store.claim("me", (Want(batch.key, 2),), NOW, 30.0)
    assert [(j.id, j.num_open, j.suspect_deaths, j.model) for j in await store.jobs()] == [("batch_1", 3, 0, "m")]
    await store.recover(NOW, 5)
    assert [(j.num_open, j.suspect_deaths) for j in await store.jobs()] == [(3, 1)]
    assert len(await store.claim("me", (Want(batch.key, 9),), NOW, 30.0)) == 1
    assert len(await store.claim("me", (Want(batch.key, 9, LineState.SUSPECT),), NOW, 30.0)) == 2


async def test_a_lease_lives_as_long_as_it_is_extended(store: SqlBatchStore) -> None:
    batch = await _running(store, 1)
    (claim,) = await store.claim("me", (Want(batch.key, 1),), NOW, 30.0)
    await store.extend("me", NOW + 20, 30.0)
    assert (await store.reap(NOW + 49, 5)).num_suspects == 0
    assert await store.finish([_result(claim)], NOW) == [True]


async def test_lines_given_back_wait_again_without_blame(store: SqlBatchStore) -> None:
    batch = await _running(store, 2)
    claims = await store.claim("me", (Want(batch.key, 2),), NOW, 30.0)
    await store.give_back(claims[:1], counts_as_attempt=False)
    await store.give_back(claims[1:], counts_as_attempt=True)
    again = await store.claim("me", (Want(batch.key, 2),), NOW, 30.0)
    assert sorted((c.index, c.attempt, c.deaths) for c in again) == [(0, 1, 0), (1, 2, 0)]
    assert await store.finish([_result(claims[0])], NOW) == [False]
    assert await store.finish([_result(again[0])], NOW) == [True]


async def test_output_is_readable_in_order_up_to_the_first_open_line(store: SqlBatchStore) -> None:
    batch = await _running(store, 5)
    claims = {c.index: c for c in await store.claim("me", (Want(batch.key, 5),), NOW, 30.0)}
    await store.finish([_result(claims[i]) for i in (0, 3)] + [_result(claims[1], is_success=False)], NOW)
    assert (await store.output_page(batch.key, 0, 9)).data == b'{"index": 0}\n'
    await store.finish([_result(claims[2])], NOW)
    page = await store.output_page(batch.key, 0, 2)
    assert (page.data, page.next_index, page.is_last) == (b'{"index": 0}\n{"index": 2}\n', 3, False)
    page = await store.output_page(batch.key, page.next_index, 2)
    assert (page.data, page.is_last) == (b'{"index": 3}\n', True)
    assert (await store.output_page(batch.key, 0, 9, provenance=True)).data == b'{"p":1}\n' * 4
    assert [c.index for c in await store.closed_page(batch.key, 0, 9, LineState.FAILED)] == [1]


async def test_lines_hold_any_text(store: SqlBatchStore) -> None:
    batch = await _running(store, 1)
    claims = await store.claim("me", (Want(batch.key, 1),), NOW, 30.0)
    line = json.dumps({"t": "\x00 \ud800 ü 漢 \U0001f600 \u2028 ' \" \\"}) + '{"raw":"ü 漢 \U0001f600 \u2028"}'
    await store.finish([_result(claims[0], line)], NOW)
    assert (await store.output_page(batch.key, 0, 1)).data == line.encode() + b"\n"


@pytest.mark.parametrize("state", [LineState.CANCELLED, LineState.EXPIRED])
async def test_closing_keeps_what_is_done_and_refuses_what_comes_later(store: SqlBatchStore, state: LineState) -> None:
    batch = await _running(store, 3)
    claims = await store.claim("me", (Want(batch.key, 2),), NOW, 30.0)
    await store.finish([_result(claims[0])], NOW)
    target = BatchStatus.CANCELLING if state is LineState.CANCELLED else BatchStatus.FINALIZING
    assert await store.change(BatchChange(batch.key, (BatchStatus.IN_PROGRESS,), target, NOW))
    assert await store.claim("me", (Want(batch.key, 2),), NOW, 30.0) == []
    assert await store.close_lines(batch.key, state) == 2
    assert await store.close_lines(batch.key, state) == 0
    assert await store.finish([_result(claims[1])], NOW) == [False]
    found = await store.find_batch("batch_1")
    assert found is not None
    assert (found.counts.completed, found.counts.unsuccessful, found.counts.open) == (1, 2, 0)
    assert [c.state for c in await store.closed_page(batch.key, 0, 9, LineState.COMPLETED)] == [3, state, state]


async def test_tidying_removes_rows_in_bounded_portions_and_keeps_the_batch(store: SqlBatchStore) -> None:
    batch = await _running(store, 5)
    claims = await store.claim("me", (Want(batch.key, 5),), NOW, 30.0)
    await store.finish([_result(c) for c in claims], NOW)
    other = await _running(store, 2, "batch_2")
    assert await store.change(BatchChange(batch.key, (BatchStatus.FINALIZING,), BatchStatus.COMPLETED, NOW))
    taken = await store.take("me", (BatchStatus.COMPLETED,), NOW, 60.0)
    assert taken is not None
    rounds = 0
    while not await store.tidy(batch.key, 2):
        rounds += 1
    assert rounds >= 2
    assert await store.take("you", (BatchStatus.COMPLETED,), NOW + 100, 60.0) is None
    assert (await store.output_page(batch.key, 0, 9)).data == b""
    found = await store.find_batch("batch_1")
    assert found is not None
    assert (found.is_tidy, found.counts.completed) == (True, 5)
    assert len(await store.claim("me", (Want(other.key, 9),), NOW, 30.0)) == 2


async def test_adding_lines_again_changes_nothing(store: SqlBatchStore) -> None:
    batch = await store.add_batch("batch_1", "t", SPEC, NOW, None)
    await store.take("me", (BatchStatus.VALIDATING,), NOW, 60.0)
    for _ in range(2):
        await store.add_lines(batch.key, "me", [NewLine(i, i, i, 1) for i in range(3)])
    await store.change(BatchChange(batch.key, (BatchStatus.VALIDATING,), BatchStatus.IN_PROGRESS, NOW, total=3))
    assert len(await store.claim("me", (Want(batch.key, 9),), NOW, 30.0)) == 3


async def test_what_is_written_is_there_when_opened_again(tmp_path: Path) -> None:
    first = SqliteDatabase(tmp_path / "batch.db")
    await _running(SqlBatchStore(first), 2)
    with pytest.raises(ConfigError, match="another process"):
        SqliteDatabase(tmp_path / "batch.db")
    await first.close()
    second = SqliteDatabase(tmp_path / "batch.db")
    assert [j.num_open for j in await SqlBatchStore(second).jobs()] == [2]
    await second.close()


async def test_a_store_of_an_older_version_is_brought_up_to_date(tmp_path: Path) -> None:
    """And one that is newer than the program is left alone."""
    scripts = load_migrations("sqlite")
    connection = sqlite3.connect(tmp_path / "batch.db")
    connection.executescript(scripts[0][1] + "PRAGMA user_version = 1;")
    connection.close()
    database = SqliteDatabase(tmp_path / "batch.db")
    await _running(SqlBatchStore(database), 2)
    await database.close()
    connection = sqlite3.connect(tmp_path / "batch.db")
    assert connection.execute("PRAGMA user_version").fetchone() == (scripts[-1][0],)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(ConfigError, match="version 99"):
        SqliteDatabase(tmp_path / "batch.db")
