"""Owns the stores that the contract suite runs over. A test that takes `store` runs once for each of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from unbroken.limits import DEFAULT_LIMITS, Limits
from unbroken.store.base import Durability, StreamingMessageRepository
from unbroken.store.memory import MemoryStore
from unbroken.store.sqlite import SQLiteStore

MakeStore = Callable[[Limits], Awaitable[StreamingMessageRepository]]


@pytest.fixture(params=["memory", "sqlite"])
async def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[MakeStore]:
    """Makes an open, empty store with the given limits."""
    made: list[StreamingMessageRepository] = []

    async def make(limits: Limits) -> StreamingMessageRepository:
        store: StreamingMessageRepository = MemoryStore(limits)
        if request.param == "sqlite":
            store = SQLiteStore(tmp_path / f"{len(made)}.db", durability=Durability.PROCESS, limits=limits)
        made.append(store)
        await store.open()
        return store

    yield make
    for store in made:
        await store.close()


@pytest.fixture
async def store(make_store: MakeStore) -> StreamingMessageRepository:
    """An open, empty store with the limits of a server."""
    return await make_store(DEFAULT_LIMITS)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database file that does not exist yet."""
    return tmp_path / "unbroken.db"


@pytest.fixture
async def sqlite(path: Path) -> AsyncIterator[SQLiteStore]:
    """An open SQLite store on `path`."""
    store = SQLiteStore(path, durability=Durability.PROCESS)
    await store.open()
    yield store
    await store.close()
