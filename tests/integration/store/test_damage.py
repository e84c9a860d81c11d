"""Damage to one stream is that stream's alone, also within one commit."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.builders import append, appending, create, numbered, read_all
from tests.support.database import connect
from unbroken.store.base import Appended, Producer
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
