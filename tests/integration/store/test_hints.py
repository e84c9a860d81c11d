"""Hints: what another process wrote is noticed soon, what we wrote ourselves never wakes us."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.integration.store.opening import keyed
from tests.support.builders import ALICE, append, create, numbered, read_all
from unbroken.limits import DEFAULT_LIMITS
from unbroken.messages import Seq
from unbroken.store.base import RESYNC, Durability
from unbroken.store.memory import MemoryStore
from unbroken.store.sqlite import SQLiteStore

pytestmark = pytest.mark.anyio


async def test_writes_of_others_are_hinted_at_and_own_writes_are_not(sqlite: SQLiteStore, path: Path) -> None:
    other = keyed(SQLiteStore(path, durability=Durability.PROCESS))
    await other.open()
    own = await create(sqlite, "own")
    hints = sqlite.hints()
    first: asyncio.Future[object] = asyncio.ensure_future(anext(hints))  # noqa: TID251
    for n in range(1, 5):
        await append(sqlite, own, numbered(n, n))
        await asyncio.sleep(DEFAULT_LIMITS.hint_poll_seconds)
        assert not first.done()
    theirs = await create(other, "theirs", messages=numbered(1, 3))
    async with asyncio.timeout(20):
        assert await first is RESYNC
    assert await read_all(sqlite, theirs.id) == ["1", "2", "3"]
    second: asyncio.Future[object] = asyncio.ensure_future(anext(hints))  # noqa: TID251
    await append(other, theirs, numbered(4, 4))
    async with asyncio.timeout(20):
        assert await second is RESYNC
    await other.close()
    await hints.aclose()  # type: ignore[attr-defined]


async def test_the_writer_never_trusts_what_it_knew_before_another_wrote(sqlite: SQLiteStore, path: Path) -> None:
    stream = await create(sqlite, "a", messages=numbered(1, 1))
    other = keyed(SQLiteStore(path, durability=Durability.PROCESS))
    await other.open()
    for n in range(2, 20, 2):
        await append(other, stream, numbered(n, n), expected_head=Seq(n - 1))
        await append(sqlite, stream, numbered(n + 1, n + 1), expected_head=Seq(n))
    assert await read_all(other, stream.id) == [str(n) for n in range(1, 20)]
    await other.close()


async def test_hints_end_with_the_store(path: Path) -> None:
    store = keyed(SQLiteStore(path, durability=Durability.PROCESS))
    await store.open()
    await create(store, "a")
    hints = store.hints()
    waiting: asyncio.Future[object] = asyncio.ensure_future(anext(hints))  # noqa: TID251
    await asyncio.sleep(0)
    await store.close()
    with pytest.raises(StopAsyncIteration):
        async with asyncio.timeout(20):
            await waiting


async def test_nobody_else_writes_to_memory() -> None:
    store = MemoryStore()
    await create(store, "a")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await anext(store.hints())
    assert await store.get(ALICE, "a") is not None
