"""Forks: what they share, what they keep alive, and what deleting takes along."""

from __future__ import annotations

import pytest

from tests.support.builders import (
    ALICE,
    BOB,
    NOW_MS,
    append,
    appending,
    create,
    done,
    numbered,
    read_all,
    rejected,
    texts,
    write,
)
from unbroken.errors import AlreadyExistsError, EpochMismatchError, InvalidError, NotFoundError, TrimmedError
from unbroken.messages import Epoch, Seq, StreamId, StreamInfo
from unbroken.protocol.chain import chain
from unbroken.protocol.salts import SALT_BYTES, Salts
from unbroken.store.base import (
    Created,
    CreateStream,
    DeleteSession,
    DeleteStream,
    Fork,
    SetState,
    StreamFilter,
    StreamingMessageRepository,
    Trim,
)

pytestmark = pytest.mark.anyio
Store = StreamingMessageRepository
PLENTY = 1 << 30


def delete(stream: StreamInfo) -> DeleteStream:
    return DeleteStream(stream=stream.id, epoch=stream.epoch)


def numbers(first: int, last: int) -> list[str]:
    return [str(n) for n in range(first, last + 1)]


async def test_a_fork_reads_its_source_up_to_the_fork_and_then_itself(store: Store) -> None:
    source = await create(store, "source")
    for first, last in ((1, 3), (4, 9)):
        await append(store, source, numbered(first, last))
    fork = await create(store, "fork", fork=Fork(source.id, Seq(6)), messages=numbered(100, 101))
    await append(store, source, numbered(10, 10))
    await append(store, fork, numbered(102, 102))
    expected = [*numbers(1, 6), "100", "101", "102"]
    assert (fork.first, fork.head, fork.fork_seq, fork.forked_from) == (1, 8, 6, source.id)
    assert fork.genesis == chain(source.genesis, 1, numbered(1, 6))
    for after in range(10):
        for count in (1, 2, 100):
            page = await store.read(fork.id, Seq(after), messages_max=count, bytes_max=PLENTY)
            assert texts(page.batches) == expected[after : after + count]
            for batch in page.batches:
                assert batch.hash == await store.hash_at(fork.id, batch.last)
    everything = (*numbered(1, 6), *numbered(100, 102))
    for seq in range(10):
        assert await store.hash_at(fork.id, Seq(seq)) == chain(source.genesis, 1, everything[:seq])
    assert await read_all(store, source.id) == numbers(1, 10)


async def test_forks_of_forks_read_through_all_of_them(store: Store) -> None:
    root = await create(store, "root", messages=numbered(1, 10))
    middle = await create(store, "middle", fork=Fork(root.id, Seq(8)), messages=numbered(9, 12))
    low = await create(store, "low", fork=Fork(middle.id, Seq(3)), messages=numbered(50, 51))
    high = await create(store, "high", fork=Fork(middle.id, Seq(11)), messages=numbered(60, 60))
    assert await read_all(store, middle.id) == numbers(1, 12)
    assert await read_all(store, low.id) == ["1", "2", "3", "50", "51"]
    assert await read_all(store, high.id, step=2) == [*numbers(1, 11), "60"]
    assert await store.hash_at(low.id, Seq(2)) == await store.hash_at(root.id, Seq(2))
    await done(store, delete(middle))
    await done(store, delete(root))
    assert await read_all(store, low.id) == ["1", "2", "3", "50", "51"]
    assert await read_all(store, high.id) == [*numbers(1, 11), "60"]


async def test_forks_at_both_ends_of_the_source(store: Store) -> None:
    source = await create(store, "source", messages=numbered(1, 3))
    empty = await create(store, "empty", fork=Fork(source.id, Seq(0)))
    whole = await create(store, "whole", fork=Fork(source.id, Seq(3)))
    assert (empty.head, empty.hash, whole.hash) == (0, source.genesis, source.hash)
    await append(store, empty, numbered(7, 7))
    assert await read_all(store, empty.id) == ["7"]
    assert await read_all(store, whole.id) == ["1", "2", "3"]


