"""What SQLite's failures become, and that the store goes on afterwards: full, locked, damaged, unwritable, killed."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import apsw
import pytest

from tests.integration.store.opening import behind, flipped, keyed, stored_body
from tests.support.builders import ALICE, append, appending, create, done, encoded, numbered, read_all, texts
from tests.support.database import connect
from tests.support.sqlite_program import LOCKER, program
from unbroken.errors import (
    CorruptError,
    StoreFullError,
    StoreUnavailableError,
    StoreUnsupportedError,
    UnknownOutcomeError,
)
from unbroken.limits import DEFAULT_LIMITS
from unbroken.messages import Seq, StreamId
from unbroken.store.base import Appended, CreateStream, DeleteStream, Durability, Fork, Producer, Rejected
from unbroken.store.chunks import ChunkRow, decode_chunk
from unbroken.store.sqlite import SQLiteStore
from unbroken.store.sqlite.connection import Connection, check_sqlite
from unbroken.store.sqlite.failures import translated
from unbroken.testing import DiskError, DiskFault, DiskFile, DiskFull, DiskHarm, DiskOperation, FaultDisk, TornWrite

pytestmark = pytest.mark.anyio
WRITER = Path(__file__).with_name("writing_process.py")
ROOT = Path(__file__).resolve().parents[3]


def execute(path: Path, sql: str, values: tuple[object, ...] | dict[str, object] = ()) -> list[tuple[object, ...]]:
    """Run a statement on a connection of our own, behind the store's back."""
    connection = connect(path)
    try:
        return list(connection.execute(sql, values))
    finally:
        connection.close()


READER = """
import sqlite3, sys
reader = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True)
for _ in sys.stdin:
    (head,), = reader.execute("SELECT head FROM stream").fetchall()
    row, = reader.execute("SELECT id, n, flags, crc, hash, body, marks FROM chunk ORDER BY id DESC LIMIT 1").fetchall()
    print(head, *(value.hex() if isinstance(value, bytes) else value for value in row), flush=True)
"""


@pytest.mark.scenario("TC-INT-001a")
async def test_what_write_acknowledges_an_independent_reader_sees_at_that_moment(
    sqlite: SQLiteStore, path: Path
) -> None:
    stream = await create(sqlite, "a")
    with program(READER, path) as ask, closing(behind(path)) as own:
        for n in range(1, 50):
            await append(sqlite, stream, numbered(n, n))
            head, *numbers, chain_hash, body, marks = (await asyncio.to_thread(ask, "now")).split()
            key, count, flags, crc = map(int, numbers)
            row = ChunkRow(key, count, flags, crc, *map(bytes.fromhex, (chain_hash, body, marks)))
            assert (int(head), decode_chunk(row, own.keys).body) == (n, encoded(str(n)))


@pytest.mark.parametrize(
    "damage",
    [
        "body = :flipped",
        "crc = crc + 1",
        "n = n + 1",
        "flags = flags | 1",
        "flags = (flags | 2) - (flags & 2)",
        "hash = zeroblob(32)",
        "id = id + 100",
    ],
)
async def test_a_damaged_row_is_named_and_never_served(sqlite: SQLiteStore, path: Path, damage: str) -> None:
    stream, healthy = await create(sqlite, "a"), await create(sqlite, "b", messages=numbered(1, 2))
    await append(sqlite, stream, numbered(1, 2))
    await append(sqlite, stream, numbered(3, 4))
    values = {"flipped": flipped(stored_body(path, stream.id, 4)), "id": stream.id << 32 | 4}
    execute(path, f"UPDATE chunk SET {damage} WHERE id = :id", values)
    with pytest.raises(CorruptError) as caught:
        await sqlite.read(stream.id, Seq(0), messages_max=100, bytes_max=1 << 20)
    assert caught.value.detail["stream"] == stream.id
    assert caught.value.detail["seq"] in {3, 4, 104}
    intact = await sqlite.read(stream.id, Seq(0), messages_max=2, bytes_max=1 << 20)
    assert texts(intact.batches) == ["1", "2"]
    assert await read_all(sqlite, healthy.id) == ["1", "2"]
    fork = CreateStream(principal=ALICE, name="f", now_ms=1, fork=Fork(stream.id, Seq(3)))
    result, other = await sqlite.write([fork, appending(healthy, numbered(3, 3))])
    assert isinstance(result, Rejected)
    assert isinstance(result.error, CorruptError)
    assert isinstance(other, Appended)


