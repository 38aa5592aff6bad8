"""Runs contenders in processes of their own and asks them in turn, so that noise meets all of them alike.

While one computes the others sleep; a round asks every contender the same question in an order that rotates.
"""

import multiprocessing
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from msgspec import Struct

from benchmarks.engine.contenders import CONTENDERS, Settings

REST_S = 0.2
"""Between questions: spinning workers of the last contender go to sleep."""


class Question(Struct, frozen=True):
    """`prefill` of so many tokens, or `decode` of so many sequences."""

    kind: str
    size: int
    num_steps: int = 1

    @property
    def name(self) -> str:
        return f"{self.kind} {self.size}"


class Guest:
    """A contender behind a pipe."""

    def __init__(self, name: str, path: Path, threads: int, vocab_size: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.name = name
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=serve, args=(other, name, path, threads, vocab_size), daemon=True)
        self.process.start()
        self.settings: Settings = self._answer()

    def ask(self, question: Question) -> list[float]:
        """Tokens a second: of the prompt, or of each decoding step. Raises RuntimeError with the guest's own error."""
        self.pipe.send(question)
        seconds: list[float] = self._answer()
        return [question.size / value for value in seconds]

    def close(self) -> None:
        self.pipe.close()
        self.process.join(10)
        self.process.kill()

    def _answer(self) -> Any:
        try:
            kind, value = self.pipe.recv()
        except EOFError as error:
            raise RuntimeError(f"{self.name} ended with exit code {self.process.exitcode}") from error
        if kind == "error":
            raise RuntimeError(f"{self.name}: {value}")
        return value


def serve(pipe: Connection, name: str, path: Path, threads: int, vocab_size: int) -> None:
    """The guest's process: make the contender, answer until the pipe closes."""
    try:
        contender = CONTENDERS[name][1](path, threads, vocab_size)
        pipe.send(("ready", contender.settings))
        while True:
            question: Question = pipe.recv()
            if question.kind == "prefill":
                pipe.send(("seconds", [contender.prefill_s(question.size)]))
            else:
                pipe.send(("seconds", contender.decode_s(question.size, question.num_steps)))
    except (EOFError, KeyboardInterrupt):
        return
    except Exception:  # noqa: BLE001 (the process boundary: whatever a peer raises becomes a line of the report)
        pipe.send(("error", traceback.format_exc(limit=1).strip().splitlines()[-1]))


@contextmanager
def guests(names: Sequence[str], paths: dict[str, Path], threads: int, vocab_size: int) -> Iterator[list[Guest]]:
    """Contenders that could be started; the others are named with the reason."""
    found: list[Guest] = []
    try:
        for name in names:
            try:
                found.append(Guest(name, paths[CONTENDERS[name][0]], threads, vocab_size))
            except RuntimeError as error:
                print(f"left out: {error}", flush=True)
        yield found
    finally:
        for guest in found:
            guest.close()


def interleave(
    found: Sequence[Guest], questions: Sequence[Question], rounds: int, tell: Callable[[str], None]
) -> dict[str, dict[str, list[list[float]]]]:
    """Figures by question and contender, one list a round. The first answer to a question is thrown away: kernels are
    made and memory is touched then."""
    figures: dict[str, dict[str, list[list[float]]]] = {}
    for question in questions:
        by_name: dict[str, list[list[float]]] = {guest.name: [] for guest in found}
        for turn in range(rounds + 1):
            shift = turn % len(found)
            for guest in [*found[shift:], *found[:shift]]:
                time.sleep(REST_S)
                answer = guest.ask(question)
                if turn:
                    by_name[guest.name].append(answer)
        figures[question.name] = by_name
        tell(question.name)
    return figures
