"""Loss of power at any operation, whatever becomes of unsynced writes: `disk` loses nothing acknowledged, `process` a tail.

Each image of the files is opened as the next start of a server would, and examined as a whole.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from tests.integration.disk.works import sound, store_at
from tests.support.builders import append, create, encoded, read_all
from unbroken.messages import StreamId
from unbroken.store.base import Durability
from unbroken.testing import DiskRecord, FaultDisk, Unsynced

pytestmark = pytest.mark.anyio

SEED = int(os.environ.get("UNBROKEN_SEED", "20261126"))
IMAGES = 2_400 if os.environ.get("UNBROKEN_SWEEP") == "full" else 240
APPENDS = 120


@dataclass(frozen=True, slots=True)
class Recorded:
    """What was done to the disk, and how many messages were acknowledged after so many operations of it."""

    record: DiskRecord
    stream: StreamId
    texts: list[str]
    marks: list[int]

    def acknowledged(self, at: int) -> int:
        return sum(1 for mark in self.marks if mark <= at)


async def recorded(path: Path, durability: Durability) -> Recorded:
    chance = Random(SEED)
    texts = [f"{number} " + "x" * chance.randrange(2_000) for number in range(APPENDS)]
    marks: list[int] = []
    record = DiskRecord()
    with FaultDisk(syncs=False, record=record):
        store = store_at(path, durability)
        await store.open()
        stream = await create(store, "a")
        await store.close()  # the stream is there for good
        begin = len(record)
        await store.open()
        for text in texts:
            await append(store, stream, [encoded(text)])
            marks.append(len(record))
        await store.compact(stream.id)
        await store.close()
    assert begin < marks[0]
    return Recorded(record, stream.id, texts, [begin, *marks])


def lay(image: dict[Path, bytes], directory: Path) -> None:
    """Make the files as the image has them."""
    for old in directory.iterdir():
        old.unlink()
    for path, content in image.items():
        (directory / path.name).write_bytes(content)


@pytest.mark.timeout(1_800 if IMAGES > 240 else 120)
@pytest.mark.parametrize("durability", [Durability.DISK, Durability.PROCESS])
async def test_240_losses_of_power_leave_a_sound_prefix(
    tmp_path: Path, durability: Durability, record_property: Callable[[str, object], None]
) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    after.mkdir()
    done = await recorded(before / "unbroken.db", durability)
    chance = Random(SEED)
    lost: Counter[Unsynced] = Counter()
    for number in range(IMAGES):
        unsynced = list(Unsynced)[number % 3]
        at = chance.randrange(done.marks[0], len(done.record) + 1)
        lay(done.record.image(at, unsynced, chance), after)
        told = f"image {number} of seed {SEED}: power lost after {at} operations, unsynced writes {unsynced}"
        store = store_at(after / "unbroken.db", durability)
        await store.open()
        found = await read_all(store, done.stream)
        await store.close()
        sound(after / "unbroken.db")
        assert found == done.texts[: len(found)], told
        acknowledged = done.acknowledged(at) - 1
        if len(found) < acknowledged:
            lost[unsynced] += 1
            assert durability is Durability.PROCESS, f"{told}: {acknowledged} acknowledged, {len(found)} there"
        if unsynced is Unsynced.KEPT:
            assert len(found) >= acknowledged, told
    if durability is Durability.PROCESS:
        assert lost[Unsynced.DROPPED], "inconclusive: the record does not tell synced from unsynced"
    record_property("images", IMAGES)
    sys.stdout.write(
        f"{durability}: {IMAGES} images, acknowledged messages lost in {sum(lost.values())} ({dict(lost)})\n"
    )
