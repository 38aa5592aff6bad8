"""The shelf: files on disk that are whole or not there. Knows no table and no tenant.

tmp/ID.part  --fsync-->  rename  -->  files/ID  --fsync of the folder
"""

import contextlib
import errno
import os
import re
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Literal, Self, TypeVar

from speciate.core.errors import NotFound, StorageFull, StoreUnavailable

T = TypeVar("T")

FILE_ID = re.compile(r"file-[A-Za-z0-9]{24}")
_DERIVED = re.compile(r"file-(ou|er|pr)([0-9a-f]{22})")
STALE_PART_S = 86_400.0
"""A part that nobody wrote to for a day belongs to a process that died."""


class Part:
    """A file in the making. Leave the block without `keep` and it is gone. Methods block: call them from a thread."""

    def __init__(self, path: Path, target: Path) -> None:
        self._path = path
        self._target = target
        self._file: BinaryIO | None = None
        self.num_bytes = 0

    def __enter__(self) -> Self:
        self._file = _on_disk(lambda: self._path.open("xb"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.drop()

    def write(self, data: bytes) -> None:
        """Raises StorageFull."""
        file = self._file
        if file is not None:
            _on_disk(lambda: file.write(data))
            self.num_bytes += len(data)

    def keep(self) -> None:
        """Make it durable and visible, replacing what had its name. Raises StorageFull."""
        file = self._file
        if file is None:
            return
        _on_disk(lambda: _sync(file))
        file.close()
        self._file = None
        _on_disk(lambda: self._path.rename(self._target))
        _sync_folder(self._target.parent)

    def drop(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None
            self._path.unlink(missing_ok=True)


class FileShelf:
    """All files of one data folder; several processes may share it."""

    def __init__(self, folder: Path) -> None:
        self._files = folder / "files"
        self._parts = folder / "tmp"
        for path in (self._files, self._parts):
            path.mkdir(parents=True, exist_ok=True)

    def begin(self, file_id: str) -> Part:
        return Part(self._parts / f"{file_id}.{secrets.token_hex(4)}.part", self.path(file_id))

    def path(self, file_id: str) -> Path:
        """Raises NotFound for what is no file id, so that no name leads out of the folder."""
        if not FILE_ID.fullmatch(file_id):
            raise NotFound(f"There is no file {file_id!r}.")
        return self._files / file_id

    def open(self, file_id: str) -> BinaryIO:
        """For reading. Raises NotFound."""
        try:
            return self.path(file_id).open("rb")
        except FileNotFoundError:
            raise NotFound(f"There is no file {file_id!r}.") from None

    def remove(self, file_id: str) -> None:
        self.path(file_id).unlink(missing_ok=True)

    def stored_ids(self) -> list[str]:
        return [path.name for path in self._files.iterdir() if FILE_ID.fullmatch(path.name)]

    def sweep(self, *, owns_folder: bool) -> None:
        """Remove parts of processes that died: all where the folder is ours alone, else those untouched for a day."""
        oldest_s = time.time() if owns_folder else time.time() - STALE_PART_S
        for part in self._parts.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if part.stat().st_mtime <= oldest_s:
                    part.unlink()


def new_file_id() -> str:
    return "file-" + secrets.token_hex(12)


def new_batch_id() -> str:
    return "batch_" + secrets.token_hex(11)


FileKind = Literal["ou", "er", "pr"]
"""What a batch publishes: output, errors, provenance. No upload's id begins so: these are not hexadecimal."""


def derived_file_id(batch_id: str, kind: FileKind) -> str:
    """Known before the file is there, and the same whenever it is published: doing it twice writes the same file."""
    return f"file-{kind}{batch_id.removeprefix('batch_').removeprefix('msgbatch_')}"


def batch_of_file(file_id: str) -> tuple[str, FileKind] | None:
    """The hexadecimal part of the batch's id and the kind, for a file that a batch publishes."""
    found = _DERIVED.fullmatch(file_id)
    return (found[2], found[1]) if found else None  # type: ignore[return-value]


def safe_filename(name: str) -> str:
    """The last part of a path, printable, at most 255 characters: shown to people, never used as a path."""
    last = re.split(r"[/\\]", name)[-1]
    printable = "".join(c for c in last if c.isprintable()).strip()
    return printable[:255] if printable not in ("", ".", "..") else "upload"


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _on_disk(do: Callable[[], T]) -> T:
    """Errors of the disk in our words."""
    try:
        return do()
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StorageFull(f"The disk of the data folder is full ({error.strerror}); free some room.") from error
        raise StoreUnavailable(f"The data folder cannot be written: {error}.") from error
