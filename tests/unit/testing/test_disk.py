"""The disk's part of the fault kit does what it says, counts it, and leaves no trace behind."""

from __future__ import annotations

import asyncio
import threading
from contextlib import closing, suppress
from pathlib import Path
from random import Random

import apsw
import pytest

from tests.support.builders import append, create, numbered, read_all
from unbroken.errors import StoreUnavailableError, UnknownOutcomeError
from unbroken.limits import DEFAULT_LIMITS
from unbroken.store.memory import MemoryStore
from unbroken.testing import (
    BitFlip,
    CallFails,
    CallHangs,
    CallLate,
    CallUnknown,
    DiskError,
    DiskFault,
    DiskFile,
    DiskFull,
    DiskHang,
    DiskHarm,
    DiskOperation,
    DiskRecord,
    FaultDisk,
    FaultyStore,
    PlantedFault,
    SlowDisk,
    StoreFault,
    TornWrite,
    Unsynced,
    sweep,
)

pytestmark = pytest.mark.anyio
WRITES = frozenset({DiskOperation.WRITE})
DATABASE = frozenset({DiskFile.DATABASE})


def opened(path: Path) -> apsw.Connection:
    connection = apsw.Connection(str(path))
    connection.execute(
        "PRAGMA journal_mode = OFF; PRAGMA synchronous = FULL; CREATE TABLE IF NOT EXISTS t (x)"
    ).fetchall()
    return connection


@pytest.mark.parametrize(
    ("harm", "operation", "error"),
    [
        (DiskError(), DiskOperation.READ, apsw.IOError),
        (DiskError(), DiskOperation.WRITE, apsw.IOError),
        (DiskError(), DiskOperation.SYNC, apsw.IOError),
        (DiskError(), DiskOperation.OPEN, apsw.CantOpenError),
        (DiskFull(), DiskOperation.WRITE, apsw.FullError),
        (TornWrite(), DiskOperation.WRITE, apsw.IOError),
    ],
)
def test_a_harm_bites_the_operation_that_is_named_and_is_counted(
    tmp_path: Path, harm: DiskHarm, operation: DiskOperation, error: type[apsw.Error]
) -> None:
    path = tmp_path / "x.db"
    with FaultDisk() as disk:
        opened(path).close()
        planted = disk.plant(DiskFault(harm, frozenset({operation})))
        with pytest.raises((error, apsw.IOError)), closing(opened(path)) as connection:
            connection.execute("INSERT INTO t VALUES (1)")
        assert planted.bites == 1
        assert planted.bitten.is_set()
        disk.heal()
        with closing(opened(path)) as connection:
            connection.execute("INSERT INTO t VALUES (2)")
    assert apsw.vfs_names()[0] == "unix", "the process's own layer is back"


def test_once_and_for_ever_and_the_nth(tmp_path: Path) -> None:
    with FaultDisk() as disk, closing(opened(tmp_path / "x.db")) as connection:
        once = disk.plant(DiskFault(DiskError(), WRITES, DATABASE, nth=3))
        results = [_insert(connection) for _ in range(6)]
        assert results.count(False) == 1
        assert (once.bites, once.seen > 3) == (1, True)
        disk.heal()
        ever = disk.plant(DiskFault(DiskError(), WRITES, DATABASE, nth=2, times=None))
        results = [_insert(connection) for _ in range(6)]
        assert results[-3:] == [False] * 3
        assert ever.bites == ever.seen - 1
    with pytest.raises(ValueError, match="counted from 1"):
        DiskFault(DiskError(), nth=0)


def _insert(connection: apsw.Connection) -> bool:
    try:
        connection.execute("INSERT INTO t VALUES (zeroblob(10))")
    except apsw.Error:
        return False
    return True