async def test_a_missing_row_is_noticed(sqlite: SQLiteStore, path: Path) -> None:
    stream = await create(sqlite, "a")
    for n in range(1, 6):
        await append(sqlite, stream, numbered(n, n))
    execute(path, "DELETE FROM chunk WHERE id = ?", (stream.id << 32 | 3,))
    for after in range(3):
        with pytest.raises(CorruptError) as caught:
            await sqlite.read(stream.id, Seq(after), messages_max=100, bytes_max=1 << 20)
        assert caught.value.detail == {"stream": stream.id, "seq": 3}
    assert await read_all(sqlite, stream.id, after=3) == ["4", "5"]
    execute(path, "DELETE FROM chunk WHERE id = ?", (stream.id << 32 | 5,))
    with pytest.raises(CorruptError):
        await sqlite.read(stream.id, Seq(3), messages_max=100, bytes_max=1 << 20)


async def test_a_file_that_is_no_database_is_refused(path: Path) -> None:
    await asyncio.to_thread(path.write_bytes, b"this is not a database" * 1000)
    with pytest.raises(CorruptError):
        await keyed(SQLiteStore(path)).open()
    assert await asyncio.to_thread(path.read_bytes) == b"this is not a database" * 1000


async def test_a_full_database_refuses_appends_serves_reads_and_goes_on_when_there_is_room(path: Path) -> None:
    store = keyed(
        SQLiteStore(path, durability=Durability.PROCESS, limits=replace(DEFAULT_LIMITS, store_bytes_max=1 << 20))
    )
    await store.open()
    stream, ballast = await create(store, "a"), await create(store, "ballast", messages=[encoded("b" * 300_000)])
    seq = 0
    with suppress(StoreFullError):
        while True:
            await store.write([appending(stream, [encoded("x" * 9_000)], producer=Producer("p", 1, seq))])
            seq += 1
    for _ in range(3):
        with pytest.raises(StoreFullError):
            await store.write([appending(stream, [encoded("x" * 9_000)], producer=Producer("p", 1, seq))])
    assert seq > 10
    assert len(await read_all(store, stream.id)) == seq
    await done(store, DeleteStream(stream=ballast.id, epoch=ballast.epoch))
    await store.compact(stream.id)
    result = await append(store, stream, [encoded("again")], producer=Producer("p", 1, seq))
    assert (result.first, result.duplicate) == (seq + 1, False)
    assert (await read_all(store, stream.id))[-1] == "again"
    await store.close()


async def test_a_locked_database_costs_a_bounded_wait_and_nothing_else(sqlite: SQLiteStore, path: Path) -> None:
    limits = replace(DEFAULT_LIMITS, store_busy_seconds_max=0.2)
    store = keyed(SQLiteStore(path, durability=Durability.PROCESS, limits=limits))
    await store.open()
    stream = await create(store, "a", messages=numbered(1, 1))
    op = appending(stream, numbered(2, 2), producer=Producer("p", 1, 0))
    with program(LOCKER.format(kind="IMMEDIATE"), path) as ask:
        assert await asyncio.to_thread(ask, "") == "locked"
        async with asyncio.timeout(20):
            with pytest.raises(StoreUnavailableError):
                await store.write([op])
        assert await read_all(store, stream.id) == ["1"]
    (result,) = await store.write([op])
    assert isinstance(result, Appended)
    assert (result.first, result.duplicate) == (2, False)
    await store.close()


WRITING_LOCKER = """
import sqlite3, sys
locker = sqlite3.connect(sys.argv[1], isolation_level=None)
locker.execute("BEGIN IMMEDIATE")
locker.execute("UPDATE counter SET value = value + 1")
print("locked", flush=True)
sys.stdin.readline()
locker.execute("COMMIT")
print("free", flush=True)
"""


async def test_a_write_waits_for_another_process_to_commit_and_then_succeeds(sqlite: SQLiteStore, path: Path) -> None:
    stream = await create(sqlite, "a", messages=numbered(1, 1))
    with program(WRITING_LOCKER, path) as ask:
        assert await asyncio.to_thread(ask, "") == "locked"
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            write = group.create_task(append(sqlite, stream, numbered(2, 2)))
            assert await read_all(sqlite, stream.id) == [
                "1"
            ]  # reading takes no lock and gives the writer time to begin
            assert not write.done()
            assert await asyncio.to_thread(ask, "commit") == "free"
    assert write.result().first == 2


async def test_the_schema_itself_keeps_streams_and_sessions_together(sqlite: SQLiteStore, path: Path) -> None:
    await create(sqlite, "a", session="s")
    connection = Connection(path, DEFAULT_LIMITS, full=False)
    with pytest.raises(apsw.ConstraintError):
        connection.run("DELETE FROM session")
    connection.close()


