"""A server with the tests' tasks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support.emptied import lasting
from tests.support.server import ServerProcess

ROOT = Path(__file__).parents[3]


@pytest.fixture
async def tasks(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    """`unbroken serve` with tests/support/tasks.py and agent_tasks.py."""
    async with with_tasks(tmp_path) as process:
        yield process


@pytest.fixture(scope="module")
def shared_tasks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """The same, once for the tests of a file; each finds it as good as new by `emptied`."""
    yield from lasting(with_tasks(tmp_path_factory.mktemp("shared")))


def with_tasks(directory: Path) -> ServerProcess:
    arguments = ("--lease", "1.5", "--tasks", "tests.support.tasks", "--tasks", "tests.support.agent_tasks")
    return ServerProcess(directory, arguments=arguments, environment={"PYTHONPATH": str(ROOT)})
