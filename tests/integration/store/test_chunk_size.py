"""A commit that holds much of one stream becomes several chunks, so that a bounded read costs what it reads."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import cast

import apsw
import pytest

from tests.integration.store.opening import keyed
from tests.support.builders import NOW_MS, create, read_all
from unbroken.limits import DEFAULT_LIMITS
from unbroken.protocol.chain import chain
from unbroken.store.base import Append, Appended, Durability
from unbroken.store.sqlite import SQLiteStore

pytestmark = pytest.mark.anyio
LIMITS = replace(DEFAULT_LIMITS, compact_chunk_bytes=1_000)


async def test_a_large_commit_is_stored_in_chunks_of_bounded_size(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store = keyed(SQLiteStore(path, durability=Durability.PROCESS, limits=LIMITS))
    await store.open()
    stream = await create(store, "a")
    messages = [b'{"kind":"message","time":1,"text":"%d"}' % n for n in range(1, 201)]
    ops = [
        Append(stream=stream.id, epoch=stream.epoch, messages=tuple(messages[at : at + 2]), now_ms=NOW_MS)
        for at in range(0, 200, 2)
    ]
    results = await store.write(ops)
    connection = apsw.Connection(str(path))
    found = connection.execute("SELECT id & 0xffffffff, n, hash, length(body) FROM chunk ORDER BY id").fetchall()
    rows = cast("list[tuple[int, int, bytes, int]]", found)
    connection.close()
    assert len(rows) > 5
    assert sum(row[1] for row in rows) == 200
    assert all(row[3] < 1_200 for row in rows)
    for last, _, chain_hash, _ in rows:  # each chunk ends with an append, whose hash it carries
        result = results[last // 2 - 1]
        assert isinstance(result, Appended)
        assert (result.last, result.hash) == (last, chain_hash)
        assert chain_hash == chain(stream.genesis, 1, messages[:last])
    assert await read_all(store, stream.id, step=7) == [str(n) for n in range(1, 201)]
    await store.close()


async def test_one_append_larger_than_a_chunk_is_stored_in_several(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store = keyed(SQLiteStore(path, durability=Durability.PROCESS, limits=LIMITS))
    await store.open()
    stream = await create(store, "a")
    messages = [b'{"kind":"message","time":1,"text":"%d"}' % n for n in range(1, 101)]
    messages[50] = b'{"kind":"message","time":1,"text":"%b"}' % (b"x" * 3_000)
    await store.write([Append(stream=stream.id, epoch=stream.epoch, messages=tuple(messages), now_ms=NOW_MS)])
    with closing(apsw.Connection(str(path))) as connection:
        found = connection.execute("SELECT id & 0xffffffff, hash, length(body) FROM chunk ORDER BY id").fetchall()
    rows = cast("list[tuple[int, bytes, int]]", found)
    assert len(rows) > 3
    assert sorted(row[2] for row in rows)[-2] < 1_200, "only the chunk with the large message is larger"
    for last, chain_hash, _ in rows:
        assert chain_hash == chain(stream.genesis, 1, messages[:last])
    assert (await read_all(store, stream.id, step=7))[:50] == [str(n) for n in range(1, 51)]
    await store.close()


async def test_a_stream_created_with_many_messages_is_stored_in_chunks(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store = keyed(SQLiteStore(path, durability=Durability.PROCESS, limits=LIMITS))
    await store.open()
    messages = tuple(b'{"kind":"message","time":1,"text":"%d"}' % n for n in range(1, 101))
    stream = await create(store, "a", messages=messages)
    with closing(apsw.Connection(str(path))) as connection:
        found = connection.execute("SELECT id & 0xffffffff, hash FROM chunk ORDER BY id").fetchall()
    rows = cast("list[tuple[int, bytes]]", found)
    assert len(rows) > 3
    for last, chain_hash in rows:
        assert chain_hash == chain(stream.genesis, 1, messages[:last])
    assert await read_all(store, stream.id, step=7) == [str(n) for n in range(1, 101)]
    await store.close()
