"""Durable Streams against real servers: the public conformance suite, whole, and the protocol's own JavaScript client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.inprocess import served
from tests.support.provision_node import Node
from tests.support.requirement import missing
from tests.support.server import ServerProcess
from unbroken.auth.access import Access
from unbroken.limits import DEFAULT_LIMITS

pytestmark = pytest.mark.anyio
HERE = Path(__file__).parent
VITEST = HERE / "node_modules" / "vitest" / "vitest.mjs"
CORE_TESTS = 332
OPTIONAL_GROUP = "Reserved subscription APIs"
SUITE_SECONDS_MAX = 420
LONG_POLL_SECONDS = 0.5
ORIGIN = "https://example.com"
"""From where one test of the suite sends a preflight."""
TOKEN = "sesame"


@asynccontextmanager
async def running(store: str, directory: Path, token: str | None) -> AsyncIterator[str]:
    """The URL of a server: of this process on the in-memory store, else of one of its own on SQLite."""
    async with AsyncExitStack() as stack:
        if store == "memory":
            limits = replace(DEFAULT_LIMITS, long_poll_seconds=LONG_POLL_SECONDS)
            access = Access(token=token, allow_origins=frozenset({ORIGIN}))
            yield f"http://127.0.0.1:{(await stack.enter_async_context(served(limits=limits, access=access))).port}"
            return
        process = ServerProcess(
            directory,
            durability=store,
            arguments=("--long-poll-timeout", str(LONG_POLL_SECONDS), "--allow-origin", ORIGIN),
            environment={"UNBROKEN_TOKEN": token} if token else {},
        )
        yield (await stack.enter_async_context(process)).url


async def vitest(node: Node, file: str, url: str, report: Path, token: str | None = None) -> list[Any]:
    """Every test of `file` with its name and outcome."""
    if not VITEST.is_file():
        missing("the npm packages of tests/conformance")
    environment = {
        **node.environment(),
        "UNBROKEN_URL": url,
        "UNBROKEN_REPORT": str(report),
        "CI": "1",
        "NO_COLOR": "1",
    }
    if token is not None:
        environment["UNBROKEN_TOKEN"] = token
    process = await asyncio.create_subprocess_exec(
        node.path,
        VITEST,
        "run",
        file,
        cwd=HERE,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(SUITE_SECONDS_MAX):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return outcomes(report, output)


def outcomes(report: Path, output: bytes) -> list[Any]:
    """What vitest wrote down; without a report, its output says why."""
    assert report.is_file(), output.decode(errors="replace")
    return [test for file in json.loads(report.read_text())["testResults"] for test in file["assertionResults"]]


def assert_conformant(tests: list[Any]) -> None:
    """Each core test is there once and has passed; only the optional group may have been skipped."""
    core = [test for test in tests if OPTIONAL_GROUP not in test["ancestorTitles"]]
    failed = [
        f"{test['status']}: {test['fullName']}: {''.join(test['failureMessages'])[:500]}"
        for test in core
        if test["status"] != "passed"
    ]
    assert failed == []
    assert len({test["fullName"] for test in core}) == len(core) == CORE_TESTS
    assert len(tests) - len(core) == 6


@pytest.mark.timeout(SUITE_SECONDS_MAX + 120)
@pytest.mark.parametrize(
    ("store", "token"),
    [
        pytest.param("memory", None, id="memory"),
        pytest.param("process", None, id="sqlite-process"),
        pytest.param("disk", TOKEN, id="sqlite-disk-with-token"),
    ],
)
async def test_every_core_test_of_the_public_suite_passes(
    node: Node, tmp_path: Path, store: str, token: str | None
) -> None:
    async with running(store, tmp_path, token) as url:
        tests = await vitest(node, "ds.test.mjs", url, tmp_path / "report.json", token)
    assert_conformant(tests)


async def test_the_javascript_client_of_the_protocol_works(node: Node, tmp_path: Path) -> None:
    async with running("process", tmp_path, None) as url:
        tests = await vitest(node, "client.test.mjs", url, tmp_path / "report.json")
    assert [test["failureMessages"] for test in tests if test["status"] != "passed"] == []
    assert len(tests) == 6


def outcome(name: str, status: str = "passed", group: str = "Group") -> dict[str, Any]:
    return {"fullName": name, "status": status, "ancestorTitles": [group], "failureMessages": []}


OPTIONAL = [outcome(f"optional {number}", "skipped", OPTIONAL_GROUP) for number in range(6)]
PASSED = [outcome(f"core {number}") for number in range(CORE_TESTS)]


@pytest.mark.parametrize(
    "tests",
    [
        pytest.param([*PASSED[1:], outcome("core 0", "failed"), *OPTIONAL], id="one failed"),
        pytest.param([*PASSED[1:], outcome("core 0", "skipped"), *OPTIONAL], id="one skipped"),
        pytest.param([*PASSED[1:], *OPTIONAL], id="one missing"),
        pytest.param([*PASSED[1:], PASSED[1], *OPTIONAL], id="one twice"),
        pytest.param([*PASSED, *OPTIONAL[1:]], id="an optional one missing"),
        pytest.param([], id="nothing ran"),
    ],
)
def test_a_run_that_is_not_whole_does_not_count(tests: list[Any]) -> None:
    assert_conformant([*PASSED, *OPTIONAL])
    with pytest.raises(AssertionError):
        assert_conformant(tests)