async def test_a_fork_of_messages_of_the_same_write_sees_them(store: Store) -> None:
    source = await create(store, "source", messages=numbered(1, 2))
    results = await store.write(
        [
            appending(source, numbered(3, 5)),
            CreateStream(principal=ALICE, name="fork", now_ms=NOW_MS, fork=Fork(source.id, Seq(4))),
            appending(source, numbered(6, 6)),
        ]
    )
    created = results[1]
    assert isinstance(created, Created)
    assert created.stream.hash == chain(source.genesis, 1, numbered(1, 4))
    assert await read_all(store, created.stream.id) == numbers(1, 4)
    assert await read_all(store, source.id) == numbers(1, 6)


async def test_what_cannot_be_forked_says_why(store: Store) -> None:
    source = await create(store, "source", messages=numbered(1, 3))
    kept = await create(store, "kept", messages=numbered(1, 3))
    await create(store, "keeper", fork=Fork(kept.id, Seq(1)))
    await done(store, delete(kept))

    async def refusal(stream: StreamId, seq: int, principal: object = ALICE) -> type[Exception]:
        op = CreateStream(principal=principal, name="new", now_ms=NOW_MS, fork=Fork(stream, Seq(seq)))  # type: ignore[arg-type]
        return type(await rejected(store, op))

    assert await refusal(StreamId(99), 0) is NotFoundError
    assert await refusal(source.id, 1, BOB) is NotFoundError
    assert await refusal(kept.id, 1) is AlreadyExistsError
    assert await refusal(source.id, 4) is InvalidError
    assert await refusal(source.id, -1) is InvalidError
    assert await store.get(ALICE, "new") is None


async def test_a_source_with_forks_is_hidden_and_goes_with_its_last_fork(store: Store) -> None:
    source = await create(store, "source", messages=numbered(1, 5), session="s", expires_ms=NOW_MS, lease_producer="p")
    first = await create(store, "first", fork=Fork(source.id, Seq(2)))
    second = await create(store, "second", fork=Fork(source.id, Seq(4)))
    hidden = (await done(store, delete(source))).stream
    assert hidden is not None
    assert hidden.deleted
    assert await store.get(ALICE, "source") == await store.get_by_id(source.id) == hidden
    await assert_hidden(store, source)
    await done(store, DeleteSession(principal=ALICE, name="s"))
    taken = await write(store, CreateStream(principal=ALICE, name="source", now_ms=NOW_MS))
    assert taken == Created(hidden, created=False)
    await done(store, delete(first))
    assert await read_all(store, second.id) == numbers(1, 4)
    assert (await done(store, delete(second))).stream is None
    assert await store.get(ALICE, "source") is None
    assert await store.get_by_id(source.id) is None
    assert (await create(store, "source")).epoch > source.epoch


async def assert_hidden(store: Store, stream: StreamInfo) -> None:
    """A stream that only its forks keep is gone for everybody else."""
    failing = SetState(stream=stream.id, epoch=stream.epoch, state=stream.state, now_ms=NOW_MS)
    for op in (appending(stream, numbered(9, 9)), failing, delete(stream)):
        assert isinstance(await rejected(store, op), NotFoundError)
    with pytest.raises(NotFoundError):
        await store.read(stream.id, Seq(0), messages_max=1, bytes_max=1)
    with pytest.raises(NotFoundError):
        await store.hash_at(stream.id, Seq(0))
    assert await store.heads([stream.id]) == {}
    assert stream.name not in [
        s.name for s in (await store.list_streams(ALICE, StreamFilter(), limit=99, after=None)).items
    ]
    assert (await store.read_session(ALICE, StreamFilter(session="s"), limit=99, after=None)).items == ()
    assert await store.expired(NOW_MS + 9, limit=9) == []
    assert await store.leased(NOW_MS + 9, limit=9) == []