async def test_an_up_to_date_database_opens_while_another_process_writes_and_a_new_one_waits_boundedly(
    sqlite: SQLiteStore, path: Path, tmp_path: Path
) -> None:
    stream = await create(sqlite, "a", messages=numbered(1, 1))
    limits = replace(DEFAULT_LIMITS, store_busy_seconds_max=0.2)
    opened = keyed(SQLiteStore(path, durability=Durability.PROCESS, limits=limits))
    with program(WRITING_LOCKER, path) as ask:
        assert await asyncio.to_thread(ask, "") == "locked"
        await opened.open()
        assert await read_all(opened, stream.id) == ["1"]
    await opened.close()
    fresh = keyed(SQLiteStore(tmp_path / "fresh.db", limits=limits))
    with program(LOCKER.format(kind="IMMEDIATE"), tmp_path / "fresh.db") as ask:
        assert await asyncio.to_thread(ask, "") == "locked"
        async with asyncio.timeout(20):
            with pytest.raises(StoreUnavailableError):
                await fresh.open()
    await fresh.open()
    await fresh.close()


async def test_closing_does_not_wait_for_space_to_come_back_and_lets_go_of_the_file(path: Path) -> None:
    limits = replace(DEFAULT_LIMITS, delete_step_chunks_max=1)
    store = keyed(SQLiteStore(path, durability=Durability.PROCESS, limits=limits))
    numbers = [await fill_delete_and_close(store, path) for _ in range(2)]
    await store.open()
    while execute(path, "SELECT count(*) FROM chunk") != [(0,)]:
        await store.compact(numbers[0])
    await store.close()


async def fill_delete_and_close(store: SQLiteStore, path: Path) -> StreamId:
    await store.open()
    stream = await create(store, "a")
    for n in range(50):
        await append(store, stream, numbered(n, n))
    await done(store, DeleteStream(stream=stream.id, epoch=stream.epoch))
    await store.close()
    assert [t.name for t in threading.enumerate() if t.name.startswith("unbroken-")] == []
    assert await asyncio.to_thread(size_of, path.with_name(path.name + "-wal")) == 0
    return stream.id


@pytest.fixture
def faults() -> Iterator[FaultDisk]:
    """The disk below every connection that is opened from now on."""
    with FaultDisk() as disk:
        yield disk


@pytest.mark.parametrize(
    ("operation", "harm", "meaning"),
    [
        (DiskOperation.SYNC, DiskError(), UnknownOutcomeError),
        (DiskOperation.WRITE, DiskError(), UnknownOutcomeError),
        (DiskOperation.WRITE, TornWrite(), UnknownOutcomeError),
        (DiskOperation.WRITE, DiskFull(), StoreFullError),
    ],
)
async def test_a_failing_commit_is_told_for_what_it_is_and_a_retry_takes_effect_once(
    faults: FaultDisk, path: Path, operation: DiskOperation, harm: DiskHarm, meaning: type[Exception]
) -> None:
    store = keyed(SQLiteStore(path, durability=Durability.DISK))
    await store.open()
    stream = await create(store, "a", messages=numbered(1, 1))
    op = appending(stream, numbered(2, 2), producer=Producer("p", 1, 0))
    fault = faults.plant(DiskFault(harm, frozenset({operation}), frozenset({DiskFile.LOG}), times=None))
    for _ in range(2):
        with pytest.raises(meaning):
            await store.write([op])
    with pytest.raises(meaning):
        await store.probe()
    assert fault.bites >= 3
    faults.heal()
    await store.probe()
    await store.write([op])
    (again,) = await store.write([op])
    assert isinstance(again, Appended)
    assert (again.first, again.duplicate) == (2, True)
    assert await read_all(store, stream.id) == ["1", "2"]
    await store.close()
    reopened = keyed(SQLiteStore(path))
    await reopened.open()
    assert await read_all(reopened, stream.id) == ["1", "2"]
    await reopened.close()