def test_a_torn_write_leaves_its_beginning_and_a_flip_one_bit(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with FaultDisk(random=Random(3)) as disk:
        opened(path).close()
        before = path.read_bytes()
        planted = disk.plant(DiskFault(TornWrite(), WRITES, DATABASE))
        with pytest.raises(apsw.IOError, match="torn after"), closing(opened(path)) as connection:
            connection.execute("PRAGMA user_version = 7; INSERT INTO t VALUES (randomblob(3000))")
        torn = path.read_bytes()
        assert planted.bites == 1
        changed = [at for at in range(min(len(torn), len(before))) if torn[at] != before[at]]
        assert len({at // 512 for at in changed}) < 8


def test_a_flip_changes_one_bit_of_what_is_written_and_none_of_what_is_only_read(tmp_path: Path) -> None:
    right, wrong = tmp_path / "right.db", tmp_path / "wrong.db"
    with FaultDisk(random=Random(3)) as disk:
        with closing(opened(right)) as connection:
            assert _insert(connection)
        with closing(opened(wrong)) as connection:
            planted = disk.plant(DiskFault(BitFlip(), WRITES, DATABASE))
            assert _insert(connection)
        assert planted.bites == 1
        disk.heal()
        read = disk.plant(DiskFault(BitFlip(), frozenset({DiskOperation.READ}), DATABASE, times=None))
        with suppress(apsw.Error), closing(apsw.Connection(str(right))) as connection:
            connection.execute("SELECT * FROM t").fetchall()
        assert read.bites > 0
    pairs = zip(right.read_bytes(), wrong.read_bytes(), strict=True)
    assert sum((one ^ other).bit_count() for one, other in pairs) == 1


def test_what_hangs_goes_on_when_it_is_released_and_what_is_slow_by_itself(tmp_path: Path) -> None:
    with FaultDisk() as disk, closing(opened(tmp_path / "x.db")) as connection:
        planted = disk.plant(DiskFault(DiskHang(), frozenset({DiskOperation.SYNC})))
        done = threading.Event()

        def work() -> None:
            connection.execute("INSERT INTO t VALUES (1)")
            done.set()

        thread = threading.Thread(target=work)
        thread.start()
        assert planted.bitten.wait(20)
        assert not done.is_set()
        disk.release()
        thread.join(20)
        assert done.is_set()
        slow = disk.plant(DiskFault(SlowDisk(0.01), frozenset({DiskOperation.SYNC})))
        assert _insert(connection)
        assert slow.bites == 1


def test_power_loss_keeps_what_was_synced_and_any_of_the_rest() -> None:
    record, path, chance = DiskRecord(), Path("nowhere/x"), Random(1)
    record.opened(path)
    record.written(path, 0, b"a" * 2048)
    record.synced(path)
    record.written(path, 512, b"b" * 1024)
    record.truncated(path, 1024)
    assert record.image(1, Unsynced.DROPPED, chance) == {}, "not even the name is safe"
    assert record.image(2, Unsynced.DROPPED, chance)[path] == b"a" * 2048
    assert record.image(4, Unsynced.DROPPED, chance)[path] == b"a" * 2048
    assert record.image(3, Unsynced.KEPT, chance)[path] == b"a" * 512 + b"b" * 1024 + b"a" * 512
    assert record.image(4, Unsynced.KEPT, chance)[path] == b"a" * 512 + b"b" * 512
    torn = {record.image(3, Unsynced.TORN, chance)[path] for _ in range(50)}
    assert torn == {b"a" * 512 + x * 512 + y * 512 + b"a" * 512 for x in (b"a", b"b") for y in (b"a", b"b")}
    record.deleted(path)
    assert record.image(5, Unsynced.KEPT, chance) == {}
    assert len(record) == 5


async def test_a_sweep_ends_past_the_end_and_refuses_to_prove_nothing() -> None:
    places: list[int] = []

    async def attempt(place: int) -> PlantedFault:
        places.append(place)
        planted = PlantedFault(DiskFault(DiskError(), nth=place))
        for _ in range(5):
            planted.meets(DiskOperation.SYNC, DiskFile.LOG)
        return planted

    swept = await sweep(attempt)
    assert (swept.runs, swept.bites, places) == (5, 5, [1, 2, 3, 4, 5, 6])
    assert (await sweep(attempt, step=2)).runs == 3
    with pytest.raises(AssertionError, match="inconclusive"):
        await sweep(attempt, start=6)
    with pytest.raises(AssertionError, match="does not end"):
        await sweep(attempt, runs_max=3)


async def test_a_store_fails_hangs_or_hides_what_became_of_a_call() -> None:
    store = FaultyStore(MemoryStore(limits=DEFAULT_LIMITS))
    await store.open()
    stream = await create(store, "a")
    fails = store.plant(StoreFault(CallFails(StoreUnavailableError("away")), nth=2))
    await append(store, stream, numbered(1, 1))
    with pytest.raises(StoreUnavailableError):
        await append(store, stream, numbered(2, 2))
    assert (fails.seen, fails.bites) == (2, 1)
    store.heal()
    for took_effect in (True, False):
        store.plant(StoreFault(CallUnknown(took_effect)))
        with pytest.raises(UnknownOutcomeError):
            await append(store, stream, numbered(2, 2))
        store.heal()
    assert await read_all(store, stream.id) == ["1", "2"]
    hangs = store.plant(StoreFault(CallHangs(), "read"))
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        read = tasks.create_task(read_all(store, stream.id))
        await hangs.bitten.wait()
        assert not read.done()
        store.release()
    assert read.result() == ["1", "2"]
    late = store.plant(StoreFault(CallLate(0.01), "lookup"))
    assert (await store.get_by_id(stream.id)) is not None
    assert late.bites == 1
    await store.close()
