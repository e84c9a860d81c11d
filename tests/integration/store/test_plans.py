"""Every statement of the SQLite store finds its rows through an index."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from tests.support.builders import ALICE, build_world, create
from unbroken.store.base import StreamFilter
from unbroken.store.sqlite import SQLiteStore
from unbroken.store.sqlite.tables import QUERIES

pytestmark = pytest.mark.anyio

SORTS = {"streams_by_prefix"}
"""Listing by prefix finds its rows by name and shows them newest first, so it has to sort what it found."""
BOUND = ("CONSTANT ROW", "VIRTUAL TABLE INDEX 1:")
"""How the steps end that go through what was given with the statement: a row of values, or a JSON array of them."""
SMALL = {"migrations_exist", "migrations_applied", "garbage_next", "erasure_next", "stream_key_table", "stream_key_any"}
"""Read the whole of a table that is small by nature, or its first row."""


def plan(connection: apsw.Connection, sql: str) -> list[str]:
    steps: list[str] = []
    for number in range(sql.count("?") + 1):
        try:
            rows = connection.execute(f"EXPLAIN QUERY PLAN {sql}", (None,) * number)
        except apsw.BindingsError:
            continue
        steps = [str(row[3]) for row in rows]
        break
    return steps


@pytest.mark.scenario("TC-UT-002a")
@pytest.mark.parametrize("name", [n for n in QUERIES if not n.startswith("migrations_create")])
async def test_every_query_uses_an_index(sqlite: SQLiteStore, path: Path, name: str) -> None:
    await build_world(sqlite, messages=200, streams=2)
    connection = apsw.Connection(str(path))
    try:
        steps = plan(connection, QUERIES[name])
    finally:
        connection.close()
    inserts = QUERIES[name].startswith("INSERT")
    assert steps or inserts, "EXPLAIN says nothing about this statement"
    if name not in SMALL:
        assert [step for step in steps if step.startswith("SCAN") and not step.endswith(BOUND)] == []
    if name not in SORTS:
        assert [step for step in steps if "TEMP B-TREE" in step] == []


async def test_listing_by_prefix_ends_where_the_prefix_does(sqlite: SQLiteStore, path: Path) -> None:
    connection = apsw.Connection(str(path))
    try:
        assert any("name>? AND name<?" in step for step in plan(connection, QUERIES["streams_by_prefix"]))
    finally:
        connection.close()
    top = "\U0010ffff"
    await create(sqlite, f"{top}/a")
    await create(sqlite, "b")
    found = await sqlite.list_streams(ALICE, StreamFilter(prefix=top), limit=10, after=None)
    assert [info.name for info in found.items] == [f"{top}/a"], "a prefix that nothing comes behind"


async def test_the_check_sees_a_missing_index(sqlite: SQLiteStore, path: Path) -> None:
    connection = apsw.Connection(str(path))
    try:
        assert plan(connection, "SELECT id FROM stream WHERE created_ms < ?1") == ["SCAN stream"]
        sorted_by = plan(connection, "SELECT id FROM stream WHERE tenant = ?1 AND owner = ?2 ORDER BY created_ms")
        assert any("TEMP B-TREE" in step for step in sorted_by)
    finally:
        connection.close()
