"""Open input files: lines are read where they lie."""

import os
from typing import BinaryIO

from speciate.batch.files import FileShelf
from speciate.batch.records import Claim
from speciate.batch.validate import BatchLine, read_line


class InputFiles:
    """Opened when first read, closed when no longer used, all of them at the end."""

    def __init__(self, shelf: FileShelf) -> None:
        self._shelf = shelf
        self._files: dict[str, BinaryIO] = {}

    def read(self, file_id: str, claim: Claim) -> BatchLine:
        """Raises NotFound."""
        file = self._files.get(file_id)
        if file is None:
            file = self._files[file_id] = self._shelf.open(file_id)
        return read_line(os.pread(file.fileno(), claim.num_bytes, claim.start))

    def keep_only(self, used: set[str]) -> None:
        for file_id in [f for f in self._files if f not in used]:
            self._files.pop(file_id).close()

    def close(self) -> None:
        self.keep_only(set())
