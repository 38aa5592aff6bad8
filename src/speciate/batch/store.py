"""The store of the durable path: five small protocols, each with its promise. `sql_store` serves all of them.

All methods raise StoreUnavailable when the database cannot be reached or cannot write; nothing is half done then.
Times are Unix seconds on one clock. A `None` for `now_s` means the database's own clock, where it has one.
"""

from typing import Protocol

from speciate.batch.records import (
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
    LineResult,
    NewLine,
    Page,
    Reaped,
    Want,
)


class FileTable(Protocol):
    """Complete files only: a row is written after its bytes are on the disk."""

    async def add_file(self, record: FileRecord) -> None:
        """Writing the same id again replaces the row."""
        ...

    async def find_file(self, file_id: str) -> FileRecord | None: ...

    async def list_files(self, query: FileQuery) -> list[FileRecord]:
        """Raises NotFound where `after` names no file of the tenant."""
        ...

    async def delete_file(self, file_id: str) -> bool:
        """Raises InvalidRequest while a batch that is not over reads it."""
        ...

    async def used_bytes(self, tenant: str) -> int: ...

    async def expired_files(self, now_s: float) -> list[FileRecord]: ...


class BatchTable(Protocol):
    """Batches and who tends to them."""

    async def add_batch(
        self, batch_id: str, tenant: str, spec: BatchSpec, now_s: float, idempotency_key: str | None
    ) -> BatchRecord:
        """A new batch in `validating`; or the one that was made with this tenant's key before."""
        ...

    async def find_batch(self, batch_id: str) -> BatchRecord | None: ...

    async def list_batches(self, query: BatchQuery) -> list[BatchRecord]:
        """Newest first. Raises NotFound where its cursor names no batch of the tenant in that dialect."""
        ...

    async def change(self, change: BatchChange) -> bool:
        """False where the batch was in none of the sources, or another tends to it."""
        ...

    async def take(
        self, owner: str, statuses: tuple[BatchStatus, ...], now_s: float, lease_s: float
    ) -> BatchRecord | None:
        """A batch in one of these states that nobody tends to; the owner does until the lease ends."""
        ...

    async def tend(self, batch_key: int, owner: str, now_s: float, lease_s: float) -> bool:
        """Go on being its steward (0 s: no longer); False where another is by now."""
        ...


class LineQueue(Protocol):
    """Lines by leases with fencing tokens: a result is taken only under the fence that holds the line."""

    async def add_lines(self, batch_key: int, steward: str, lines: list[NewLine]) -> None:
        """Raises Conflict where another tends to the batch by now. Lines that are there already stay."""
        ...

    async def claim(self, owner: str, wants: tuple[Want, ...], now_s: float, lease_s: float) -> list[Claim]:
        """Lines of batches in progress, by rank; each claim's attempt is one more than the one before."""
        ...

    async def extend(self, owner: str, now_s: float, lease_s: float) -> None:
        """All leases of the owner."""
        ...

    async def finish(self, results: list[LineResult], now_s: float) -> list[bool]:
        """Which were taken. A batch whose last line this is becomes `finalizing`."""
        ...

    async def give_back(self, claims: list[Claim], *, counts_as_attempt: bool) -> None:
        """Wait again; claims that are no longer held are ignored."""
        ...

    async def announce(self) -> None:
        """Wake whoever listens: lines wait again."""
        ...

    async def reap(self, now_s: float, max_deaths: int) -> Reaped:
        """Lines whose lease ended: suspects now, or given up after `max_deaths` workers died with them."""
        ...


class LineReader(Protocol):
    """What came of a batch's lines, in input order."""

    async def jobs(self) -> list[JobFacts]:
        """Batches in progress, oldest first."""
        ...

    async def output_page(self, batch_key: int, start: int, limit: int, *, provenance: bool = False) -> Page:
        """Lines of the output (or provenance) file from index `start`, up to the first that is open."""
        ...

    async def closed_page(self, batch_key: int, start: int, limit: int, min_state: int) -> list[ClosedLine]:
        """Lines whose state is at least `min_state`, up to the first that is open."""
        ...

    async def close_lines(self, batch_key: int, state: int) -> int:
        """Every open line becomes cancelled or expired; how many."""
        ...

    async def num_leased(self, batch_key: int) -> int: ...

    async def tidy(self, batch_key: int, limit: int) -> bool:
        """Remove up to so many rows of a batch that is over; True when none is left."""
        ...


class Recovery(Protocol):
    """For whoever owns the store alone."""

    async def recover(self, now_s: float, max_deaths: int) -> Reaped:
        """All leases end and nobody tends to anything: whoever did is dead."""
        ...

    async def remove_batch(self, batch_key: int) -> None:
        """Forget a batch that is over and tidy."""
        ...


class BatchStore(FileTable, BatchTable, LineQueue, LineReader, Recovery, Protocol):
    """All of them."""
