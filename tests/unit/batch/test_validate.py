"""Reading an input file: ranks, memory, places, duplicates."""

import io
import json
import tracemalloc
from typing import Any

from speciate.batch.sql_store import RANK_WINDOW
from speciate.batch.validate import FileRules, InputFile, read_line

RULES = FileRules("/v1/chat/completions", 1_000_000, 100_000, lambda model: model == "m")


def _line(number: int, system: str = "") -> bytes:
    messages = [{"role": "system", "content": system}] if system else []
    body: dict[str, Any] = {"model": "m", "messages": [*messages, {"role": "user", "content": f"hi {number}"}]}
    line = {"custom_id": f"ü-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
    return json.dumps(line, ensure_ascii=False).encode() + b"\n"


def _read(data: bytes, rules: FileRules = RULES) -> tuple[InputFile, list[Any]]:
    inputs = InputFile(io.BytesIO(data), rules)
    return inputs, [line for chunk in inputs.chunks() for line in chunk]


def test_places_lead_back_to_the_lines() -> None:
    data = b"".join(_line(i) for i in range(5000)).replace(b"\n", b"\r\n")
    inputs, lines = _read(data)
    assert not inputs.errors
    assert [line.index for line in lines] == list(range(5000))
    for line in lines[::97]:
        assert read_line(data[line.start : line.start + line.num_bytes]).custom_id == f"ü-{line.index}"


def test_equal_beginnings_run_together_within_a_window() -> None:
    num_lines = RANK_WINDOW + 100
    _, lines = _read(b"".join(_line(i, "AB"[i % 2]) for i in range(num_lines)))
    ranked = sorted(lines, key=lambda line: line.rank)
    assert sorted(line.rank for line in lines) == list(range(num_lines))
    first = [line.index for line in ranked[:RANK_WINDOW]]
    assert first == [*range(0, RANK_WINDOW, 2), *range(1, RANK_WINDOW, 2)]
    assert all(abs(line.rank - line.index) < RANK_WINDOW for line in lines)


def test_one_beginning_keeps_input_order() -> None:
    _, lines = _read(b"".join(_line(i, "same") for i in range(3000)))
    assert all(line.rank == line.index for line in lines)


def test_duplicates_name_both_lines_and_each_once() -> None:
    data = b"".join([_line(0), _line(1), _line(0), _line(2), _line(0), _line(1)])
    inputs, _ = _read(data)
    found = sorted((error.line, error.message) for error in inputs.errors)
    assert [line for line, _ in found] == [3, 5, 6]
    assert "line 1." in found[0][1]
    assert "line 2." in found[2][1]


def test_errors_are_bounded_and_counted() -> None:
    inputs, lines = _read(b"nope\n" * 500)
    assert len(inputs.errors) == 100
    assert inputs.num_errors >= 500
    assert lines == []


def test_memory_does_not_grow_with_what_lines_say() -> None:
    data = b"".join(_line(i, "x" * 1000) for i in range(8000))
    source = io.BytesIO(data)
    tracemalloc.start()
    inputs = InputFile(source, RULES)
    for _ in inputs.chunks():
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert inputs.num_lines == 8000
    assert peak < len(data) / 3
