"""The reference server of the protocol's authors, from npm: called over both transports, and killed in mid-call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from tests.integration.mcp.calls import LIMITS, Calls, calls_of, http
from tests.support.provision_node import Node
from tests.support.requirement import missing
from tests.support.server import free_port
from unbroken.mcp.config import ServerConfig, StdioServer
from unbroken.mcp.options import Options

pytestmark = pytest.mark.anyio

PROGRAM = Path(__file__).parents[2] / "mcp/node_modules/@modelcontextprotocol/server-everything/dist/index.js"
PATIENT = replace(LIMITS, mcp_start_seconds=40.0, mcp_connect_seconds=20.0, mcp_retries_max=2)
TOOL = "trigger-long-running-operation"


@asynccontextmanager
async def everything_over_http(node: Node, port: int) -> AsyncIterator[asyncio.subprocess.Process]:
    environment = {**node.environment(), "PORT": str(port)}
    process = await asyncio.create_subprocess_exec(
        node.path,
        PROGRAM,
        "streamableHttp",
        env=environment,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(40):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    break
                except OSError:
                    await asyncio.sleep(0.05)
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def over_stdio(node: Node, options: Options | None = None) -> ServerConfig:
    reach = StdioServer(command=str(node.path), args=(str(PROGRAM), "stdio"))
    return ServerConfig(name="s", reach=reach, options=options or Options())


@pytest.fixture(autouse=True)
def _installed() -> None:
    if not PROGRAM.is_file():
        missing("the npm packages of tests/mcp")


async def long_operation(calls: Calls) -> None:
    end = await calls.call(TOOL, duration=2, steps=4)
    assert end.text.startswith("Long running operation completed")
    assert end.of("progress")[-1]["progress"] == 4
    assert end.of("sent")[0]["protocol_version"] == "2025-11-25"


async def test_its_long_operation_tells_its_progress_over_stdio(node: Node) -> None:
    async with calls_of(over_stdio(node), PATIENT) as calls:
        await long_operation(calls)


async def test_its_long_operation_tells_its_progress_over_http(node: Node) -> None:
    port = free_port()
    async with everything_over_http(node, port), calls_of(http(f"http://127.0.0.1:{port}/mcp"), PATIENT) as calls:
        await long_operation(calls)


@pytest.mark.scenario("TC-EDGE-013")
@pytest.mark.parametrize("trusted", [False, True])
async def test_a_call_over_http_survives_its_server_only_where_it_may_be_repeated(
    node: Node, trusted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, options = free_port(), Options(trusted=trusted)
    async with calls_of(http(f"http://127.0.0.1:{port}/mcp", options), PATIENT) as calls:
        async with everything_over_http(node, port) as process:
            await calls.start(TOOL, "r", duration=4, steps=8)
            await calls.until("r", "progress")
            process.kill()
            await process.wait()
        async with everything_over_http(node, port):
            end = await calls.ended("r")
            if trusted:
                assert end.text.startswith("Long running operation completed")
                assert end.kinds.count("sent") >= 2
            else:
                assert (end.state, end.last["class"], end.last["may_have_run"]) == ("interrupted", "transport", True)


@pytest.mark.scenario("TC-EDGE-013")
async def test_a_call_over_stdio_is_repeated_in_another_process_when_its_own_is_killed(node: Node) -> None:
    async with calls_of(over_stdio(node, Options(trusted=True)), PATIENT) as calls:
        await calls.start(TOOL, "r", duration=3, steps=6)
        await calls.until("r", "progress")
        ours = [child for child in psutil.Process().children(recursive=True) if str(PROGRAM) in child.cmdline()]
        assert len(ours) == 1
        ours[0].kill()
        end = await calls.ended("r")
        assert end.text.startswith("Long running operation completed")
        assert (end.kinds.count("sent"), end.kinds.count("retry")) == (2, 1)
