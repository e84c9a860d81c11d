"""The pytest plugin: the fault kit as fixtures, for tests of every kind (blocking, anyio, pytest-asyncio).

pytest loads it in every run by its entry point, so it imports nothing but pytest until a fixture is asked for. It changes
nothing of a run that uses none of its fixtures.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

import pytest

if TYPE_CHECKING:
    from unbroken.store.base import StreamingMessageRepository
    from unbroken.testing import (
        FaultDisk,
        FaultProxy,
        FaultyResolver,
        FaultyStore,
        History,
        MockMcpServer,
        MockWebSocketServer,
        ReverseProxy,
        SimulatedClock,
        SimulatedNetwork,
        TestedServer,
    )

_SEED = pytest.StashKey[int]()
T = TypeVar("T")


class RunVirtual(Protocol):
    """What the fixture `run_virtual` gives."""

    def __call__(self, main: Coroutine[object, object, T], network: SimulatedNetwork | None = None) -> T: ...


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
    from unbroken.testing import FaultProxy  # noqa: PLC0415

    def make(url: str) -> FaultProxy:
        return FaultProxy(*_place(url), seed=unbroken_seed)

    return make


@pytest.fixture
def mock_server() -> Callable[[], MockWebSocketServer]:
    """A function that makes a `MockWebSocketServer`, which misbehaves as it is told."""
    from unbroken.testing import MockWebSocketServer  # noqa: PLC0415

    return MockWebSocketServer


@pytest.fixture(params=["nginx", "haproxy"])
def reverse_proxy(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], ReverseProxy]:
    """A function that makes a real reverse proxy before an address of this machine; one run with nginx, one with HAProxy.

    The one that is not on PATH is skipped, by name.
    """
    from unbroken.testing import HaproxyProcess, NginxProcess  # noqa: PLC0415

    kind = {"nginx": NginxProcess, "haproxy": HaproxyProcess}[request.param]
    folder: Path = tmp_path_factory.mktemp(request.param)

    def make(url: str) -> ReverseProxy:
        try:
            return kind(folder, _place(url)[1])
        except FileNotFoundError as error:
            pytest.skip(f"not run: {error}")

    return make


@pytest.fixture
def unbroken_server(tmp_path_factory: pytest.TempPathFactory) -> Generator[TestedServer]:
    """A real `unbroken serve` with an empty database; `kill`, `restart`, `freeze` it as you like."""
    from unbroken.testing import TestedServer  # noqa: PLC0415

    folder: Path = tmp_path_factory.mktemp("unbroken-server")
    with TestedServer(folder) as server:
        yield server


@pytest.fixture
def fault_disk(unbroken_seed: int) -> Generator[FaultDisk]:
    """A `FaultDisk` below every database that this process opens in the test; plant faults in it, count their bites."""
    from unbroken.testing import FaultDisk  # noqa: PLC0415

    with FaultDisk(random=random.Random(unbroken_seed)) as disk:  # noqa: S311 - faults that can be repeated
        yield disk


@pytest.fixture
def faulty_store() -> Callable[[StreamingMessageRepository], FaultyStore]:
    """A function that puts a `FaultyStore` in front of a store: calls that fail, hang, come late or end unknown."""
    from unbroken.testing import FaultyStore  # noqa: PLC0415

    return FaultyStore


@pytest.fixture
def faulty_resolver() -> Callable[[dict[str, str]], FaultyResolver]:
    """A function that makes a `FaultyResolver` for names and their addresses; enter it inside the running event loop."""
    from unbroken.testing import FaultyResolver  # noqa: PLC0415

    return FaultyResolver


@pytest.fixture
def mock_mcp_server() -> Callable[..., MockMcpServer]:
    """A function that makes a `MockMcpServer` over HTTP, which misbehaves as it is told."""
    from unbroken.testing import MockMcpServer  # noqa: PLC0415

    return MockMcpServer


@pytest.fixture
def mcp_stdio_command() -> Callable[..., tuple[str, list[str]]]:
    """A function that gives the command and arguments of an MCP server over stdio with one fault (`STDIO_FAULTS`)."""
    from unbroken.testing import stdio_command  # noqa: PLC0415

    return stdio_command


@pytest.fixture
def run_virtual() -> RunVirtual:
    """A function that runs a coroutine to its end in virtual time, over a simulated network if one is given."""
    from unbroken.testing import run_virtual as run  # noqa: PLC0415

    return run


@pytest.fixture
def simulated_clock(unbroken_seed: int) -> SimulatedClock:
    """The `Clock` of a program in virtual time, which can be set; its chance has the test's seed."""
    from unbroken.testing import SimulatedClock  # noqa: PLC0415

    return SimulatedClock(random.Random(unbroken_seed))  # noqa: S311 - chance that can be repeated


def _place(url: str) -> tuple[str, int]:
    """The host and port of an address, with or without a scheme."""
    from urllib.parse import urlsplit  # noqa: PLC0415

    parts = urlsplit(url if "//" in url else f"//{url}")
    if parts.hostname is None or parts.port is None:
        raise ValueError(f"a proxy stands before host:port, not before {url!r}")
    return parts.hostname, parts.port
