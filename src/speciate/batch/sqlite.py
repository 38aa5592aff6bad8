"""SQLite behind the store: WAL, full sync, one writer thread that commits in groups, one reader thread.

One process owns the folder, by a lock that the kernel drops when the process dies: so whoever opens it knows that no
older worker lives.
"""

import asyncio
import fcntl
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

from speciate.batch.database import Row, Transaction, load_migrations, load_statements
from speciate.batch.group_commit import GroupCommitter, Pending
from speciate.core.errors import ConfigError, SpeciateError, StoreUnavailable

T = TypeVar("T")

MIN_VERSION = (3, 38, 0)
CHECKPOINT_PAGES = 8000
"""WAL pages (32 MiB) between checkpoints: each costs two more syncs."""
CACHE_KIB = 16_384


class _SqliteTransaction:
    def __init__(self, connection: sqlite3.Connection, statements: dict[str, str]) -> None:
        self._connection = connection
        self._statements = statements

    def run(self, name: str, **values: Any) -> list[Row]:
        try:
            return self._connection.execute(self._statements[name], values).fetchall()
        except sqlite3.Error as error:
            raise _unavailable(error) from error


class SqliteDatabase:
    """Implements `Database` in one file. Raises ConfigError where another process has it open."""

    now_is_its_own = False

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = _lock(path.with_suffix(".lock"))
        self._statements = load_statements("queries.sql", "queries_sqlite.sql")
        try:
            self._writer = self._open()
            _migrate(self._writer)
        except sqlite3.Error as error:
            self._lock.close()
            raise ConfigError(f"{path} cannot be used as a batch store: {error}.") from error
        except ConfigError:
            self._writer.close()
            self._lock.close()
            raise
        self._transaction = _SqliteTransaction(self._writer, self._statements)
        self._committer = GroupCommitter(self._commit, "batch-store")
        self._readers = ThreadPoolExecutor(1, "batch-store-reader")
        self._local = threading.local()
        self._opened: SimpleQueue[sqlite3.Connection] = SimpleQueue()

    async def write(self, work: Callable[[Transaction], T]) -> T:
        return await self._committer.submit(work)

    async def read(self, work: Callable[[Transaction], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, work)

    def listen(self, on_change: Callable[[], None]) -> None:
        """Nobody else can make work here."""

    async def close(self) -> None:
        await asyncio.to_thread(self._committer.close)
        await asyncio.to_thread(self._readers.shutdown)
        while not self._opened.empty():
            self._opened.get().close()
        self._writer.close()
        self._lock.close()

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, cached_statements=256)
        for pragma in (
            "journal_mode = WAL",
            "synchronous = FULL",
            "busy_timeout = 10000",
            f"wal_autocheckpoint = {CHECKPOINT_PAGES}",
            f"cache_size = -{CACHE_KIB}",
        ):
            connection.execute(f"PRAGMA {pragma}")
        return connection

    def _commit(self, group: list[Pending]) -> None:
        """One transaction for all; one that raises a SpeciateError of its own is undone alone."""
        self._execute("BEGIN IMMEDIATE")
        try:
            for pending in group:
                self._attempt(pending)
            self._execute("COMMIT")
        except BaseException:
            if self._writer.in_transaction:
                self._writer.rollback()
            raise

    def _attempt(self, pending: Pending) -> None:
        self._execute("SAVEPOINT one")
        try:
            pending.value = pending.work(self._transaction)
        except StoreUnavailable:
            raise
        except SpeciateError as error:
            pending.error = error
            self._execute("ROLLBACK TO one")
        self._execute("RELEASE one")

    def _execute(self, statement: str) -> None:
        try:
            self._writer.execute(statement)
        except sqlite3.Error as error:
            raise _unavailable(error) from error

    def _read(self, work: Callable[[Transaction], T]) -> T:
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self._open()
            self._opened.put(connection)
        return work(_SqliteTransaction(connection, self._statements))


def _lock(path: Path) -> Any:
    """An open file whose lock lasts as long as the process."""
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise ConfigError(
            f"{path.parent} is in use by another process. Give each server a folder of its own, or use Postgres."
        ) from error
    return file


def _migrate(connection: sqlite3.Connection) -> None:
    if sqlite3.sqlite_version_info < MIN_VERSION:
        raise ConfigError(f"SQLite {sqlite3.sqlite_version} is too old for batches; 3.38 or newer is needed.")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    scripts = load_migrations("sqlite")
    if version > scripts[-1][0]:
        raise ConfigError(f"The batch store has version {version}, this program knows {scripts[-1][0]}. Upgrade it.")
    for number, script in scripts:
        if number > version:
            connection.executescript(f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {number};\nCOMMIT;")


def _unavailable(error: sqlite3.Error) -> StoreUnavailable:
    return StoreUnavailable(f"The batch store cannot be used: {error}. Is its disk full or gone? It is tried again.")
