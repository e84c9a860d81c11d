"""A copy that does not get to the disk as it was read is never kept."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from tests.integration.disk.works import LIMITS, OLD, WORKS, store_at
from tests.support.builders import ALICE, append, encoded, read_all
from unbroken.errors import CorruptError
from unbroken.store.sqlite.backup import back_up
from unbroken.store.sqlite.connection import Connection
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
