"""Owns the stores that the contract suite runs over. A test that takes `store` runs once for each of them.

With `UNBROKEN_TEST_ENCRYPTED=1` in the environment the SQLite ones are encrypted: the same suite, once more.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from unbroken.limits import DEFAULT_LIMITS, Limits
from unbroken.store.base import Durability, StreamingMessageRepository
from unbroken.store.keys import MasterKeys, new_master_key
from unbroken.store.memory import MemoryStore
from unbroken.store.sqlite import SQLiteStore

MakeStore = Callable[[Limits], Awaitable[StreamingMessageRepository]]


def encrypt(store: SQLiteStore) -> None:
    """Where that is asked for."""
    if os.environ.get("UNBROKEN_TEST_ENCRYPTED"):
        store.encrypt_with(MasterKeys.parse(new_master_key()))


@pytest.fixture(params=["memory", "sqlite"])
async def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[MakeStore]:
    """Makes an open, empty store with the given limits."""
    made: list[StreamingMessageRepository] = []

    async def make(limits: Limits) -> StreamingMessageRepository:
        store: StreamingMessageRepository = MemoryStore(limits)
        if request.param == "sqlite":
            store = SQLiteStore(tmp_path / f"{len(made)}.db", durability=Durability.PROCESS, limits=limits)
            encrypt(store)
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
    encrypt(store)
    await store.open()
    yield store
    await store.close()
