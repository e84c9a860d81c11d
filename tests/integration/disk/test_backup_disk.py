"""A copy that does not get to the disk as it was read is never kept."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from random import Random

import apsw
import pytest

from tests.integration.disk.works import LIMITS, OLD, WORKS, store_at
from tests.support.builders import ALICE, append, create, encoded, read_all
from unbroken.errors import CorruptError
from unbroken.limits import DEFAULT_LIMITS
from unbroken.store.base import Durability
from unbroken.store.sqlite import SQLiteStore, connection
from unbroken.store.sqlite.backup import back_up, restore
from unbroken.store.sqlite.connection import Connection
from unbroken.store.sqlite.salvage import unsound_pages
from unbroken.testing import BitFlip, DiskFault, DiskFile, DiskOperation, FaultDisk

pytestmark = pytest.mark.anyio
SEED = 20261126


async def test_a_bit_that_flips_on_its_way_into_the_copy_is_found_and_the_older_copy_stays(tmp_path: Path) -> None:
    source, target = tmp_path / "append.db", tmp_path / "copy.db"
    target.write_bytes(b"an older copy")
    with FaultDisk(syncs=False, random=Random(SEED)) as disk:
        await WORKS["append"].prepare(source)
        flips = DiskFault(BitFlip(), frozenset({DiskOperation.WRITE}), frozenset({DiskFile.DATABASE}), times=None)
        fault = disk.plant(flips)
        with pytest.raises(CorruptError):
            back_up(source, target, LIMITS, replace=True)
        assert fault.bites > 5
        assert target.read_bytes() == b"an older copy"
        assert not (tmp_path / "copy.db.partial").exists()
        disk.heal()
        back_up(source, target, LIMITS, replace=True)


async def test_a_copy_is_of_one_moment_and_does_not_begin_again_when_others_write(tmp_path: Path) -> None:
    source, target = tmp_path / "append.db", tmp_path / "copy.db"
    await WORKS["append"].prepare(source)
    store, copying = store_at(source), Connection(source, LIMITS, full=False, read_only=True)
    await store.open()
    stream = await store.get(ALICE, "a")
    assert stream is not None
    steps = 0
    for done, pages in copying.copy_to(target, 1):
        steps += 1
        assert done == min(steps, pages), "it did not begin again"
        await append(store, stream, [encoded(f"during step {steps}")])
    copying.close()
    await store.close()
    assert steps > 10
    copy = store_at(target)
    await copy.open()
    assert await read_all(copy, stream.id) == [f"old {number}" for number in range(1, OLD + 1)]
    await copy.close()


MIB = 1 << 20
COUNTERS = ((24, 28), (40, 44), (92, 100), (4088, 4096))
"""What a copy has of its own in page 1: the counts of changes, the number of the schema, and so the checksum."""


@asynccontextmanager
async def much_in_the_log(path: Path) -> AsyncIterator[None]:
    """A live database with more in its write-ahead log than the cache of a connection holds; a reader keeps it there."""
    store = SQLiteStore(path, durability=Durability.PROCESS, limits=replace(DEFAULT_LIMITS, store_ballast_bytes=0))
    await store.open()
    stream = await create(store, "a", ALICE)
    reader = Connection(path, DEFAULT_LIMITS, full=False, read_only=True)
    chance = Random(SEED)
    with reader.snapshot():
        reader.one("SELECT count(*) FROM sqlite_schema")
        for number in range(24):
            await append(store, stream, [encoded(f"{number} {chance.randbytes(MIB // 8).hex()}")])
        assert path.with_name(path.name + "-wal").stat().st_size > 4 * MIB, "inconclusive: it is in the file already"
        yield
    reader.close()
    await store.close()


def without_counters(file: bytes) -> bytes:
    page = bytearray(file)
    for start, end in COUNTERS:
        page[start:end] = bytes(end - start)
    return bytes(page)


async def test_what_is_only_in_the_write_ahead_log_has_checksums_in_the_copy(tmp_path: Path) -> None:
    source, copy, crashed, restored = (tmp_path / f"{name}.db" for name in ("live", "copy", "crashed", "restored"))
    async with much_in_the_log(source):
        made = back_up(source, copy, DEFAULT_LIMITS)
        for suffix in ("", "-wal"):
            shutil.copy(source.with_name(source.name + suffix), crashed.with_name(crashed.name + suffix))
    again, _ = restore(crashed, restored, DEFAULT_LIMITS)
    for file, found in ((copy, made), (restored, again)):
        assert (found.messages, found.faults) == (24, ())
        assert list(unsound_pages(file)) == []
    assert list(unsound_pages(source)) == []
    assert without_counters(copy.read_bytes()) == without_counters(source.read_bytes()), "page 1 is the source's too"


async def test_a_copy_of_a_database_without_checksums_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, copy, again = (tmp_path / f"{name}.db" for name in ("live", "copy", "again"))
    with monkeypatch.context() as old:
        old.setattr(connection, "checking_vfs", lambda: None)
        async with much_in_the_log(source):
            back_up(source, copy, DEFAULT_LIMITS)
    assert back_up(source, again, DEFAULT_LIMITS).messages == 24
    for file in (copy, again):
        raw = apsw.Connection(str(file), flags=apsw.SQLITE_OPEN_READONLY)
        assert (raw.reserve_bytes("main", -1), raw.pragma("integrity_check")) == (0, "ok")
        raw.close()
