"""Postgres behind the store, for many workers on many machines: rows are claimed with SKIP LOCKED, work is announced
with NOTIFY, and leases are measured on the database's own clock."""

import asyncio
import contextlib
import logging
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from speciate.batch.database import Row, Transaction, load_migrations, load_statements
from speciate.batch.group_commit import GroupCommitter, Pending
from speciate.core.errors import ConfigError, SpeciateError, StoreUnavailable

try:
    import psycopg
except ImportError as error:  # the optional extra
    raise ConfigError("Batches on Postgres need psycopg: pip install 'speciate[postgres]'.") from error

log = logging.getLogger(__name__)

T = TypeVar("T")

CHANNEL = "speciate_batch"
MIGRATION_LOCK = 7_217_410_001
"""Advisory lock: any number, as long as nobody else uses it."""
CONNECT_TIMEOUT_S = 5
STATEMENT_TIMEOUT_MS = 120_000
"""Closing a million lines is one statement."""
RECONNECT_S = 1.0
_PARAMETER = re.compile(r"(?<!:):([a-z_]+)")


class _PostgresTransaction:
    def __init__(self, connection: "psycopg.Connection[Row]", statements: dict[str, str]) -> None:
        self._connection = connection
        self._statements = statements

    def run(self, name: str, **values: Any) -> list[Row]:
        try:
            cursor = self._connection.execute(self._statements[name].encode(), values)
            return cursor.fetchall() if cursor.description is not None else []
        except psycopg.Error as error:
            raise _unavailable(error) from error


class PostgresDatabase:
    """Implements `Database`. Connections are opened when needed and again when lost."""

    def __init__(self, url: str, *, uses_its_clock: bool = True) -> None:
        self.now_is_its_own = uses_its_clock
        self._url = url
        shared, own = load_statements("queries.sql"), load_statements("queries_postgres.sql")
        self._statements = {name: _PARAMETER.sub(r"%(\1)s", text) for name, text in (shared | own).items()}
        self._writer: psycopg.Connection[Row] | None = None
        self._reader: psycopg.Connection[Row] | None = None
        _migrate(url)
        self._committer = GroupCommitter(self._commit, "batch-store")
        self._readers = ThreadPoolExecutor(1, "batch-store-reader")
        self._is_closing = threading.Event()
        self._listener: threading.Thread | None = None

    async def write(self, work: Callable[[Transaction], T]) -> T:
        return await self._committer.submit(work)

    async def read(self, work: Callable[[Transaction], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, work)

    def listen(self, on_change: Callable[[], None]) -> None:
        self._listener = threading.Thread(target=self._listen, args=(on_change,), name="batch-store-ear", daemon=True)
        self._listener.start()

    async def close(self) -> None:
        self._is_closing.set()
        await asyncio.to_thread(self._committer.close)
        await asyncio.to_thread(self._readers.shutdown)
        if self._listener is not None:
            await asyncio.to_thread(self._listener.join)
        for connection in (self._writer, self._reader):
            if connection is not None:
                connection.close()

    def _commit(self, group: list[Pending]) -> None:
        connection = self._writer = _usable(self._writer, self._url)
        try:
            with connection.transaction():
                for pending in group:
                    self._attempt(connection, pending)
        except psycopg.Error as error:
            _abandon(connection)
            raise _unavailable(error) from error
        except StoreUnavailable:
            _abandon(connection)
            raise

    def _attempt(self, connection: "psycopg.Connection[Row]", pending: Pending) -> None:
        try:
            with connection.transaction():
                pending.value = pending.work(_PostgresTransaction(connection, self._statements))
        except StoreUnavailable:
            raise
        except SpeciateError as error:
            pending.error = error

    def _read(self, work: Callable[[Transaction], T]) -> T:
        connection = self._reader = _usable(self._reader, self._url)
        try:
            with connection.transaction():
                return work(_PostgresTransaction(connection, self._statements))
        except psycopg.Error as error:
            _abandon(connection)
            raise _unavailable(error) from error
        except StoreUnavailable:
            _abandon(connection)
            raise

    def _listen(self, on_change: Callable[[], None]) -> None:
        while not self._is_closing.is_set():
            try:
                with _connect(self._url) as connection:
                    connection.execute(f"LISTEN {CHANNEL}")
                    while not self._is_closing.is_set():
                        for _ in connection.notifies(timeout=0.5, stop_after=1):
                            on_change()
            except (psycopg.Error, StoreUnavailable) as error:
                log.warning("listening to the batch store stopped: %s; trying again", error)
                self._is_closing.wait(RECONNECT_S)


def _connect(url: str) -> "psycopg.Connection[Row]":
    try:
        return psycopg.connect(
            url,
            autocommit=True,
            connect_timeout=CONNECT_TIMEOUT_S,
            options=f"-c statement_timeout={STATEMENT_TIMEOUT_MS}",
            keepalives_idle=5,
            keepalives_interval=2,
            keepalives_count=3,
        )
    except psycopg.Error as error:
        raise _unavailable(error) from error


def _usable(connection: "psycopg.Connection[Row] | None", url: str) -> "psycopg.Connection[Row]":
    return _connect(url) if connection is None or connection.closed else connection


def _abandon(connection: "psycopg.Connection[Row]") -> None:
    with contextlib.suppress(psycopg.Error):
        connection.close()


def _migrate(url: str) -> None:
    """Every worker tries at start; an advisory lock lets one at a time through."""
    with _connect(url) as connection, connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (MIGRATION_LOCK,))
        connection.execute("CREATE TABLE IF NOT EXISTS speciate_schema (version INTEGER NOT NULL)")
        row = connection.execute("SELECT coalesce(max(version), 0) FROM speciate_schema").fetchone()
        version, scripts = (row[0] if row else 0), load_migrations("postgres")
        if version > scripts[-1][0]:
            raise ConfigError(
                f"The batch store has version {version}, this program knows {scripts[-1][0]}. Upgrade it."
            )
        for number, script in scripts:
            if number > version:
                connection.execute(script.encode())
                connection.execute("INSERT INTO speciate_schema VALUES (%s)", (number,))


def _unavailable(error: Exception) -> StoreUnavailable:
    return StoreUnavailable(f"The batch store cannot be used: {str(error).strip()}. It is tried again.")
