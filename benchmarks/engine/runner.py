"""Runs contenders in processes of their own and asks them in turn, so that noise meets all of them alike.

While one computes the others sleep; a round asks every contender the same question in an order that rotates. An answer
during which other processes used the processor is thrown away and asked for again (Linux; elsewhere all are kept).
"""

import multiprocessing
import os
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
MOST_FOREIGN = 0.05
"""The share of one core that other processes may use during an answer that counts."""
MOST_TRIES = 60


class Question(Struct, frozen=True):
    """`prefill` of so many tokens, or `decode` of so many sequences."""

    kind: str
    size: int
    num_steps: int = 1

    @property
    def name(self) -> str:
        return f"{self.kind} {self.size}"


class Answer(Struct, frozen=True):
    """Tokens a second: of the prompt, or of each decoding step."""

    speeds: list[float]
    foreign: float
    """Cores that other processes used meanwhile."""


class Guest:
    """A contender behind a pipe."""

    def __init__(self, name: str, path: Path, threads: int, vocab_size: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.name = name
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=serve, args=(other, name, path, threads, vocab_size), daemon=True)
        self.process.start()
        self.settings: Settings = self._answer()

    def ask(self, question: Question) -> Answer:
        """Raises RuntimeError with the guest's own error."""
        self.pipe.send(question)
        seconds, foreign = self._answer()
        return Answer([question.size / value for value in seconds], foreign)

    def ask_undisturbed(self, question: Question) -> tuple[Answer, int]:
        """The first answer that nobody disturbed, or the least disturbed of many; and how many were thrown away."""
        answers: list[Answer] = []
        while not answers or (answers[-1].foreign > MOST_FOREIGN and len(answers) < MOST_TRIES):
            time.sleep(REST_S)
            answers.append(self.ask(question))
        return min(answers, key=lambda answer: answer.foreign), len(answers) - 1

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
            before = _busy_s(), time.process_time(), time.perf_counter()
            if question.kind == "prefill":
                seconds = [contender.prefill_s(question.size)]
            else:
                seconds = contender.decode_s(question.size, question.num_steps)
            pipe.send(("seconds", (seconds, _foreign(*before))))
    except (EOFError, KeyboardInterrupt):
        return
    except Exception:  # noqa: BLE001 (the process boundary: whatever a peer raises becomes a line of the report)
        pipe.send(("error", traceback.format_exc(limit=1).strip().splitlines()[-1]))


def _busy_s() -> float:
    """Seconds that all cores have worked since the machine started; 0 where the system does not say."""
    path = Path("/proc/stat")
    if not path.exists():
        return 0.0
    ticks = [int(value) for value in path.read_text(encoding="ascii").split("\n", 1)[0].split()[1:]]
    return (sum(ticks[:8]) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


def _foreign(busy_s: float, own_s: float, start_s: float) -> float:
    """Cores that others used since then; ticks of 10 ms make short spans coarse."""
    others_s = (_busy_s() - busy_s) - (time.process_time() - own_s)
    return max(0.0, others_s - 0.02) / (time.perf_counter() - start_s)


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
) -> tuple[dict[str, dict[str, list[Answer]]], int]:
    """Answers by question and contender, one a round, and how many more were thrown away. So is the first answer to a
    question: kernels are made and memory is touched then."""
    answers: dict[str, dict[str, list[Answer]]] = {}
    num_discarded = 0
    for question in questions:
        by_name: dict[str, list[Answer]] = {guest.name: [] for guest in found}
        for guest in found:
            guest.ask(question)
        for turn in range(rounds):
            shift = turn % len(found)
            for guest in [*found[shift:], *found[:shift]]:
                answer, discarded = guest.ask_undisturbed(question)
                by_name[guest.name].append(answer)
                num_discarded += discarded
        answers[question.name] = by_name
        tell(question.name)
    return answers, num_discarded
