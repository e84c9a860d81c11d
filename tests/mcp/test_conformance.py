"""Our MCP server against the public conformance suite of MCP, in both eras of the protocol.

The suite is told by a baseline file which scenarios are about what we do not offer; it fails when another one fails, and when
one of these passes.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.agents import McpProcess
from tests.support.provision_node import Node, find_node
from tests.support.requirement import missing
from tests.support.server import ServerProcess

pytestmark = pytest.mark.anyio
HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SUITE = HERE / "node_modules" / "@modelcontextprotocol" / "conformance" / "dist" / "index.js"
NODE_MAJOR_MIN = 22
SUITE_SECONDS_MAX = 240
SCENARIO = re.compile(r"^[✓✗] ([\w-]+): (\d+) passed, (\d+) failed$", re.MULTILINE)
PASSED = {
    "2025-11-25": {
        *("server-initialize", "ping", "tools-list", "tools-call-simple-text", "tools-call-error"),
        "dns-rebinding-protection",
    },
    "2026-07-28": {
        *("tools-list", "tools-call-simple-text", "tools-call-error", "server-sse-multiple-streams"),
        *("dns-rebinding-protection", "http-header-validation", "input-required-result-unsupported-methods"),
        "input-required-result-validate-input",
    },
}
"""What has to pass by name, so that a suite that runs less does not count."""


TASKS = {
    "tasks-lifecycle": 9,
    "tasks-capability-negotiation": 5,
    "tasks-wire-fields": 4,
    "tasks-request-state-removal": 3,
    "tasks-mrtr-input": 4,
    "tasks-request-headers": 4,
    "tasks-dispatch-and-envelope": 9,
}
"""How many checks of each scenario of the tasks extension pass.

`tasks-required-task-error` is about tools that only tasks can call, `tasks-mrtr-composition` about tools that ask before they
become tasks: we have neither. `tasks-status-notifications` holds no check yet.
"""


class FixtureProcess(McpProcess):
    """tests/mcp/fixture.py as a child process."""

    ready = "Uvicorn running on"

    def _command(self) -> list[str]:
        return [sys.executable, "-m", "tests.mcp.fixture", self.environment["UNBROKEN_SERVER"], str(self.port)]


@pytest.fixture
def modern_node() -> Node:
    """A Node that the suite runs on."""
    found = find_node(NODE_MAJOR_MIN)
    if found is None:
        missing(f"Node {NODE_MAJOR_MIN}")
    if not SUITE.is_file():
        missing("the npm packages of tests/mcp")
    return found


@pytest.fixture
async def endpoint(tmp_path: Path) -> AsyncIterator[str]:
    arguments, environment = ("--tasks", "tests.mcp.jobs"), {"PYTHONPATH": str(ROOT)}
    async with (
        ServerProcess(tmp_path, arguments=arguments, environment=environment) as server,
        FixtureProcess(tmp_path, server.url, PYTHONPATH=str(ROOT)) as process,
    ):
        yield process.endpoint


async def conformance(node: Node, results: Path, *arguments: str) -> tuple[int, str]:
    """Run the suite; its exit status and what it printed."""
    process = await asyncio.create_subprocess_exec(
        *(str(node.path), str(SUITE), "server", "--output-dir", str(results), *arguments),
        env={**node.environment(), "NO_COLOR": "1"},
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
    assert process.returncode is not None
    return process.returncode, output.decode(errors="replace")


@pytest.mark.timeout(SUITE_SECONDS_MAX + 60)
@pytest.mark.parametrize("revision", ["2025-11-25", "2026-07-28"])
async def test_what_we_offer_conforms(modern_node: Node, endpoint: str, tmp_path: Path, revision: str) -> None:
    baseline = HERE / f"baseline-{revision}.yml"
    status, output = await conformance(
        modern_node,
        tmp_path / "results",
        *("--url", endpoint, "--requirements", revision, "--expected-failures", str(baseline)),
    )
    assert status == 0, output
    outcomes = {name: (int(passed), int(failed)) for name, passed, failed in SCENARIO.findall(output)}
    assert {name for name in PASSED[revision] if outcomes.get(name, (0, 1))[1] > 0 or outcomes[name][0] == 0} == set()


@pytest.mark.timeout(SUITE_SECONDS_MAX + 60)
async def test_runs_are_tasks_as_the_extension_demands(modern_node: Node, endpoint: str, tmp_path: Path) -> None:
    baseline = HERE / "baseline-tasks.yml"
    for scenario, checks in TASKS.items():
        status, output = await conformance(
            modern_node,
            tmp_path / "results",
            *("--url", endpoint, "--scenario", scenario, "--expected-failures", str(baseline)),
        )
        assert status == 0, output
        passed = re.search(r"Passed: (\d+)/", output)
        assert passed is not None, output
        assert int(passed[1]) == checks, output


async def test_a_server_that_is_not_one_does_not_pass(modern_node: Node, tmp_path: Path) -> None:
    async with ServerProcess(tmp_path) as server:
        status, output = await conformance(
            modern_node, tmp_path / "results", "--url", f"{server.url}/mcp", "--scenario", "tools-list"
        )
    assert status != 0, output
