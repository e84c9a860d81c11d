"""A server with the tests' tasks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.server import ServerProcess

ROOT = Path(__file__).parents[3]


@pytest.fixture
async def tasks(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    """`unbroken serve` with tests/support/tasks.py and agent_tasks.py."""
    arguments = ("--lease", "1.5", "--tasks", "tests.support.tasks", "--tasks", "tests.support.agent_tasks")
    async with ServerProcess(tmp_path, arguments=arguments, environment={"PYTHONPATH": str(ROOT)}) as process:
        yield process
