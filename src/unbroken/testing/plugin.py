"""The pytest plugin: the fault kit as fixtures, for tests of every kind (blocking, anyio, pytest-asyncio).

pytest loads it in every run by its entry point, so it imports nothing but pytest until a fixture is asked for. It changes
nothing of a run that uses none of its fixtures.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from unbroken.testing import FaultProxy, History, MockWebSocketServer, TestedServer

_SEED = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """One option, for repeating what chance did."""
    group = parser.getgroup("unbroken", "the fault kit of Unbroken")
    group.addoption("--unbroken-seed", type=int, default=None, help="the seed of the fault kit's choices [a new one]")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None]:
    """A test that failed says with which seed it did."""
    outcome = yield
    report: pytest.TestReport = outcome.get_result()  # type: ignore[attr-defined]
    seed = item.stash.get(_SEED, None)
    if report.failed and seed is not None:
        report.sections.append(("unbroken fault kit", f"repeat with --unbroken-seed={seed}"))


@pytest.fixture
def unbroken_seed(request: pytest.FixtureRequest) -> int:
    """The seed of this test's faults: `--unbroken-seed`, or a new one, which a failure then tells."""
    given: int | None = request.config.getoption("--unbroken-seed")
    seed = random.SystemRandom().getrandbits(32) if given is None else given
    request.node.stash[_SEED] = seed
    return seed


@pytest.fixture
def history() -> History:
    """An empty `History`; record into it, then `history.check().raise_if_failed()`."""
    from unbroken.testing import History  # noqa: PLC0415 - see the module's docstring

    return History()


@pytest.fixture
def fault_proxy(unbroken_seed: int) -> Callable[[str], FaultProxy]:
    """A function that puts a `FaultProxy` with the test's seed in front of an address (http://127.0.0.1:8000)."""
    from urllib.parse import urlsplit  # noqa: PLC0415

    from unbroken.testing import FaultProxy  # noqa: PLC0415

    def make(url: str) -> FaultProxy:
        parts = urlsplit(url if "//" in url else f"//{url}")
        if parts.hostname is None or parts.port is None:
            raise ValueError(f"a fault proxy stands before host:port, not before {url!r}")
        return FaultProxy(parts.hostname, parts.port, seed=unbroken_seed)

    return make


@pytest.fixture
def mock_server() -> Callable[[], MockWebSocketServer]:
    """A function that makes a `MockWebSocketServer`, which misbehaves as it is told."""
    from unbroken.testing import MockWebSocketServer  # noqa: PLC0415

    return MockWebSocketServer


@pytest.fixture
def unbroken_server(tmp_path_factory: pytest.TempPathFactory) -> Generator[TestedServer]:
    """A real `unbroken serve` with an empty database; `kill`, `restart`, `freeze` it as you like."""
    from unbroken.testing import TestedServer  # noqa: PLC0415

    folder: Path = tmp_path_factory.mktemp("unbroken-server")
    with TestedServer(folder) as server:
        yield server
