"""Commands that talk to the test's server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support.commands import Commands
from tests.support.server import ServerProcess


@pytest.fixture
async def commands(server: ServerProcess, tmp_path: Path) -> AsyncIterator[Commands]:
    """`unbroken` with a home of its own and the test's running server."""
    commands = Commands(tmp_path / "home", server.url)
    yield commands
    await commands.end()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server for the tests of a file, each of which finds it as good as new by `emptied`."""
    server = ServerProcess(tmp_path_factory.mktemp("shared"))
    asyncio.run(server.start())
    yield server
    if server.running:
        asyncio.run(server.terminate())
