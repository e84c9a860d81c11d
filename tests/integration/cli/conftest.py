"""Commands that talk to the test's server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.commands import Commands
from tests.support.emptied import shared
from tests.support.server import ServerProcess

__all__ = ["commands", "shared"]


@pytest.fixture
async def commands(server: ServerProcess, tmp_path: Path) -> AsyncIterator[Commands]:
    """`unbroken` with a home of its own and the test's running server."""
    commands = Commands(tmp_path / "home", server.url)
    yield commands
    await commands.end()
