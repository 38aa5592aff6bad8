"""The store over SQL: what each operation does to the rows, the same for every database."""

from collections import defaultdict
from collections.abc import Iterable

import msgspec

from speciate.batch.database import Database, Transaction
from speciate.batch.records import (
    TERMINAL,
    BatchChange,
    BatchQuery,
    BatchRecord,
    BatchSpec,
    BatchStatus,
    Claim,
    ClosedLine,
    FileQuery,
    FileRecord,
    JobFacts,
    LineCounts,
    LineResult,
    LineState,
    NewLine,
    Page,
    Reaped,
    TokenUsage,
    Want,
)
from speciate.batch.sql_rows import read_batch, read_job
from speciate.core.errors import Conflict, InvalidRequest, NotFound

RANK_WINDOW = 2048
"""A line's rank differs from its index by less than this: lines are re-ordered within such windows only."""
LAST_KEY = 1 << 62

_encode = msgspec.json.encode


def _json(value: object) -> str:
    return _encode(value).decode()


class SqlBatchStore:
    """Implements `BatchStore` over a `Database`, which the caller closes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # ---- files -----------------------------------------------------------------------------------------------------

    async def add_file(self, record: FileRecord) -> None:
        await self._database.write(lambda tx: tx.run("add_file", **msgspec.structs.asdict(record)))

    async def find_file(self, file_id: str) -> FileRecord | None:
        rows = await self._database.read(lambda tx: tx.run("find_file", id=file_id))
        return FileRecord(*rows[0]) if rows else None

    async def list_files(self, query: FileQuery) -> list[FileRecord]:
        return await self._database.read(lambda tx: _list_files(tx, query))

    async def delete_file(self, file_id: str) -> bool:
        return await self._database.write(lambda tx: _delete_file(tx, file_id))

    async def used_bytes(self, tenant: str) -> int:
        rows = await self._database.read(lambda tx: tx.run("used_bytes", tenant=tenant))
        return int(rows[0][0])

    async def expired_files(self, now_s: float) -> list[FileRecord]:
        rows = await self._database.read(lambda tx: tx.run("expired_files", now_s=now_s))
        return [FileRecord(*row) for row in rows]

    # ---- batches ---------------------------------------------------------------------------------------------------

    async def add_batch(
        self, batch_id: str, tenant: str, spec: BatchSpec, now_s: float, idempotency_key: str | None
    ) -> BatchRecord:
        return await self._database.write(lambda tx: _add_batch(tx, batch_id, tenant, spec, now_s, idempotency_key))

    async def find_batch(self, batch_id: str) -> BatchRecord | None:
        rows = await self._database.read(lambda tx: tx.run("find_batch", id=batch_id))
        return read_batch(rows[0]) if rows else None

    async def list_batches(self, query: BatchQuery) -> list[BatchRecord]:
        return await self._database.read(lambda tx: _list_batches(tx, query))

    async def change(self, change: BatchChange) -> bool:
        return await self._database.write(lambda tx: _change(tx, change))

    async def take(
        self, owner: str, statuses: tuple[BatchStatus, ...], now_s: float, lease_s: float
    ) -> BatchRecord | None:
        return await self._database.write(lambda tx: self._take(tx, owner, statuses, now_s, lease_s))

    async def tend(self, batch_key: int, owner: str, now_s: float, lease_s: float) -> bool:
        return await self._database.write(lambda tx: self._tend(tx, batch_key, owner, now_s, lease_s))

    async def recover(self, now_s: float, max_deaths: int) -> Reaped:
        def work(tx: Transaction) -> Reaped:
            tx.run("dismiss_stewards")
            tx.run("end_leases")
            return self._reap(tx, now_s, max_deaths)

        return await self._database.write(work)

    async def remove_batch(self, batch_key: int) -> None:
        """Forget a batch that is over and tidy."""
        await self._database.write(lambda tx: tx.run("delete_batch", key=batch_key))

    # ---- lines -----------------------------------------------------------------------------------------------------

    async def add_lines(self, batch_key: int, steward: str, lines: list[NewLine]) -> None:
        rows = _json([[line.index, line.rank, line.start, line.num_bytes] for line in lines])
        await self._database.write(lambda tx: _add_lines(tx, batch_key, steward, rows))

    async def claim(self, owner: str, wants: tuple[Want, ...], now_s: float, lease_s: float) -> list[Claim]:
        return await self._database.write(lambda tx: self._claim(tx, owner, wants, now_s, lease_s))

    async def extend(self, owner: str, now_s: float, lease_s: float) -> None:
        await self._database.write(lambda tx: tx.run("extend", owner=owner, until_s=self._now_s(tx, now_s) + lease_s))

    async def finish(self, results: list[LineResult], now_s: float) -> list[bool]:
        return await self._database.write(lambda tx: _finish(tx, results, now_s))

    async def give_back(self, claims: list[Claim], *, counts_as_attempt: bool) -> None:
        keys = _json([[c.batch_key, c.index, c.fence] for c in claims])
        refund = 0 if counts_as_attempt else 1
        await self._database.write(lambda tx: tx.run("give_back", keys=keys, refund=refund))

    async def announce(self) -> None:
        await self._database.write(lambda tx: tx.run("notify"))

    async def reap(self, now_s: float, max_deaths: int) -> Reaped:
        return await self._database.write(lambda tx: self._reap(tx, now_s, max_deaths))

    # ---- what came of them -----------------------------------------------------------------------------------------

    async def jobs(self) -> list[JobFacts]:
        rows = await self._database.read(lambda tx: tx.run("jobs"))
        return [read_job(row) for row in rows]

    async def output_page(self, batch_key: int, start: int, limit: int, *, provenance: bool = False) -> Page:
        name = "provenance_page" if provenance else "output_page"
        return await self._database.read(lambda tx: _output_page(tx, name, batch_key, start, limit))

    async def closed_page(self, batch_key: int, start: int, limit: int, min_state: int) -> list[ClosedLine]:
        return await self._database.read(lambda tx: _closed_page(tx, batch_key, start, limit, min_state))

    async def close_lines(self, batch_key: int, state: int) -> int:
        return await self._database.write(lambda tx: _close_lines(tx, batch_key, state))

    async def num_leased(self, batch_key: int) -> int:
        rows = await self._database.read(lambda tx: tx.run("num_leased", batch=batch_key))
        return int(rows[0][0])

    async def tidy(self, batch_key: int, limit: int) -> bool:
        return await self._database.write(lambda tx: _tidy(tx, batch_key, limit))

    # ---- with the database's clock where it has one ----------------------------------------------------------------

    def _now_s(self, tx: Transaction, now_s: float) -> float:
        if self._database.now_is_its_own:
            return float(tx.run("now")[0][0])
        return now_s

    def _take(
        self, tx: Transaction, owner: str, statuses: tuple[BatchStatus, ...], now_s: float, lease_s: float
    ) -> BatchRecord | None:
        now_s = self._now_s(tx, now_s)
        name = "take_untidy" if set(statuses) <= TERMINAL else "take"
        rows = tx.run(name, owner=owner, statuses=_json(statuses), now_s=now_s, until_s=now_s + lease_s)
        return read_batch(tx.run("find_batch_by_key", key=rows[0][0])[0]) if rows else None

    def _tend(self, tx: Transaction, batch_key: int, owner: str, now_s: float, lease_s: float) -> bool:
        until_s = self._now_s(tx, now_s) + lease_s
        return bool(tx.run("tend", key=batch_key, owner=owner, until_s=until_s))

    def _claim(self, tx: Transaction, owner: str, wants: tuple[Want, ...], now_s: float, lease_s: float) -> list[Claim]:
        ((lease, number),) = tx.run("next_fence", owner=owner, until_s=self._now_s(tx, now_s) + lease_s)
        fence = lease << 32 | number
        return [claim for want in wants for claim in _claim_of(tx, want, fence)]

    def _reap(self, tx: Transaction, now_s: float, max_deaths: int) -> Reaped:
        now_s = self._now_s(tx, now_s)
        num_suspects = num_poisoned = 0
        for (key,) in tx.run("open_batches"):
            ended = tx.run("dead_lines", batch=key, now_s=now_s, max_deaths=max_deaths)
            num_dead, num_last = int(ended[0][0]), int(ended[0][1])
            if not num_dead:
                continue
            tx.run("reap", batch=key, now_s=now_s, max_deaths=max_deaths)
            if num_last:
                _count(tx, key, LineCounts(failed=num_last), TokenUsage(), now_s)
            num_suspects, num_poisoned = num_suspects + num_dead - num_last, num_poisoned + num_last
        tx.run("drop_leases", now_s=now_s)
        return Reaped(num_suspects, num_poisoned)


# ---- files ---------------------------------------------------------------------------------------------------------


def _list_files(tx: Transaction, query: FileQuery) -> list[FileRecord]:
    after = LAST_KEY if query.newest_first else 0
    if query.after is not None:
        rows = tx.run("file_key", id=query.after, tenant=query.tenant)
        if not rows:
            raise NotFound(f"There is no file {query.after!r} to list after.", param="after")
        after = rows[0][0]
    rows = tx.run(
        "list_files_down" if query.newest_first else "list_files_up",
        tenant=query.tenant,
        after=after,
        purpose=query.purpose or "",
        limit=query.limit,
    )
    return [FileRecord(*row) for row in rows]


def _delete_file(tx: Transaction, file_id: str) -> bool:
    readers = tx.run("reader_of_file", pattern=f'%"input_file_id":"{file_id}"%')
    if readers:
        raise InvalidRequest(f"File {file_id} is read by {readers[0][0]}; wait for its end, or cancel it.")
    return bool(tx.run("delete_file", id=file_id))


# ---- batches -------------------------------------------------------------------------------------------------------


def _add_batch(
    tx: Transaction, batch_id: str, tenant: str, spec: BatchSpec, now_s: float, idempotency_key: str | None
) -> BatchRecord:
    rows = tx.run(
        "add_batch",
        id=batch_id,
        tenant=tenant,
        dialect=spec.dialect,
        idempotency_key=idempotency_key,
        spec=_json(spec),
        now_s=now_s,
        deadline_s=now_s + spec.window_s,
    )
    if rows:
        tx.run("notify")
        return read_batch(tx.run("find_batch_by_key", key=rows[0][0])[0])
    return read_batch(tx.run("find_batch_by_idempotency", tenant=tenant, idempotency_key=idempotency_key)[0])


def _list_batches(tx: Transaction, query: BatchQuery) -> list[BatchRecord]:
    scope = {"tenant": query.tenant, "dialect": query.dialect, "limit": query.limit}
    if query.before is not None:
        rows = tx.run("list_batches_up", **scope, before=_cursor(tx, query, query.before))[::-1]
    else:
        after = LAST_KEY if query.after is None else _cursor(tx, query, query.after)
        rows = tx.run("list_batches_down", **scope, after=after)
    return [read_batch(row) for row in rows]


def _cursor(tx: Transaction, query: BatchQuery, batch_id: str) -> int:
    found = [read_batch(row) for row in tx.run("find_batch", id=batch_id)]
    if not found or (found[0].tenant, found[0].spec.dialect) != (query.tenant, query.dialect):
        raise NotFound(f"There is no batch {batch_id!r} to list from.", param="after")
    return found[0].key


def _change(tx: Transaction, change: BatchChange) -> bool:
    now = read_batch(tx.run("find_batch_by_key", key=change.batch_key)[0])
    if now.status not in change.sources:
        return False
    at_s = max([int(change.now_s), int(now.created_s), *now.marks.values()])
    rows = tx.run(
        "change_batch",
        key=change.batch_key,
        source=now.status.value,
        target=change.target.value,
        marks=_json({**now.marks, change.target.value: at_s}),
        steward=change.steward or "",
        model=change.model,
        total=change.total,
        errors=None if change.errors is None else _json(change.errors),
    )
    if rows:
        tx.run("notify")
    return bool(rows)


# ---- lines ---------------------------------------------------------------------------------------------------------


def _add_lines(tx: Transaction, batch_key: int, steward: str, rows: str) -> None:
    found = tx.run("steward_of", key=batch_key)
    if not found or found[0][0] != steward:
        raise Conflict("Another worker reads this batch's file by now.")
    tx.run("add_lines", batch=batch_key, rows=rows)


def _claim_of(tx: Transaction, want: Want, fence: int) -> list[Claim]:
    if not tx.run("is_in_progress", key=want.batch_key):
        return []
    name = "pick_suspects" if want.state is LineState.SUSPECT else "pick_pending"
    picked = msgspec.json.decode(tx.run(name, batch=want.batch_key, limit=want.num_lines)[0][0], type=list[list[int]])
    if not picked:
        return []
    tx.run("lease_lines", batch=want.batch_key, fence=fence, indexes=_json([row[0] for row in picked]))
    return [
        Claim(want.batch_key, index, start, num_bytes, attempt + 1, deaths, fence)
        for index, start, num_bytes, attempt, deaths in picked
    ]


def _finish(tx: Transaction, results: list[LineResult], now_s: float) -> list[bool]:
    keys = _json([[r.batch_key, r.index, r.fence] for r in results])
    places = msgspec.json.decode(tx.run("held", keys=keys)[0][0], type=list[int])
    held = set({(results[place].batch_key, results[place].index): place for place in sorted(places)[::-1]}.values())
    taken = [r for place, r in enumerate(results) if place in held]
    if taken:
        states = ((LineState.FAILED.value, LineState.COMPLETED.value)[r.is_success] for r in taken)
        tx.run("end_lines", rows=_json([[r.batch_key, r.index, s] for r, s in zip(taken, states, strict=True)]))
        tx.run(
            "add_results",
            rows=_json([[r.batch_key, r.index, int(r.is_success), r.line, r.provenance] for r in taken]),
        )
        _count_results(tx, taken, now_s)
    return [place in held for place in range(len(results))]


def _count_results(tx: Transaction, results: Iterable[LineResult], now_s: float) -> None:
    of_batch: dict[int, list[LineResult]] = defaultdict(list)
    for result in results:
        of_batch[result.batch_key].append(result)
    for key, group in sorted(of_batch.items()):
        num_completed = sum(r.is_success for r in group)
        counts = LineCounts(completed=num_completed, failed=len(group) - num_completed)
        _count(tx, key, counts, _sum(r.usage for r in group), now_s)


def _sum(usages: Iterable[TokenUsage]) -> TokenUsage:
    total = TokenUsage()
    for usage in usages:
        total += usage
    return total


def _count(tx: Transaction, batch_key: int, counts: LineCounts, usage: TokenUsage, now_s: float) -> None:
    """Add to a batch's counts; its last line makes it `finalizing`."""
    more = {**msgspec.structs.asdict(counts), **msgspec.structs.asdict(usage)}
    del more["total"]
    ((status, num_open, _),) = tx.run("add_counts", key=batch_key, **more)
    if num_open == 0 and status == BatchStatus.IN_PROGRESS:
        _change(tx, BatchChange(batch_key, (BatchStatus.IN_PROGRESS,), BatchStatus.FINALIZING, now_s))


