"""What the store needs of a database: named statements in transactions. SQLite and Postgres serve.

Writes are group-committed: whatever asks while one commit runs goes into the next, all of it in one transaction. One
commit a line would be thirty times slower on a disk that takes ten milliseconds to sync.
"""

import re
from collections.abc import Callable
from importlib.resources import files
from typing import Any, Protocol, TypeVar

T = TypeVar("T")
Row = tuple[Any, ...]

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


class Transaction(Protocol):
    """Valid inside the function it is given to."""

    def run(self, name: str, **values: Any) -> list[Row]:
        """Execute a named statement. Raises StoreUnavailable."""
        ...


class Database(Protocol):
    """Owns its connections and threads; `close` once. Raises StoreUnavailable, and what the work itself raises."""

    @property
    def now_is_its_own(self) -> bool:
        """Whether the database's clock counts, because several machines share it."""
        ...

    async def write(self, work: Callable[[Transaction], T]) -> T:
        """Durable when it returns. The work may run again if nothing of the first time was kept."""
        ...

    async def read(self, work: Callable[[Transaction], T]) -> T: ...

    def listen(self, on_change: Callable[[], None]) -> None:
        """Call back, from any thread, when another process has made work."""
        ...

    async def close(self) -> None: ...


def load_statements(*names: str) -> dict[str, str]:
    """Statements by name from files of the package; a later file's wins."""
    found: dict[str, str] = {}
    for name in names:
        text = (files("speciate.batch") / "sql" / name).read_text(encoding="utf-8")
        parts = _NAME.split(text)
        found.update({key: body.strip().rstrip(";") for key, body in zip(parts[1::2], parts[2::2], strict=True)})
    return found


def load_migrations(dialect: str) -> list[tuple[int, str]]:
    """(version, script) in order, from `sql/migrations/NNNN_DIALECT.sql`."""
    folder = files("speciate.batch") / "sql" / "migrations"
    scripts = sorted(f.name for f in folder.iterdir() if f.name.endswith(f"_{dialect}.sql"))
    return [(int(name[:4]), (folder / name).read_text(encoding="utf-8")) for name in scripts]
