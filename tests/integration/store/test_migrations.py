"""Migrating a real database file."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path

import apsw
import pytest

from tests.integration.store.opening import keyed
from tests.support.builders import ALICE, create, numbered, read_all
from unbroken.errors import StoreUnsupportedError
from unbroken.limits import DEFAULT_LIMITS
from unbroken.messages import Epoch, Seq, StreamId, StreamInfo, StreamState
from unbroken.store.base import Durability
from unbroken.store.entry import Entry
from unbroken.store.migrate import load_migrations, migrate, parse_migration
from unbroken.store.sqlite import SQLiteStore
from unbroken.store.sqlite.connection import Connection, Value
from unbroken.store.sqlite.rows import stream_row
from unbroken.store.sqlite.schema import SQLiteTarget
from unbroken.store.sqlite.tables import QUERIES

pytestmark = pytest.mark.anyio

KNOWN = len(load_migrations("sqlite"))
NEXT = parse_migration(f"{KNOWN + 1:04}_pre_next.sql", "CREATE TABLE extra (x INTEGER); INSERT INTO extra VALUES (1);")
BROKEN = parse_migration(
    f"{KNOWN + 2:04}_pre_broken.sql", "CREATE TABLE more (x INTEGER); INSERT INTO nowhere VALUES (1);"
)


def connect(path: Path) -> Connection:
    return Connection(path, DEFAULT_LIMITS, full=False)


async def test_opening_records_what_was_applied_once_and_for_all(path: Path) -> None:
    for _ in range(2):
        store = keyed(SQLiteStore(path, durability=Durability.PROCESS))
        await store.open()
        await store.close()
    connection = connect(path)
    recorded = connection.all("SELECT number, name, checksum, applied_ms > 1_700_000_000_000 FROM migration")
    assert recorded == [(m.number, m.name, m.checksum, 1) for m in load_migrations("sqlite")]
    connection.close()


async def test_data_survives_a_migration_and_a_broken_one_changes_nothing(sqlite: SQLiteStore, path: Path) -> None:
    stream = await create(sqlite, "a", messages=numbered(1, 3))
    await sqlite.close()
    connection = connect(path)
    target, known = SQLiteTarget(connection), load_migrations("sqlite")
    with pytest.raises(apsw.SQLError):
        migrate(target, [*known, NEXT, BROKEN], 1)
    assert connection.all("SELECT name FROM sqlite_schema WHERE name IN ('extra', 'more')") == []
    assert [step.number for step in target.applied()] == [m.number for m in known]
    assert migrate(target, [*known, NEXT], 1) == [NEXT]
    assert migrate(target, [*known, NEXT], 1) == []
    assert connection.all("SELECT x FROM extra") == [(1,)]
    connection.run("DELETE FROM migration WHERE number = ?", (NEXT.number,))
    connection.close()
    await sqlite.open()
    assert await read_all(sqlite, stream.id) == ["1", "2", "3"]


async def test_a_newer_database_is_left_alone(sqlite: SQLiteStore, path: Path) -> None:
    await create(sqlite, "a")
    await sqlite.close()
    connection = connect(path)
    migrate(SQLiteTarget(connection), [*load_migrations("sqlite"), NEXT], 1)
    connection.close()
    with pytest.raises(StoreUnsupportedError, match=f"{NEXT.number:04}_pre_next"):
        await sqlite.open()
    connection = connect(path)
    connection.run("DELETE FROM migration WHERE number = ?", (NEXT.number,))
    connection.run("UPDATE migration SET checksum = 'other'")
    connection.close()
    with pytest.raises(StoreUnsupportedError, match="edited"):
        await sqlite.open()
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("unbroken-")]
    connection = connect(path)
    for step in load_migrations("sqlite"):
        connection.run("UPDATE migration SET checksum = ? WHERE number = ?", (step.checksum, step.number))
    connection.close()
    await sqlite.open()
    assert await sqlite.get(ALICE, "a") is not None


async def test_a_migration_that_is_killed_is_undone(path: Path) -> None:
    connection = connect(path)
    target = SQLiteTarget(connection)
    step = load_migrations("sqlite")[0]
    with suppress(KeyboardInterrupt), target.transaction():
        target.apply(step, 1)
        assert connection.all("SELECT count(*) FROM sqlite_schema") != [(0,)]
        raise KeyboardInterrupt
    assert connection.all("SELECT name FROM sqlite_schema") == []
    connection.close()
    store = keyed(SQLiteStore(path, durability=Durability.PROCESS))
    await store.open()
    await create(store, "a")
    await store.close()


LATER = ("salts BLOB", "erased TEXT")
"""Columns of streams that later migrations add."""


async def test_names_become_their_owners_and_nothing_else_changes(path: Path) -> None:
    *earlier, names = [step for step in load_migrations("sqlite") if step.number <= 5]
    connection = connect(path)
    target = SQLiteTarget(connection)
    migrate(target, earlier, 1)
    with connection.transaction():
        for column in LATER:
            connection.run(f"ALTER TABLE stream ADD COLUMN {column}")  # the statements of today name them
        connection.run("UPDATE counter SET value = 9")
        for session in ("s", "t"):
            connection.run(QUERIES["session_put"], ("acme", "alice", session, "active", "{}", 1, 1))
        for number, session in ((1, "s"), (2, "t")):
            info = StreamInfo(
                id=StreamId(number), epoch=Epoch(number), tenant="acme", owner="alice", name=f"n{number}", kind="stream",
                content_type="text/plain", session=session, metadata="{}", state=StreamState.OPEN, first=Seq(1), head=Seq(4),
                size_bytes=9, hash=b"h", genesis=b"g", created_ms=1, updated_ms=2, run=None, lease_ms=7,
                forked_from=StreamId(1) if number == 2 else None,
            )  # fmt: skip
            connection.run(QUERIES["stream_insert"], stream_row(Entry(info, Seq(0), b"g")))
            connection.run(QUERIES["producer_put"], (number, "p", 1, 2, 3, 4))
        for column in LATER:
            connection.run(f"ALTER TABLE stream DROP COLUMN {column.split()[0]}")
    before = [
        connection.all(f"SELECT * FROM {table} ORDER BY 1") for table in ("stream", "producer", "session", "counter")
    ]
    assert migrate(target, [*earlier, names], 1) == [names]
    after = [
        connection.all(f"SELECT * FROM {table} ORDER BY 1") for table in ("stream", "producer", "session", "counter")
    ]
    assert after == before
    assert connection.all("PRAGMA foreign_key_check") == []
    assert connection.all("PRAGMA integrity_check") == [("ok",)]
    connection.run("UPDATE stream SET owner = 'bob', session = NULL, name = 'n1' WHERE id = 2")
    with pytest.raises(apsw.ConstraintError):
        connection.run("UPDATE stream SET session = NULL, owner = 'alice' WHERE id = 2")
    with pytest.raises(apsw.ConstraintError, match="FOREIGN KEY"):
        connection.run("DELETE FROM stream WHERE id = 1")
    connection.run("DELETE FROM stream WHERE id = 2")
    assert connection.all("SELECT stream_id FROM producer") == [(1,)]
    connection.close()


@pytest.mark.parametrize("kills", [0, 1])
async def test_a_database_of_the_first_schema_gains_runs_and_keeps_everything(path: Path, kills: int) -> None:
    first, *later = load_migrations("sqlite")
    connection = connect(path)
    migrate(SQLiteTarget(connection), [first], 1)
    columns = [str(row[1]) for row in connection.all("PRAGMA table_info(stream)")]
    assert "run" not in columns
    values: dict[str, Value] = {name: b"" if name in {"hash", "genesis", "base_hash"} else 0 for name in columns}
    values |= {"id": 1, "epoch": 1, "first": 1, "state": "open", "name": "old", "tenant": "acme", "owner": "alice"}
    values |= {"kind": "stream", "content_type": "text/plain", "reason": "{}", "metadata": "{}"}
    values |= dict.fromkeys(("session", "ended_ms", "ttl_seconds", "expires_ms", "lease_producer", "writer_seq"))
    values |= dict.fromkeys(("lease_until_ms", "cancel_requested_ms", "cancel_requested_by", "forked_from"))
    marks = ", ".join("?" for _ in columns)
    with connection.transaction():
        connection.run(
            f"INSERT INTO stream ({', '.join(columns)}) VALUES ({marks})", [values[name] for name in columns]
        )
    connection.close()
    for _ in range(kills + 1):
        store = keyed(SQLiteStore(path, durability=Durability.PROCESS))
        await store.open()
        found = await store.get(ALICE, "old")
        assert found is not None
        assert (found.name, found.run, found.kind) == ("old", None, "stream")
        await store.close()
    connection = connect(path)
    assert [step.number for step in SQLiteTarget(connection).applied()] == [1, *(m.number for m in later)]
    connection.close()
