"""What docs/howto/mcp.md tells readers to paste is pasted here: the task, the host's files, and an agent that uses them."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters

from tests.docs.blocks import ROOT, blocks
from tests.support.agents import Agent, McpProcess
from tests.support.server import ServerProcess

pytestmark = pytest.mark.anyio
DOCUMENT = "docs/howto/mcp.md"


def the(language: str, number: int) -> str:
    (found,) = [one.text for one in blocks(DOCUMENT) if (one.language, one.number) == (language, number)]
    return found


def configured(number: int) -> Any:
    return json.loads(the("json", number))["mcpServers"]["unbroken"]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    _, serve = the("sh", 1).splitlines()
    assert serve.split()[:2] == ["unbroken", "serve"]
    (tmp_path / "work.py").write_text(the("python", 1), encoding="utf-8")
    async with ServerProcess(
        tmp_path, arguments=serve.split()[2:], environment={"PYTHONPATH": str(tmp_path)}
    ) as process:
        yield process


async def writes_a_report(agent: Agent) -> None:
    begun = await agent.call("start_task", task="report", arguments={"pages": 3})
    found, _ = await agent.read(begun["stream"], begun["cursor"])
    assert [one["text"] for one in found if one["kind"] == "text"] == ["page 1\n", "page 2\n", "page 3\n"]


async def test_the_file_of_a_host_over_stdio(server: ServerProcess) -> None:
    host = configured(1)
    assert host["command"] == "unbroken"
    assert host["env"].keys() == {"UNBROKEN_SERVER"}
    parameters = StdioServerParameters(
        command=str(Path(sys.executable).parent / host["command"]),
        args=host["args"],
        env={"UNBROKEN_SERVER": server.url},
    )
    async with Client(parameters) as client:
        await writes_a_report(Agent(client))


async def test_the_file_of_a_host_over_http(server: ServerProcess, tmp_path: Path) -> None:
    host = configured(2)
    async with McpProcess(tmp_path, server.url) as process, Client(process.endpoint) as client:
        await writes_a_report(Agent(client))
        assert process.endpoint.endswith(host["url"].rpartition(":")[2].partition("/")[2])
    assert host["type"] == "http"


async def test_the_document_names_every_tool(server: ServerProcess, tmp_path: Path) -> None:
    text = (ROOT / DOCUMENT).read_text(encoding="utf-8")
    async with McpProcess(tmp_path, server.url) as process, Client(process.endpoint) as client:
        names = [tool.name for tool in (await client.list_tools()).tools]
    assert [name for name in names if f"| `{name}` |" not in text] == []
