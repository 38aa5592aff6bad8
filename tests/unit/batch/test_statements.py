"""Statements that run for every claim must find their rows by index, however many lines a batch has."""

import sqlite3

import pytest

from speciate.batch.database import load_migrations, load_statements


@pytest.fixture(scope="module")
def connection() -> sqlite3.Connection:
    made = sqlite3.connect(":memory:")
    for _, script in load_migrations("sqlite"):
        made.executescript(script)
    return made


def _plan(connection: sqlite3.Connection, name: str) -> str:
    statement = load_statements("queries.sql", "queries_sqlite.sql")[name]
    names = ("batch", "key", "limit", "start", "stop", "now_s", "max_deaths", "fence", "indexes", "keys", "rows",
             "min_state", "owner", "until_s", "refund", "state")  # fmt: skip
    rows = connection.execute(f"EXPLAIN QUERY PLAN {statement}", dict.fromkeys(names, 1)).fetchall()
    return "\n".join(row[3] for row in rows)


@pytest.mark.parametrize(
    ("name", "indexes"),
    [
        ("pick_pending", ["item_pending (batch=?"]),
        ("pick_suspects", ["item_suspect (batch=? AND deaths=?", "item_suspect (batch=?"]),
        ("first_open", ["item_suspect (batch=?", "item_pending (batch=?", "item_leased (batch=?"]),
        ("num_leased", ["item_leased (batch=?"]),
        ("dead_lines", ["item_leased (batch=?"]),
        ("reap", ["item_leased (batch=?"]),
        ("jobs", ["item_suspect (batch=?"]),
    ],
)
def test_open_lines_are_found_by_their_index(connection: sqlite3.Connection, name: str, indexes: list[str]) -> None:
    plan = _plan(connection, name)
    lines = [line for line in plan.splitlines() if " item" in line]
    assert len(lines) == len(indexes), plan
    assert all(index in line for line, index in zip(lines, indexes, strict=True)), plan
    assert "USE TEMP B-TREE FOR ORDER BY" not in plan


@pytest.mark.parametrize("name", ["lease_lines", "held", "end_lines", "give_back", "closed_page"])
def test_lines_are_found_by_their_place(connection: sqlite3.Connection, name: str) -> None:
    lines = [line for line in _plan(connection, name).splitlines() if " item" in line]
    assert lines
    assert all("PRIMARY KEY (batch=? AND idx" in line for line in lines), lines


@pytest.mark.parametrize("name", ["output_page", "provenance_page", "tidy_results", "has_results"])
def test_results_are_found_by_their_key(connection: sqlite3.Connection, name: str) -> None:
    lines = [line for line in _plan(connection, name).splitlines() if " result" in line]
    assert lines
    assert all("rowid" in line for line in lines), lines
