"""Compaction: readers see no difference, and the stored rows become few and large."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import apsw
import pytest

from tests.integration.store.conftest import MakeStore
from tests.integration.store.opening import keyed, keyring
from tests.support.builders import NOW_MS, append, create, done, encoded, numbered, read_all
from unbroken.limits import DEFAULT_LIMITS
from unbroken.messages import Seq, StreamInfo, StreamState
from unbroken.protocol.chain import chain
from unbroken.store.base import Batch, Close, DeleteStream, Durability, Fork, StreamingMessageRepository, Trim
from unbroken.store.memory import MemoryStore
from unbroken.store.sqlite import SQLiteStore
from unbroken.store.sqlite.ballast import Ballast
from unbroken.store.sqlite.connection import Connection
from unbroken.store.sqlite.writer import Writer
from unbroken.store.threads import InlineWorker

pytestmark = pytest.mark.anyio
Store = StreamingMessageRepository
SMALL = replace(DEFAULT_LIMITS, compact_chunks_min=4, compact_chunk_bytes=400)


async def one_by_one(store: Store, count: int) -> StreamInfo:
    stream = await create(store, "a")
    for n in range(1, count + 1):
        await append(store, stream, numbered(n, n))
    return stream


async def compacted(store: Store, stream: StreamInfo) -> int:
    """How many steps there were to do."""
    steps = 0
    while await store.compact(stream.id):
        steps += 1
        assert steps < 100
    return steps


async def assert_whole(store: Store, stream: StreamInfo, count: int) -> None:
    for after in range(count):
        page = await store.read(stream.id, Seq(after), messages_max=7, bytes_max=1 << 20)
        assert page.batches[0].first == after + 1
        for batch in page.batches:
            assert batch.hash == chain(stream.genesis, 1, numbered(1, batch.last))
    assert await read_all(store, stream.id, step=3) == [str(n) for n in range(1, count + 1)]


async def test_readers_see_no_difference_and_there_is_an_end_to_it(make_store: MakeStore) -> None:
    store = await make_store(SMALL)
    stream = await one_by_one(store, 40)
    assert await compacted(store, stream) > 0
    await assert_whole(store, stream, 40)
    assert not await store.compact(stream.id)
    await append(store, stream, numbered(41, 41))
    assert not await store.compact(stream.id)
    await append(store, stream, (), close=Close(StreamState.COMPLETED))
    await compacted(store, stream)
    await assert_whole(store, stream, 41)
    assert not await store.compact(stream.id)


async def test_few_small_chunks_wait_until_there_are_many_or_the_stream_ends(make_store: MakeStore) -> None:
    store = await make_store(DEFAULT_LIMITS)
    stream = await one_by_one(store, 63)
    assert not await store.compact(stream.id)
    await append(store, stream, numbered(64, 64))
    assert await store.compact(stream.id)
    assert not await store.compact(stream.id)
    await assert_whole(store, stream, 64)


async def test_a_fork_reads_through_compacted_chunks_of_its_source(make_store: MakeStore) -> None:
    store = await make_store(SMALL)
    stream = await one_by_one(store, 20)
    fork = await create(store, "fork", fork=Fork(stream.id, Seq(7)), messages=numbered(8, 8))
    await compacted(store, stream)
    assert await read_all(store, fork.id) == [str(n) for n in range(1, 9)]
    assert await store.hash_at(fork.id, Seq(3)) == chain(stream.genesis, 1, numbered(1, 3))


async def test_trimming_and_compacting_get_on_with_each_other(make_store: MakeStore) -> None:
    store = await make_store(SMALL)
    stream = await one_by_one(store, 30)
    for first in range(2, 30, 3):
        await done(store, Trim(stream=stream.id, epoch=stream.epoch, first=Seq(first)))
        await store.compact(stream.id)
        expected = [str(n) for n in range(first, 31)]
        assert await read_all(store, stream.id, after=first - 1) == expected
        assert await store.hash_at(stream.id, Seq(first)) == chain(stream.genesis, 1, numbered(1, first))


async def test_compacting_what_is_not_there_does_nothing(store: Store) -> None:
    stream = await create(store, "a")
    assert not await store.compact(stream.id)
    await done(store, DeleteStream(stream=stream.id, epoch=stream.epoch))
    assert not await store.compact(stream.id)


def rows(path: Path, sql: str) -> list[tuple[object, ...]]:
    connection = apsw.Connection(str(path))
    try:
        return list(connection.execute(sql))
    finally:
        connection.close()


async def test_rows_become_few_and_compressed_where_asked(path: Path) -> None:
    store = keyed(SQLiteStore(path, durability=Durability.PROCESS, compress=True))
    await store.open()
    stream = await create(store, "a", now_ms=NOW_MS)
    for n in range(300):
        await append(store, stream, [encoded("the same again and again", kind=f"k{n}")])
    assert rows(path, "SELECT count(*), max(flags & 1) FROM chunk") == [(300, 0)]
    before = await store.read(stream.id, Seq(0), messages_max=300, bytes_max=1 << 20)
    while await store.compact(stream.id):
        pass
    after = await store.read(stream.id, Seq(0), messages_max=300, bytes_max=1 << 20)
    assert b",\n".join(b.body for b in after.batches) == b",\n".join(b.body for b in before.batches)
    await store.close()
    assert rows(path, "SELECT count(*), min(flags & 1) FROM chunk") == [(1, 1)]


async def test_memory_comes_back_after_trim_and_delete() -> None:
    store = MemoryStore()
    before = batches_alive()
    trimmed, deleted = await one_by_one(store, 20), await create(store, "b", messages=numbered(1, 1))
    assert batches_alive() == before + 21
    await done(store, Trim(stream=trimmed.id, epoch=trimmed.epoch, first=Seq(16)))
    await done(store, DeleteStream(stream=deleted.id, epoch=deleted.epoch))
    assert batches_alive() == before + 5


def batches_alive() -> int:
    return sum(type(thing) is Batch for thing in gc.get_objects())


async def test_space_comes_back_after_trim_and_delete(path: Path) -> None:
    store = keyed(SQLiteStore(path, durability=Durability.PROCESS))
    await store.open()
    trimmed, deleted = await create(store, "a"), await create(store, "b")
    for n in range(1, 96):
        for stream in (trimmed, deleted):
            await append(store, stream, [encoded("x" * 4_000, kind=f"k{n}")])
    (pages,) = rows(path, "PRAGMA page_count")[0]
    await done(store, Trim(stream=trimmed.id, epoch=trimmed.epoch, first=Seq(91)))
    await done(store, DeleteStream(stream=deleted.id, epoch=deleted.epoch))
    while rows(path, "SELECT count(*) FROM garbage") != [(0,)]:
        await store.compact(trimmed.id)
    assert rows(path, "SELECT count(*) FROM chunk") == [(5,)]
    assert rows(path, "SELECT base_seq, first, head FROM stream") == [(90, 91, 95)]
    assert len(await read_all(store, trimmed.id, after=90)) == 5
    await store.close()
    (left,) = rows(path, "PRAGMA page_count")[0]
    assert isinstance(left, int)
    assert isinstance(pages, int)
    assert left < pages / 4


async def test_giving_back_goes_in_bounded_steps_and_is_taken_up_again_after_a_restart(path: Path) -> None:
    limits = replace(DEFAULT_LIMITS, delete_step_chunks_max=10)
    store = keyed(SQLiteStore(path, durability=Durability.PROCESS, limits=limits, workers=IdleWorker))
    await store.open()
    stream, kept = await one_by_one(store, 34), await create(store, "kept", messages=numbered(1, 1))
    await done(store, DeleteStream(stream=stream.id, epoch=stream.epoch))
    await store.close()
    assert rows(path, "SELECT count(*) FROM chunk") == [(35,)]
    writer = Writer(Connection(path, limits, full=False, ring=keyring()), Ballast(path, 0), limits, compress=False)
    left = []
    while writer.give_back():
        left.append(rows(path, "SELECT count(*) FROM chunk")[0][0])
    writer.close()
    assert left == [25, 15, 5, 1]
    await store.open()
    assert await read_all(store, kept.id) == ["1"]
    await store.close()


class IdleWorker:
    """Never gets round to what nobody waits for."""

    def __init__(self, name: str, pending_max: int) -> None:
        inline = InlineWorker(name, pending_max)
        self.run, self.stop = inline.run, inline.stop

    def post(self, work: Callable[[], None]) -> None:
        """Too much to do."""