async def test_deleting_goes_up_the_chain_of_hidden_sources(store: Store) -> None:
    root = await create(store, "root", messages=numbered(1, 4))
    middle = await create(store, "middle", fork=Fork(root.id, Seq(3)))
    leaf = await create(store, "leaf", fork=Fork(middle.id, Seq(2)))
    for stream in (root, middle):
        await done(store, delete(stream))
    assert await read_all(store, leaf.id) == ["1", "2"]
    await done(store, delete(leaf))
    for stream in (root, middle, leaf):
        assert await store.get_by_id(stream.id) is None


async def test_trimming_a_source_takes_nothing_from_its_forks(store: Store) -> None:
    source = await create(store, "source")
    for n in range(1, 11):
        await append(store, source, numbered(n, n))
    fork = await create(store, "fork", fork=Fork(source.id, Seq(6)))
    await done(store, Trim(stream=source.id, epoch=source.epoch, first=Seq(9)))
    await settle(store, source)
    assert await read_all(store, fork.id) == numbers(1, 6)
    await done(store, Trim(stream=fork.id, epoch=fork.epoch, first=Seq(4)))
    await settle(store, source)
    assert await read_all(store, fork.id, after=3) == numbers(4, 6)
    assert await store.hash_at(fork.id, Seq(3)) == chain(source.genesis, 1, numbered(1, 3))
    with pytest.raises(TrimmedError):
        await store.hash_at(fork.id, Seq(2))
    late = await create(store, "late", fork=Fork(source.id, Seq(5)))
    assert late.first == 6
    page = await store.read(late.id, Seq(0), messages_max=9, bytes_max=PLENTY)
    assert (page.trimmed, page.batches) == (True, ())
    lost = CreateStream(principal=ALICE, name="lost", now_ms=NOW_MS, fork=Fork(source.id, Seq(2)))
    assert isinstance(await rejected(store, lost), TrimmedError)
    await done(store, delete(fork))
    await done(store, delete(late))
    await settle(store, source)
    with pytest.raises(TrimmedError):
        await store.hash_at(source.id, Seq(7))
    assert await read_all(store, source.id, after=8) == numbers(9, 10)


async def test_a_fork_that_no_longer_shows_what_it_shares_holds_nothing_back(store: Store) -> None:
    source = await create(store, "source")
    for n in range(1, 11):
        await append(store, source, numbered(n, n))
    fork = await create(store, "fork", fork=Fork(source.id, Seq(3)), messages=numbered(4, 9))
    await done(store, Trim(stream=fork.id, epoch=fork.epoch, first=Seq(5)))
    await done(store, Trim(stream=source.id, epoch=source.epoch, first=Seq(9)))
    await settle(store, source)
    with pytest.raises(TrimmedError):
        await store.hash_at(source.id, Seq(6))
    assert await read_all(store, fork.id, after=4) == numbers(5, 9)


async def settle(store: Store, stream: StreamInfo) -> None:
    """Space comes back in steps behind the writes that allow it; each of these calls waits for one of them."""
    for _ in range(3):
        await store.compact(stream.id)


async def test_deleting_is_checked_like_everything_else(store: Store) -> None:
    stream = await create(store, "a")
    wrong = DeleteStream(stream=stream.id, epoch=Epoch(99))
    assert isinstance(await rejected(store, wrong), EpochMismatchError)
    assert (await done(store, delete(stream))).stream is None
    assert isinstance(await rejected(store, delete(stream)), NotFoundError)
    assert isinstance(await rejected(store, appending(stream, numbered(1, 1))), NotFoundError)


async def test_a_fork_has_the_salts_of_what_it_shares_and_its_own_behind(store: Store) -> None:
    source = await create(store, "source", salt_seed=bytes(range(16)))
    await append(store, source, numbered(1, 8))
    fork = await create(store, "fork", fork=Fork(source.id, Seq(5)), salt_seed=bytes(range(16, 32)))
    mine, theirs = Salts(fork.salts), Salts(source.salts)
    assert [mine.salt(seq) == theirs.salt(seq) for seq in range(1, 10)] == [True] * 5 + [False] * 4
    assert all(len(mine.salt(seq)) == SALT_BYTES for seq in range(1, 10))
