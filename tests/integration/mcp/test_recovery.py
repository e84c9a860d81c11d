"""Tool calls across `kill -9` and restarts of our own server: resumed where that is right, else ended with the truth."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from tests.integration.mcp.calls import SERVER
from tests.integration.mcp.test_calls import http_server
from tests.support.server import ServerProcess, free_port
from unbroken import Client
from unbroken.client.runs import RunOptions
from unbroken.testing.mcp_http import McpFault, MockMcpServer

pytestmark = pytest.mark.anyio

CEILING_SECONDS = 60.0


@asynccontextmanager
async def serving(directory: Path, entry: dict[str, Any]) -> AsyncIterator[tuple[ServerProcess, Client]]:
    """Our server as a process, with one MCP server in its configuration."""
    config = directory / "mcp.json"
    config.write_text(json.dumps({"mcpServers": {"s": entry}}))
    arguments = ("--lease", "1.5", "--mcp-config", str(config))
    async with ServerProcess(directory, arguments=arguments) as process, Client(process.url) as client:
        yield process, client


async def start(client: Client, tool: str, **arguments: Any) -> None:
    await client.runs.tool("s", tool, arguments, RunOptions(name="r"))


async def until(client: Client, kind: str) -> Any:
    async with asyncio.timeout(CEILING_SECONDS):
        while True:
            page = await client.read("r")
            for message in page.messages:
                if message.kind == kind:
                    assert isinstance(message.json, msgspec.Raw)
                    return msgspec.json.decode(message.json)
            await asyncio.sleep(0.02)


async def followed(client: Client) -> tuple[list[Any], str]:
    async with asyncio.timeout(CEILING_SECONDS):
        messages = client.follow("r")
        found = [message async for message in messages]
    assert messages.state is not None
    return found, str(messages.state.state)


def kinds(found: list[Any]) -> list[str]:
    return [message.kind for message in found]


def text(found: list[Any]) -> str:
    return str(found[-1].json["content"][0]["text"])


@pytest.mark.scenario("TC-EDGE-013")
@pytest.mark.parametrize("repeatable", [False, True], ids=["not repeatable", "repeatable"])
async def test_a_call_in_flight_when_we_die_goes_on_only_if_it_may_be_repeated(
    tmp_path: Path, repeatable: bool
) -> None:
    async with MockMcpServer(McpFault.SSE_HANG, hints={"readOnlyHint": True}).running() as mock:
        entry = {"type": "http", "url": mock.url, "unbroken": {"trusted": repeatable}}
        async with serving(tmp_path, entry) as (server, client):
            await start(client, "faulty")
            await until(client, "progress")
            mock.fault = McpFault.NONE
            await server.restart(kill=True)
            found, state = await followed(client)
            if repeatable:
                assert (state, text(found), mock.calls["faulty"]) == ("completed", "fine", 2)
                assert kinds(found).count("sent") == 2
            else:
                assert (state, mock.calls["faulty"]) == ("interrupted", 1)
                assert found[-1].json == {"cause": "worker_lost", "may_have_run": True}
            assert mock.cancelled == 1, "the old protocol's last call was cut by our death"


@pytest.mark.scenario("TC-EDGE-013")
@pytest.mark.parametrize("stop", ["kill", "terminate"])
async def test_a_task_of_the_server_is_asked_for_by_its_saved_id(tmp_path: Path, stop: str) -> None:
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    port = free_port()
    entry = {"type": "http", "url": f"http://127.0.0.1:{port}/mcp"}
    async with http_server(f"{tasks}/", port=port), serving(tmp_path, entry) as (server, client):
        await start(client, "job")
        task = await until(client, "task")
        if stop == "kill":
            await server.restart(kill=True)
        else:
            assert await server.terminate() == 0
            await server.start()
        (tasks / "release").touch()
        found, state = await followed(client)
        assert (state, text(found)) == ("completed", '"done"')
        assert (kinds(found).count("sent"), kinds(found).count("task")) == (1, 1)
        assert kinds(found).count("started") == 2
        assert [path.stem for path in tasks.glob("*.json")] == [task["taskId"]], "it was called once"
        assert not (tasks / "cancelled").exists()


@pytest.mark.scenario("TC-EDGE-013")
@pytest.mark.parametrize("how", ["http", "stdio"])
async def test_an_open_question_survives_our_death_and_its_answer_ends_the_call(tmp_path: Path, how: str) -> None:
    async with http_server() as port:
        entry: dict[str, Any] = {"type": "http", "url": f"http://127.0.0.1:{port}/mcp"}
        if how == "stdio":
            entry = {"command": sys.executable, "args": [str(SERVER), "stdio"]}
        async with serving(tmp_path, entry) as (server, client):
            await start(client, "ask")
            question = await until(client, "input_required")
            await server.restart(kill=True)
            await client.runs.answer("r", question["id"], {"name": "Ada"})
            found, state = await followed(client)
            assert (state, text(found)) == ("completed", "accept: Ada")
            assert kinds(found).count("input_required") == 1
            assert kinds(found).count("sent") == 2


@pytest.mark.scenario("TC-EDGE-013")
async def test_a_server_process_killed_in_mid_call_ends_the_call_and_the_next_one_gets_another(tmp_path: Path) -> None:
    entry = {"command": sys.executable, "args": [str(SERVER), "stdio"]}
    async with serving(tmp_path, entry) as (_, client):
        await start(client, "slow", steps=10_000, pause=0.05)
        await until(client, "progress")
        ours = [child for child in psutil.Process().children(recursive=True) if str(SERVER) in child.cmdline()]
        assert len(ours) == 1
        ours[0].kill()
        found, state = await followed(client)
        assert (state, found[-1].json["class"], found[-1].json["may_have_run"]) == ("interrupted", "transport", True)
        again = await client.runs.tool("s", "add", {"left": 2, "right": 3}, RunOptions(name="again"))
        async with asyncio.timeout(CEILING_SECONDS):
            while (await client.state(again.stream)).state != "completed":
                await asyncio.sleep(0.02)