def _close_lines(tx: Transaction, batch_key: int, state: int) -> int:
    ((num_open,),) = tx.run("num_open", key=batch_key)
    tx.run("close_lines", batch=batch_key, state=state)
    counts = LineCounts(cancelled=num_open) if state == LineState.CANCELLED else LineCounts(expired=num_open)
    if num_open:
        _count(tx, batch_key, counts, TokenUsage(), 0.0)
    return int(num_open)


# ---- reading -------------------------------------------------------------------------------------------------------


def _stop(tx: Transaction, batch_key: int) -> int:
    """The first open line's index, or past the last."""
    rank = tx.run("first_open", batch=batch_key)[0][0]
    if rank is None:
        return LAST_KEY >> 31
    start = rank // RANK_WINDOW * RANK_WINDOW
    found = tx.run("first_open_from", batch=batch_key, start=start, stop=start + RANK_WINDOW)[0][0]
    return int(rank if found is None else found)


def _output_page(tx: Transaction, name: str, batch_key: int, start: int, limit: int) -> Page:
    stop = _stop(tx, batch_key)
    if start >= stop:
        return Page(b"", start, is_last=True)
    ((text, num_lines, last),) = tx.run(name, batch=batch_key, start=start, stop=stop, limit=limit)
    data = text.encode() + b"\n" if num_lines else b""
    return Page(data, last + 1 if num_lines else start, is_last=num_lines < limit)


def _closed_page(tx: Transaction, batch_key: int, start: int, limit: int, min_state: int) -> list[ClosedLine]:
    stop = _stop(tx, batch_key)
    ((rows,),) = tx.run("closed_page", batch=batch_key, start=start, stop=stop, limit=limit, min_state=min_state)
    return msgspec.json.decode(rows, type=list[ClosedLine])


def _tidy(tx: Transaction, batch_key: int, limit: int) -> bool:
    for delete, has_more in (("tidy_results", "has_results"), ("tidy_lines", "has_lines")):
        tx.run(delete, batch=batch_key, limit=limit)
        if tx.run(has_more, batch=batch_key):
            return False
    tx.run("mark_tidy", key=batch_key)
    return True
