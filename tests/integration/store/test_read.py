"""Reading: bounds, slices, trimmed prefixes, the chain at any place."""

from __future__ import annotations

import pytest

from tests.support.builders import append, appending, create, done, encoded, numbered, read_all, rejected, texts
from unbroken.errors import EpochMismatchError, InvalidError, NotFoundError, TrimmedError
from unbroken.messages import Epoch, Seq, StreamId, StreamInfo, join_encoded
from unbroken.protocol.chain import chain
from unbroken.store.base import DeleteStream, StreamingMessageRepository, Trim

pytestmark = pytest.mark.anyio
Store = StreamingMessageRepository
PLENTY = 1 << 30


async def filled(store: Store) -> StreamInfo:
    """Ten messages in appends of 1, 2, 3 and 4."""
    stream = await create(store, "a")
    for first, last in ((1, 1), (2, 3), (4, 6), (7, 10)):
        await append(store, stream, numbered(first, last))
    return stream


async def test_every_part_of_a_stream_reads_as_itself_with_the_chain_at_its_end(store: Store) -> None:
    stream = await filled(store)
    for after in range(11):
        for count in range(1, 12):
            page = await store.read(stream.id, Seq(after), messages_max=count, bytes_max=PLENTY)
            last = min(10, after + count)
            assert texts(page.batches) == [str(n) for n in range(after + 1, last + 1)]
            assert page.stream.head == 10
            if page.batches:
                assert (page.batches[0].first, page.batches[-1].last) == (after + 1, last)
            for batch in page.batches:
                assert batch.hash == chain(stream.genesis, 1, numbered(1, batch.last))
                assert batch.body == join_encoded(numbered(batch.first, batch.last))


async def test_bytes_bound_a_read_but_one_message_always_comes(store: Store) -> None:
    stream = await create(store, "a")
    long = [encoded("x" * size) for size in (10, 5_000, 10, 10)]
    await append(store, stream, long)
    await append(store, stream, numbered(5, 5))
    for after, bytes_max, last in ((0, 1, 1), (0, 60, 1), (1, 1, 2), (0, 5_120, 2), (2, 10_000, 5), (4, 1, 5)):
        page = await store.read(stream.id, Seq(after), messages_max=100, bytes_max=bytes_max)
        assert page.batches[-1].last == last, (after, bytes_max)
        body = sum(len(batch.body) for batch in page.batches)
        assert body <= bytes_max or last == after + 1
        assert page.batches[-1].hash == await store.hash_at(stream.id, Seq(last))
    seen = 0
    while seen < 5:
        page = await store.read(stream.id, Seq(seen), messages_max=100, bytes_max=90)
        assert page.batches[0].first == seen + 1
        seen = page.batches[-1].last


async def test_reading_at_the_head_is_empty_and_beyond_it_an_error(store: Store) -> None:
    stream = await filled(store)
    page = await store.read(stream.id, Seq(10), messages_max=9, bytes_max=PLENTY)
    assert (page.batches, page.trimmed) == ((), False)
    for after in (-1, 11):
        with pytest.raises(InvalidError):
            await store.read(stream.id, Seq(after), messages_max=9, bytes_max=PLENTY)
        with pytest.raises(InvalidError):
            await store.hash_at(stream.id, Seq(after))
    with pytest.raises(NotFoundError):
        await store.read(StreamId(99), Seq(0), messages_max=9, bytes_max=PLENTY)
    with pytest.raises(NotFoundError):
        await store.hash_at(StreamId(99), Seq(0))


async def test_a_trimmed_prefix_is_never_read_and_never_a_silent_hole(store: Store) -> None:
    stream = await filled(store)
    whole = [await store.hash_at(stream.id, Seq(n)) for n in range(11)]
    assert whole == [chain(stream.genesis, 1, numbered(1, n)) for n in range(11)]
    for first in range(1, 12):
        await done(store, Trim(stream=stream.id, epoch=stream.epoch, first=Seq(first)))
        await store.heads([stream.id])
        for after in range(11):
            page = await store.read(stream.id, Seq(after), messages_max=99, bytes_max=PLENTY)
            assert page.trimmed is (after < first - 1)
            assert page.stream.first == first
            assert texts(page.batches) == ([] if page.trimmed else [str(n) for n in range(after + 1, 11)])
        for seq in range(first - 1, 11):
            assert await store.hash_at(stream.id, Seq(seq)) == whole[seq]
        assert await store.hash_at(stream.id, Seq(0)) == stream.genesis
    await append(store, stream, numbered(11, 12))
    assert await read_all(store, stream.id, after=10) == ["11", "12"]


async def test_the_chain_of_what_is_physically_gone_is_an_error_and_not_a_guess(store: Store) -> None:
    stream = await filled(store)
    await done(store, Trim(stream=stream.id, epoch=stream.epoch, first=Seq(9)))
    # Giving back space is queued behind this write, so that it is done when the next write returns.
    await done(store, Trim(stream=stream.id, epoch=stream.epoch, first=Seq(9)))
    await store.compact(stream.id)
    with pytest.raises(TrimmedError) as caught:
        await store.hash_at(stream.id, Seq(5))
    assert caught.value.detail == {"first": 9}
    assert await store.hash_at(stream.id, Seq(6)) == chain(stream.genesis, 1, numbered(1, 6))
    assert await store.hash_at(stream.id, Seq(8)) == chain(stream.genesis, 1, numbered(1, 8))


async def test_trimming_backwards_changes_nothing_and_beyond_the_head_is_refused(store: Store) -> None:
    stream = await filled(store)
    await done(store, Trim(stream=stream.id, epoch=stream.epoch, first=Seq(5)))
    result = await done(store, Trim(stream=stream.id, epoch=stream.epoch, first=Seq(2)))
    assert result.stream is not None
    assert result.stream.first == 5
    for first in (0, 12):
        bad = Trim(stream=stream.id, epoch=stream.epoch, first=Seq(first))
        assert isinstance(await rejected(store, bad), InvalidError)
    assert isinstance(await rejected(store, Trim(stream=stream.id, epoch=Epoch(99), first=Seq(1))), EpochMismatchError)
    assert isinstance(await rejected(store, Trim(stream=StreamId(99), epoch=stream.epoch, first=Seq(1))), NotFoundError)


async def test_trimming_in_the_same_write_as_appending(store: Store) -> None:
    stream = await create(store, "a")
    await store.write(
        [
            appending(stream, numbered(1, 4)),
            Trim(stream=stream.id, epoch=stream.epoch, first=Seq(3)),
            appending(stream, numbered(5, 5)),
        ]
    )
    assert await read_all(store, stream.id, after=2) == ["3", "4", "5"]


async def test_heads_gives_many_at_once_and_leaves_out_what_is_gone(store: Store) -> None:
    streams = [await create(store, f"{n}", messages=numbered(1, n)) for n in range(3)]
    await done(store, DeleteStream(stream=streams[1].id, epoch=streams[1].epoch))
    found = await store.heads([streams[2].id, streams[1].id, StreamId(99), streams[0].id])
    assert {stream: info.head for stream, info in found.items()} == {streams[0].id: 0, streams[2].id: 2}
    assert await store.heads([]) == {}
