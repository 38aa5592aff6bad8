"""A progress bar of a batch on the terminal's error stream: lines done, lines a second, time left."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn


class BatchProgress:
    """Use as a context; `show` as often as there is news."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[pace]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, status: str, total: int, completed: int, failed: int) -> None:
        done = completed + failed
        if self._task is None:
            self._task = self._progress.add_task(status, total=total or None, completed=done, pace="")
        speed = self._progress.tasks[0].speed
        pace = f"{speed:.3g} lines/s" if speed else ""
        what = f"{status}, {failed} failed" if failed else status
        self._progress.update(self._task, description=what, total=total or None, completed=done, pace=pace)
