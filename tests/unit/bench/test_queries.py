"""The hot queries do the same work in a large database as in a small one, and read no table in full."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import apsw
import pytest
from rich.console import Console

from unbroken.bench import queries, query_report
from unbroken.bench.queries import HOT, QueryCost, Work, compare_queries
from unbroken.bench.query_report import growths, print_queries, report_queries
from unbroken.store.sqlite.tables import QUERIES

pytestmark = [pytest.mark.anyio, pytest.mark.scenario("STRESS-003")]

SIZES = (10_000, 40_000)
GROWTH_MAX = 1.5
"""SQLite's steps are counted, not timed: a query that grows with the database has about four times as many."""
BEGUN_AND_ENDED = {"BEGIN", "BEGIN IMMEDIATE", "COMMIT", "ROLLBACK", 'pragma "data_version"'}


def silent(_: str) -> None:
    """Progress that nobody waits for."""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Where the databases are made, and gone afterwards."""
    yield tmp_path
    assert list(tmp_path.iterdir()) == []


async def test_no_hot_query_does_more_in_a_larger_database(folder: Path) -> None:
    costs = await compare_queries(folder, SIZES, rounds=1, calls=5, say=silent)
    found = growths(costs)
    assert [growth.query for growth in found] == list(HOT)
    assert {growth.query: growth.steps for growth in found if growth.steps > GROWTH_MAX} == {}
    assert [growth.query for growth in found if growth.scans] == []
    assert all(cost.steps > 0 and cost.microseconds > 0 for cost in costs), "inconclusive: nothing was asked of SQLite"
    statements = {statement for cost in costs for statement in cost.statements}
    named = set(QUERIES.values())  # the plan of each is held by tests/integration/store/test_plans.py
    assert [sql for sql in statements - named if sql.split(";")[0].strip() not in BEGUN_AND_ENDED] == []


def test_the_count_sees_a_query_that_grows_and_one_that_scans() -> None:
    steps = []
    for size in SIZES:
        work = Work()
        connection = apsw.Connection(":memory:")
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, x INTEGER)")
        connection.executemany("INSERT INTO t (x) VALUES (?)", [(number,) for number in range(size // 100)])
        connection.trace_v2(apsw.SQLITE_TRACE_PROFILE, work.took)
        connection.execute("SELECT id FROM t WHERE x = -1").fetchall()
        assert work.scanned > 0
        steps.append(work.steps)
        connection.close()
    assert steps[1] > GROWTH_MAX * steps[0]


def cost(query: str, messages: int, **facts: float) -> QueryCost:
    return replace(QueryCost(query, messages, 100.0, 200.0, 50.0, 0, frozenset()), **facts)  # type: ignore[arg-type]


@pytest.mark.parametrize(("scanned", "status"), [(0, 0), (3, 1)])
def test_the_report_tells_growth_and_fails_on_a_scan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], scanned: int, status: int
) -> None:
    async def measured(
        folder: Path, sizes: tuple[int, ...], *, rounds: int, say: Callable[[str], None]
    ) -> list[QueryCost]:
        assert (sizes, rounds) == (queries.SIZES_SMALL, 2)
        return [cost("find", 1_000), cost("find", 100_000, microseconds=250.0, steps=100.0, scanned=scanned)]

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(query_report, "compare_queries", measured)
    path = tmp_path / "queries.json"
    assert report_queries(rounds=2, small=True, json_file=path) == status
    said = capsys.readouterr().out
    for words in ("2.50", "2.00", "50 → 100", "100,000 messages"):
        assert words in said
    assert [entry["messages"] for entry in json.loads(path.read_text(encoding="utf-8"))["costs"]] == [1_000, 100_000]


def test_a_narrow_terminal_gets_the_table_too() -> None:
    console = Console(width=60, record=True)
    print_queries(growths([cost("find", 1_000), cost("find", 9_000)]), {"cores": "2"}, console)
    assert "cores 2" in console.export_text()
