"""A commit that fails is looked up: whoever appended learns whether it took effect, and not even a crash changes that."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from tests.integration.disk.test_power import lay
from tests.integration.disk.works import store_at
from tests.support.builders import append, appending, create, done, numbered, read_all
from tests.support.database import connect
from unbroken.errors import StoreFullError, StoreUnavailableError, UnknownOutcomeError
from unbroken.store.base import Appended, DeleteStream, Producer
from unbroken.store.sqlite import SQLiteStore
from unbroken.store.sqlite.connection import Connection
from unbroken.testing import DiskError, DiskFault, DiskFile, DiskFull, DiskOperation, DiskRecord, FaultDisk, Unsynced

pytestmark = pytest.mark.anyio
SYNC_OF_LOG = DiskFault(DiskError(), frozenset({DiskOperation.SYNC}), frozenset({DiskFile.LOG}))


@pytest.mark.scenario("TC-EDGE-005")
async def test_a_commit_that_was_taken_back_is_told_as_failed_and_stays_so_after_a_crash(tmp_path: Path) -> None:
    (tmp_path / "before").mkdir()
    (tmp_path / "after").mkdir()
    record = DiskRecord()
    with FaultDisk(syncs=False, record=record) as disk:
        store = store_at(tmp_path / "before" / "unbroken.db")
        await store.open()
        stream = await create(store, "a", messages=numbered(1, 1))
        # the log begins anew here: its header is synced first, then the commit, when all of it is written
        fault = disk.plant(replace(SYNC_OF_LOG, nth=2))
        with pytest.raises(StoreUnavailableError, match="taken back"):
            await append(store, stream, numbered(2, 9))
        assert fault.bites == 1
        lay(record.image(len(record), Unsynced.KEPT, Random(1)), tmp_path / "after")
        assert await read_all(store, stream.id) == ["1"]
        await append(store, stream, numbered(2, 2))
        await store.close()
    crashed = SQLiteStore(tmp_path / "after" / "unbroken.db")
    await crashed.open()
    assert await read_all(crashed, stream.id) == ["1"]
    await crashed.close()


async def test_a_commit_that_took_effect_although_it_failed_is_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_at(tmp_path / "unbroken.db")
    await store.open()
    stream = await create(store, "a", messages=numbered(1, 1))
    committing, failed = Connection.transaction, 0

    @contextmanager
    def transaction(connection: Connection) -> Iterator[None]:
        nonlocal failed
        with committing(connection):
            yield
        failed += 1
        if failed == 1:
            raise UnknownOutcomeError("it was durable already")

    monkeypatch.setattr(Connection, "transaction", transaction)
    op = appending(stream, numbered(2, 3), producer=Producer("p", 0, 0))
    (result,) = await store.write([op])
    assert failed > 1
    assert isinstance(result, Appended)
    assert (result.first, result.last, result.duplicate) == (2, 3, False)
    (again,) = await store.write([op])
    assert isinstance(again, Appended)
    assert (again.first, again.duplicate) == (2, True)
    assert await read_all(store, stream.id) == ["1", "2", "3"]
    await store.close()


async def test_what_cannot_be_looked_up_stays_unknown(tmp_path: Path) -> None:
    with FaultDisk(syncs=False) as disk:
        store = store_at(tmp_path / "unbroken.db")
        await store.open()
        stream = await create(store, "a")
        fault = disk.plant(DiskFault(SYNC_OF_LOG.harm, SYNC_OF_LOG.operations, SYNC_OF_LOG.files, times=2))
        with pytest.raises(UnknownOutcomeError):
            await append(store, stream, numbered(1, 1))
        assert fault.bites == 2
        disk.heal()
        assert (await append(store, stream, numbered(1, 1))).first == 1
        await store.close()


async def test_giving_back_space_that_was_put_off_is_taken_up_by_the_next_probe(tmp_path: Path) -> None:
    deleted, left, found = False, 0, 0
    with FaultDisk(syncs=False) as disk:
        for place in range(1, 100):
            store = store_at(tmp_path / f"{place}.db")
            await store.open()
            stream = await create(store, "a", messages=numbered(1, 50))
            disk.plant(DiskFault(DiskFull(), files=frozenset({DiskFile.LOG}), nth=place, times=None))
            with suppress(StoreFullError):
                await done(store, DeleteStream(stream=stream.id, epoch=stream.epoch))
            disk.heal()
            deleted = await store.get_by_id(stream.id) is None
            left = chunks(tmp_path / f"{place}.db")
            await store.probe()
            found = chunks(tmp_path / f"{place}.db")
            await store.close()
            if deleted and left:
                break
        assert (deleted, left, found) == (True, 1, 0), "inconclusive: the fault never fell between the two"


def chunks(path: Path) -> int:
    connection = connect(path)
    try:
        return len(connection.execute("SELECT id FROM chunk").fetchall())
    finally:
        connection.close()
