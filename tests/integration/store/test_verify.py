"""`verify` names the message, or the shortest stretch that the stored hashes can tell; the damage is never outside of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.integration.store.opening import behind, keyed
from tests.support.database import connect
from tests.support.parts import ALICE, Parts, running_parts, texts
from unbroken.limits import DEFAULT_LIMITS
from unbroken.messages import Seq, StreamInfo, StreamState
from unbroken.requests import AppendOptions, NewStream
from unbroken.store.base import Close, Durability, Fork
from unbroken.store.chunks import ChunkRow, decode_chunk, encode_chunk
from unbroken.store.sqlite import SQLiteStore
from unbroken.streams import Verification

pytestmark = pytest.mark.anyio

LIMITS = replace(DEFAULT_LIMITS, read_messages_max=7, read_bytes_max=2_000)


@pytest.fixture
async def parts(path: Path) -> AsyncIterator[Parts]:
    """A real database, read in steps that are smaller than what is stored at once."""
    store = keyed(SQLiteStore(path, durability=Durability.PROCESS, limits=LIMITS))
    async with running_parts(store, limits=LIMITS) as parts:
        yield parts


async def written(parts: Parts, name: str, *sizes: int) -> StreamInfo:
    """A stream of appends of so many messages; each is stored at once. The texts are the messages' numbers."""
    stream = await parts.stream(name)
    number = 0
    for size in sizes:
        await parts.streams.append_durably(stream, texts(*[f"no {number + n:04}." for n in range(1, size + 1)]))
        number += size
    return stream


def change(path: Path, stream: StreamInfo, seq: int, *, marked: bool = False) -> None:
    """Overwrite a message in the file, and mend the checksum, as somebody skilled could who has the key, if there is one.

    Unless `marked`, the marks are not there: the rows are from before there were any.
    """
    connection = behind(path)
    old, new = f"no {seq:04}.".encode(), b"no other"
    columns = "id, n, flags, crc, hash, body, marks"
    for values in connection.all(f"SELECT {columns} FROM chunk WHERE id >> 32 = ?", (stream.id,)):
        batch = decode_chunk(ChunkRow(*values), connection.keys)  # type: ignore[arg-type]
        if old in batch.body:
            changed = replace(batch, body=batch.body.replace(old, new), marks=batch.marks if marked else b"")
            row = encode_chunk(stream.id, changed, key=connection.keys.writing(stream.id))
            connection.run(
                "UPDATE chunk SET crc = ?, body = ?, flags = ?, marks = ? WHERE id = ?",
                (row.crc, row.body, row.flags, row.marks, row.key),
            )
    connection.close()


async def verified(parts: Parts, name: str) -> Verification:
    stream = await parts.store.get(ALICE, name)
    assert stream is not None
    return await parts.streams.verify(stream)


@pytest.mark.parametrize(
    ("sizes", "seq", "stretch"),
    [
        ((1, 1, 1), 2, (2, 2)),
        ((10, 10, 10), 1, (1, 10)),
        ((10, 10, 10), 14, (11, 20)),
        ((10, 10, 10), 30, (21, 30)),
        ((100,), 5, (1, 100)),
        ((100,), 100, (1, 100)),
        ((3, 100, 3), 50, (4, 103)),
    ],
)
async def test_a_changed_message_is_in_the_stretch_that_is_named(
    parts: Parts, path: Path, sizes: tuple[int, ...], seq: int, stretch: tuple[int, int]
) -> None:
    stream = await written(parts, "a", *sizes)
    sound = await verified(parts, "a")
    assert (sound.bad, sound.bad_last, sound.checked, sound.last) == (None, None, sum(sizes), sum(sizes))
    change(path, stream, seq)
    found = await verified(parts, "a")
    assert (found.bad, found.bad_last) == stretch
    assert (found.first, found.last, found.checked) == (1, stretch[0] - 1, stretch[0] - 1)
    assert found.hash == await parts.store.hash_at(stream.id, found.last), "the chain up to what was verified"


@pytest.mark.parametrize(("sizes", "seq", "last"), [((1, 1, 1), 2, 1), ((10, 10, 10), 14, 10), ((3, 100, 3), 50, 3)])
@pytest.mark.parametrize("merged", [False, True])
async def test_by_its_mark_a_changed_message_is_told_from_its_neighbours(
    parts: Parts, path: Path, sizes: tuple[int, ...], seq: int, last: int, merged: bool
) -> None:
    stream = await written(parts, "a", *sizes)
    if merged:
        await parts.streams.append_durably(stream, [], AppendOptions(close=Close(StreamState.COMPLETED)))
        assert await parts.store.compact(stream.id)
    change(path, stream, seq, marked=True)
    found = await verified(parts, "a")
    assert (found.bad, found.bad_last, found.last) == (seq, seq, 0 if merged else last)


async def test_behind_a_trimmed_start_too(parts: Parts, path: Path) -> None:
    stream = await written(parts, "a", 10, 10)
    await parts.streams.trim(stream, 5)
    change(path, stream, 15)
    found = await verified(parts, "a")
    assert (found.first, found.bad, found.bad_last, found.checked) == (5, 11, 20, 6)


async def test_a_fork_ends_the_stretch_where_it_branches_off(parts: Parts, path: Path) -> None:
    stream = await written(parts, "source", 10, 10)
    fork = await parts.stream("fork", NewStream(fork=Fork(stream.id, Seq(14))))
    await parts.streams.append_durably(fork, texts("own"))
    change(path, stream, 12)
    assert ((await verified(parts, "fork")).bad, (await verified(parts, "fork")).bad_last) == (11, 14)
    assert ((await verified(parts, "source")).bad, (await verified(parts, "source")).bad_last) == (11, 20)


async def test_a_stored_head_that_does_not_fit_names_the_last_stretch(parts: Parts, path: Path) -> None:
    stream = await written(parts, "a", 10, 10)
    connection = connect(path)
    connection.execute("UPDATE stream SET hash = zeroblob(32) WHERE id = ?", (stream.id,))
    connection.close()
    found = await verified(parts, "a")
    assert (found.bad, found.bad_last, found.last) == (11, 20, 10)
