"""Our client and our server beside the SDK of the old protocol: progress, logs and results come through, versions are named.

npm's server of the old protocol is called in `test_everything`, an SDK server of the new one in `test_calls`.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.integration.mcp.calls import LIMITS, Calls, calls_of, http
from tests.support.agents import McpProcess
from tests.support.provision_mcp_legacy import LegacySdk
from tests.support.server import ServerProcess, free_port
from unbroken.mcp.config import ServerConfig, StdioServer

pytestmark = [pytest.mark.anyio, pytest.mark.scenario("TC-EDGE-014")]

ROOT = Path(__file__).parents[3]
PROGRAMS = ROOT / "tests" / "mcp_legacy"
PATIENT = replace(LIMITS, mcp_start_seconds=40.0, mcp_connect_seconds=20.0)
OLD = "2025-11-25"


@asynccontextmanager
async def old_server(sdk: LegacySdk, how: str) -> AsyncIterator[Calls]:
    """A source with a server of the old SDK."""
    program = str(PROGRAMS / "server.py")
    if how == "stdio":
        reach = StdioServer(command=str(sdk.python), args=(program, "stdio"))
        async with calls_of(ServerConfig(name="s", reach=reach), PATIENT) as calls:
            yield calls
        return
    port = free_port()
    process = await asyncio.create_subprocess_exec(sdk.python, program, "http", str(port))
    try:
        async with asyncio.timeout(40):
            while not await listens(port):
                await asyncio.sleep(0.05)
        async with calls_of(http(f"http://127.0.0.1:{port}/mcp"), PATIENT) as calls:
            yield calls
    finally:
        process.kill()
        await process.wait()


async def listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


@pytest.mark.parametrize("how", ["stdio", "http"])
async def test_our_client_calls_a_server_of_the_old_sdk(mcp_legacy: LegacySdk, how: str) -> None:
    assert mcp_legacy.version.startswith("1.30.")
    async with old_server(mcp_legacy, how) as calls:
        end = await calls.call("slow", steps=5)
        assert end.text == "5 steps"
        (sent,) = end.of("sent")
        assert (sent["protocol_version"], sent["server"]["name"], sent["transport"]) == (OLD, "old", how)
        assert sent["annotations"] == {"readOnlyHint": True}
        assert [one["text"] for one in end.of("log")] == [f"logged {step}" for step in range(1, 6)]
        told = end.of("progress")
        assert told[-1] == {"progress": 5, "total": 5, "message": "step 5"}
        assert [one["progress"] for one in told] == sorted(one["progress"] for one in told)


async def told_by(sdk: LegacySdk, *target: str, **environment: str) -> Any:
    """What a host of the old SDK says of our server."""
    process = await asyncio.create_subprocess_exec(
        sdk.python,
        PROGRAMS / "client.py",
        *target,
        stdout=asyncio.subprocess.PIPE,
        env={**environment, "PATH": "/usr/bin:/bin"},
    )
    try:
        async with asyncio.timeout(60):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0
    return json.loads(output)


@pytest.mark.parametrize("how", ["stdio", "http"])
async def test_a_host_of_the_old_sdk_reads_a_run_of_ours_to_its_end(
    mcp_legacy: LegacySdk, how: str, tmp_path: Path
) -> None:
    arguments, environment = ("--tasks", "tests.support.tasks"), {"PYTHONPATH": str(ROOT)}
    async with ServerProcess(tmp_path, arguments=arguments, environment=environment) as server:
        if how == "stdio":
            told = await told_by(mcp_legacy, sys.executable, "-m", "unbroken", "mcp", UNBROKEN_SERVER=server.url)
        else:
            (tmp_path / "mcp").mkdir()
            async with McpProcess(tmp_path / "mcp", server.url) as process:
                told = await told_by(mcp_legacy, process.endpoint)
    assert (told["sdk"], told["protocol"], told["state"]) == (mcp_legacy.version, OLD, "completed")
    words = [one["text"].strip() for one in told["messages"] if one["kind"] == "text"]
    assert words == [str(number) for number in range(1, 21)]
    assert told["task"]["progress"]["progress"] == 20
