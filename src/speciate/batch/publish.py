"""From rows to files: output and error lines in input order, and where each ran. Doing it twice is harmless.

While a batch runs its files can be read already: the complete prefix, up to the first line that is still open.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import BinaryIO

from speciate.batch.files import FileKind, FileShelf, derived_file_id
from speciate.batch.lines import unanswered_line
from speciate.batch.records import BatchRecord, ClosedLine, FileRecord, LineState
from speciate.batch.store import BatchStore
from speciate.batch.validate import read_line

PAGE_LINES = 256
"""Lines of a page that stays in memory while it is written."""
PURPOSES: dict[FileKind, str] = {"ou": "batch_output", "er": "batch_output", "pr": "batch_provenance"}
_SUFFIXES: dict[FileKind, str] = {"ou": "output", "er": "error", "pr": "provenance"}


def published_kinds(batch: BatchRecord) -> list[FileKind]:
    """Files that a batch has, or will have, as far as its counts tell: an id that was shown never goes away."""
    counts, kinds = batch.counts, list[FileKind]()
    if batch.spec.dialect == "anthropic":
        kinds += ["ou"] if counts.total else []
    else:
        kinds += ["ou"] if counts.completed else []
        kinds += ["er"] if counts.unsuccessful else []
    return kinds + (["pr"] if counts.completed + counts.failed else [])


class Publisher:
    """Writes the files of batches whose lines are all over, and reads those of batches that run."""

    def __init__(self, store: BatchStore, shelf: FileShelf) -> None:
        self._store = store
        self._shelf = shelf

    async def publish(self, batch: BatchRecord, now_s: float) -> None:
        """Every file, whole or not at all. Raises StorageFull, StoreUnavailable; nothing is visible then."""
        for kind in published_kinds(batch):
            await self._publish_file(batch, kind, int(now_s))

    async def pages(self, batch: BatchRecord, kind: FileKind) -> AsyncGenerator[bytes, None]:
        """What is there now, in input order."""
        if kind == "er" or (batch.spec.dialect == "anthropic" and kind == "ou"):
            async with aclosing(self._closed_pages(batch, kind)) as pages:
                async for page in pages:
                    yield page
            return
        start, is_last = 0, False
        while not is_last:
            part = await self._store.output_page(batch.key, start, PAGE_LINES, provenance=kind == "pr")
            start, is_last = part.next_index, part.is_last
            if part.data:
                yield part.data

    async def _closed_pages(self, batch: BatchRecord, kind: FileKind) -> AsyncGenerator[bytes, None]:
        min_state = LineState.FAILED if kind == "er" else LineState.COMPLETED
        start = 0
        with self._shelf.open(batch.spec.input_file_id) as inputs:
            while lines := await self._store.closed_page(batch.key, start, PAGE_LINES, min_state):
                start = lines[-1].index + 1
                yield await asyncio.to_thread(_render, batch, lines, inputs)

    async def _publish_file(self, batch: BatchRecord, kind: FileKind, now_s: int) -> None:
        file_id = derived_file_id(batch.id, kind)
        with self._shelf.begin(file_id) as part:
            async with aclosing(self.pages(batch, kind)) as pages:
                async for page in pages:
                    await asyncio.to_thread(part.write, page)
            await asyncio.to_thread(part.keep)
        expires_after_s = batch.spec.output_expires_after_s
        await self._store.add_file(
            FileRecord(
                id=file_id,
                tenant=batch.tenant,
                purpose=PURPOSES[kind],
                filename=f"{batch.id}_{_SUFFIXES[kind]}.jsonl",
                num_bytes=part.num_bytes,
                created_s=now_s,
                expires_s=None if expires_after_s is None else now_s + expires_after_s,
            )
        )


def _render(batch: BatchRecord, lines: list[ClosedLine], inputs: BinaryIO) -> bytes:
    return b"".join(_text(batch, line, inputs).encode() + b"\n" for line in lines)


def _text(batch: BatchRecord, line: ClosedLine, inputs: BinaryIO) -> str:
    if line.line is not None:
        return line.line
    inputs.seek(line.start)
    return unanswered_line(batch, line, read_line(inputs.read(line.num_bytes)).custom_id)
