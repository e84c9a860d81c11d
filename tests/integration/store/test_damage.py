"""Damage to one stream is that stream's alone, also within one commit."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.store.opening import keyed
from tests.support.builders import ALICE, NOW_MS, append, appending, create, numbered, read_all
from tests.support.database import connect
from unbroken.errors import CorruptError
from unbroken.messages import Seq, StreamId
from unbroken.store.base import (
    Appended,
    CreateStream,
    Done,
    Durability,
    Fork,
    Producer,
    PutSession,
    Rejected,
    StreamingMessageRepository,
    Touch,
    Trim,
)
from unbroken.store.sqlite import SQLiteStore

pytestmark = pytest.mark.anyio


async def test_a_repeat_whose_chunk_is_damaged_is_answered_and_harms_no_other_stream(
    sqlite: SQLiteStore, path: Path
) -> None:
    stream, healthy = await create(sqlite, "a"), await create(sqlite, "b")
    op = appending(stream, numbered(1, 2), producer=Producer("p", 0, 0))
    await sqlite.write([op])
    await append(sqlite, stream, numbered(3, 3))
    connection = connect(path)
    connection.execute("UPDATE chunk SET body = zeroblob(length(body)) WHERE id = ?", (stream.id << 32 | 2,))
    connection.close()
    repeat, other = await sqlite.write([op, appending(healthy, numbered(1, 1))])
    assert isinstance(repeat, Appended)
    assert (repeat.duplicate, repeat.first, repeat.last, repeat.hash) == (True, 1, 2, b"")
    assert isinstance(other, Appended)
    assert await read_all(sqlite, healthy.id) == ["1"]


SEALED_DAMAGE = {
    "no key": "DELETE FROM stream_key WHERE stream_id = ?",
    "another key": "UPDATE stream_key SET wrapped = zeroblob(length(wrapped)) WHERE stream_id = ?",
    "a text": "UPDATE stream SET metadata = 'sealed:AAAA' WHERE id = ?",
}


@pytest.fixture(params=SEALED_DAMAGE)
async def encrypted(request: pytest.FixtureRequest, path: Path) -> AsyncIterator[StreamingMessageRepository]:
    """An encrypted store with two streams alike, but that nobody can open the first any more."""
    store = keyed(SQLiteStore(path, durability=Durability.PROCESS), encrypted=True)
    await store.open()
    facts: dict[str, Any] = {
        "metadata": '{"m":1}',
        "run": "{}",
        "lease_producer": "p",
        "lease_until_ms": NOW_MS,
        "expires_ms": NOW_MS,
    }
    for name in ("a", "b"):
        await create(store, name, messages=numbered(1, 2), **facts)
    connection = connect(path)
    connection.execute(SEALED_DAMAGE[request.param], (1,))
    connection.close()
    yield store
    await store.close()


async def test_what_cannot_be_opened_is_left_out_or_told_and_everything_else_is_there(
    encrypted: StreamingMessageRepository,
) -> None:
    late = NOW_MS + 1
    for found in (
        await encrypted.leased(late, limit=1),
        await encrypted.expired(late, limit=1),
        await encrypted.active_runs(StreamId(0), limit=1),
    ):
        assert [info.name for info in found] == ["b"]
    everything = await encrypted.all_streams(StreamId(0), limit=9)
    assert [(info.name, info.head, info.metadata) for info in everything] == [("a", 2, "{}"), ("b", 2, '{"m":1}')]
    heads = await encrypted.heads([StreamId(1), StreamId(2)])
    assert [(info.name, info.head, info.metadata) for info in heads.values()] == [("a", 2, "{}"), ("b", 2, '{"m":1}')]
    assert await read_all(encrypted, StreamId(2)) == ["1", "2"]
    with pytest.raises(CorruptError) as caught:
        await read_all(encrypted, StreamId(1))
    assert caught.value.detail["stream"] == 1


async def test_a_commit_refuses_what_is_about_a_stream_that_cannot_be_opened_and_nothing_else(
    encrypted: StreamingMessageRepository,
) -> None:
    one, two = (await encrypted.heads([StreamId(1), StreamId(2)])).values()
    create_one = CreateStream(principal=ALICE, name="a", now_ms=NOW_MS)
    *refused, appended = await encrypted.write(
        [
            appending(one, numbered(3, 3)),
            Touch(stream=one.id, now_ms=NOW_MS),
            create_one,
            appending(two, numbered(3, 3)),
        ]
    )
    assert [type(result.error) for result in refused if isinstance(result, Rejected)] == [CorruptError] * 3
    assert isinstance(appended, Appended)
    assert await read_all(encrypted, two.id) == ["1", "2", "3"]


async def test_a_source_is_trimmed_though_its_fork_cannot_be_opened_and_keeps_what_that_may_need(path: Path) -> None:
    store = keyed(SQLiteStore(path, durability=Durability.PROCESS), encrypted=True)
    await store.open()
    source, other = await create(store, "source", messages=numbered(1, 2)), await create(store, "other")
    await append(store, source, numbered(3, 4))
    fork = await create(store, "fork", fork=Fork(source.id, Seq(3)), metadata='{"m":1}')
    connection = connect(path)
    connection.execute("UPDATE stream SET metadata = 'sealed:AAAA' WHERE id = ?", (fork.id,))
    trim = Trim(stream=source.id, epoch=source.epoch, first=Seq(4))
    trimmed, appended = await store.write([trim, appending(other, numbered(1, 1))])
    assert isinstance(trimmed, Done)
    assert isinstance(appended, Appended)
    assert await read_all(store, source.id, after=3) == ["4"]
    assert list(connection.execute("SELECT count(*) FROM chunk WHERE id >> 32 = ?", (source.id,))) == [(2,)]
    connection.close()
    await store.close()


async def test_a_session_whose_text_cannot_be_opened_harms_no_other(path: Path) -> None:
    store = keyed(SQLiteStore(path, durability=Durability.PROCESS), encrypted=True)
    await store.open()
    await store.write([PutSession(principal=ALICE, name=name, metadata='{"m":1}', now_ms=NOW_MS) for name in "st"])
    connection = connect(path)
    connection.execute("UPDATE session SET metadata = 'sealed:AAAA' WHERE name = 's'")
    connection.close()
    refused, done = await store.write(
        [PutSession(principal=ALICE, name=name, metadata='{"m":2}', now_ms=NOW_MS) for name in "st"]
    )
    assert isinstance(refused, Rejected)
    assert isinstance(refused.error, CorruptError)
    assert isinstance(done, Done)
    await store.close()