async def test_a_failing_checkpoint_loses_nothing_and_is_made_up_for(
    faults: FaultDisk, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    limits = replace(DEFAULT_LIMITS, store_wal_bytes=4096 * 4)
    store = keyed(SQLiteStore(path, durability=Durability.PROCESS, limits=limits))
    await store.open()
    stream = await create(store, "a")
    syncs, database = frozenset({DiskOperation.SYNC}), frozenset({DiskFile.DATABASE})
    fault = faults.plant(DiskFault(DiskError(), syncs, database, times=None))
    n = 0
    while not fault.bites:
        n += 1
        await append(store, stream, [encoded(str(n))])
    faults.heal()
    for _ in range(20):
        n += 1
        await append(store, stream, [encoded(str(n))])
    await store.close()
    assert "a checkpoint is put off" in caplog.text
    assert await asyncio.to_thread(size_of, path.with_name(path.name + "-wal")) == 0
    reopened = keyed(SQLiteStore(path))
    await reopened.open()
    assert await read_all(reopened, stream.id) == [str(m) for m in range(1, n + 1)]
    await reopened.close()


async def test_the_write_ahead_log_does_not_grow_for_ever(path: Path) -> None:
    limits = replace(DEFAULT_LIMITS, store_wal_bytes=1 << 20)
    store = keyed(SQLiteStore(path, durability=Durability.PROCESS, limits=limits))
    await store.open()
    stream = await create(store, "a")
    for _ in range(800):
        await append(store, stream, [encoded("x" * 40_000)])
    log = path.with_name(path.name + "-wal")
    assert await asyncio.to_thread(size_of, log) < 10 << 20
    await store.close()
    assert await asyncio.to_thread(size_of, path) > 30 << 20
    assert await asyncio.to_thread(size_of, log) == 0


def size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


async def test_everything_acknowledged_survives_kill_9(sqlite: SQLiteStore, path: Path) -> None:
    stream = await create(sqlite, "a")
    found: list[str] = []
    for round_number in range(3):
        acknowledged = await asyncio.to_thread(write_and_kill, path, f"p{round_number}", 40 * (round_number + 1))
        found = await read_all(sqlite, stream.id)
        assert len(found) >= acknowledged
        fresh = keyed(SQLiteStore(path, durability=Durability.PROCESS))
        await fresh.open()
        assert await read_all(fresh, stream.id) == found
        await append(fresh, stream, [encoded(f"after {round_number}")])
        await fresh.close()
    for round_number in range(3):
        own = [text for text in found if text.startswith(f"p{round_number}:")]
        assert own == [f"p{round_number}:{n}" for n in range(len(own))]
        assert own


def write_and_kill(path: Path, producer: str, after: int) -> int:
    """Let a process append until it has been acknowledged `after` messages, then kill it; the last seq it was told."""
    child = subprocess.Popen(
        [sys.executable, str(WRITER), str(path), "a", producer, "0"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    assert child.stdout is not None
    assert child.stdin is not None
    with child:
        child.stdin.write(b"go\n")
        child.stdin.flush()
        assert child.stdout.readline() == b"open\n"
        told = [child.stdout.readline() for _ in range(after)]
        child.send_signal(signal.SIGKILL)
        told += [line for line in child.stdout if line.endswith(b"\n")]
        return int(told[-1])


@pytest.mark.parametrize(
    ("version", "fits"), [(3_040_001, False), (3_051_002, False), (3_051_003, True), (3_054_001, True)]
)
def test_an_sqlite_that_can_damage_its_log_is_refused(version: int, *, fits: bool) -> None:
    if fits:
        check_sqlite(version)
        return
    with pytest.raises(StoreUnsupportedError, match=r"3\.51\.3"):
        check_sqlite(version)


async def test_a_place_that_cannot_be_written_is_told_clearly(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreUnavailableError, match="cannot be made"):
        await keyed(SQLiteStore(tmp_path / "file" / "unbroken.db")).open()
    with pytest.raises(StoreUnavailableError):
        await keyed(SQLiteStore(tmp_path)).open()


async def test_a_store_that_is_not_open_says_so(path: Path) -> None:
    store = keyed(SQLiteStore(path))
    with pytest.raises(StoreUnavailableError, match="not open"):
        await store.write([])
    await store.open()
    await store.open()
    await store.close()
    await store.close()
    with pytest.raises(StoreUnavailableError, match="not open"):
        await store.heads([])
    with pytest.raises(ValueError, match="quorum"):
        keyed(SQLiteStore(path, durability=Durability.QUORUM))


async def test_the_file_is_its_owners_alone(sqlite: SQLiteStore, path: Path) -> None:
    await create(sqlite, "a")
    for file in path.parent.iterdir():
        assert file.stat().st_mode & 0o077 == 0, file


def test_a_defect_of_ours_is_not_dressed_up_as_a_failure_of_the_environment() -> None:
    assert translated(apsw.SQLError("no such table")) is None
    assert translated(apsw.ConstraintError("unique")) is None
    connection = apsw.Connection(":memory:")
    assert isinstance(translated(apsw.BusyError()), StoreUnavailableError)
    assert isinstance(translated(apsw.ReadOnlyError()), StoreUnavailableError)
    assert isinstance(translated(apsw.NotADBError()), CorruptError)
    connection.close()


async def test_a_defect_in_one_write_rolls_it_back_and_leaves_the_store_working(path: Path) -> None:
    connection = Connection(path, DEFAULT_LIMITS, full=False)
    connection.run("CREATE TABLE t (x INTEGER PRIMARY KEY)")

    def insert(*numbers: int) -> None:
        with connection.transaction():
            for number in numbers:
                connection.run("INSERT INTO t VALUES (?)", (number,))
            assert 2 not in numbers

    with pytest.raises(apsw.ConstraintError):
        insert(1, 1)
    with pytest.raises(AssertionError):
        insert(2)
    insert(3)
    assert connection.all("SELECT x FROM t") == [(3,)]
    connection.close()
