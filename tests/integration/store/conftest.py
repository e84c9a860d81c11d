"""Owns the stores that the contract suite runs over. A test that takes `store` runs once for each of them.

With `UNBROKEN_TEST_ENCRYPTED=1` in the environment the SQLite ones are encrypted: the same suite, once more. Then a test that
leaves a database in the clear fails; the run ends with the names of those that may, and why.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.integration.store.opening import ENCRYPTED, keyed, left_in_the_clear
from unbroken.limits import DEFAULT_LIMITS, Limits
from unbroken.store.base import Durability, StreamingMessageRepository
from unbroken.store.memory import MemoryStore
from unbroken.store.sqlite import SQLiteStore

MakeStore = Callable[[Limits], Awaitable[StreamingMessageRepository]]


PLAIN: Final = {
    "test_names_become_their_owners_and_nothing_else_changes": "its schema is older than encryption",
}
"""Tests with a database that no store has opened, so that nothing in it is encrypted, and why that is right."""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say that the suite ran encrypted, and what of it did not."""
    if ENCRYPTED:
        terminalreporter.section("SQLite stores were encrypted")
        for name, reason in PLAIN.items():
            terminalreporter.line(f"not in {name}: {reason}")


@pytest.fixture(autouse=True)
def _encrypted_indeed(request: pytest.FixtureRequest) -> Iterator[None]:
    """Where the suite runs encrypted, no database that a test leaves is in the clear, unless `PLAIN` says why."""
    if not ENCRYPTED:
        yield
        return
    directory = request.getfixturevalue("tmp_path")
    yield
    found = left_in_the_clear(directory)
    name = request.node.originalname
    assert (found != []) is (name in PLAIN), f"in the clear: {found}; wrap the store in keyed(…), or name it in PLAIN"


@pytest.fixture(params=["memory", "sqlite"])
async def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[MakeStore]:
    """Makes an open, empty store with the given limits."""
    made: list[StreamingMessageRepository] = []

    async def make(limits: Limits) -> StreamingMessageRepository:
        store: StreamingMessageRepository = MemoryStore(limits)
        if request.param == "sqlite":
            store = keyed(SQLiteStore(tmp_path / f"{len(made)}.db", durability=Durability.PROCESS, limits=limits))
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
    store = keyed(SQLiteStore(path, durability=Durability.PROCESS))
    await store.open()
    yield store
    await store.close()
