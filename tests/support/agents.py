"""Agents of the tests: the official SDK's client, talking to a real `unbroken mcp` over stdio or HTTP.

Tests of the MCP server use them. They never import that server.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil
from mcp import Client
from mcp.client.stdio import StdioServerParameters
from mcp_types import CallToolResult, TextContent

from tests.support.server import ServerProcess

__all__ = ["Agent", "McpProcess", "Mode", "agent_of", "mcp_children", "stdio_agent", "stdio_parameters", "text_of"]

CALL_SECONDS_MAX = 60.0
Mode = Literal["auto", "legacy"]


@dataclass(slots=True)
class Agent:
    """One agent's connection. Every call is bounded."""

    client: Client

    async def raw(self, tool: str, /, **arguments: Any) -> CallToolResult:
        async with asyncio.timeout(CALL_SECONDS_MAX):
            result = await self.client.call_tool(tool, arguments)
        assert isinstance(result, CallToolResult)
        return result

    async def call(self, tool: str, /, **arguments: Any) -> Any:
        """The answer of a call that succeeds; its text and its structure say the same."""
        result = await self.raw(tool, **arguments)
        text = text_of(result)
        assert not result.is_error, text
        assert json.loads(text) == result.structured_content
        return result.structured_content

    async def refused(self, tool: str, /, **arguments: Any) -> str:
        """The text of a call that is refused."""
        result = await self.raw(tool, **arguments)
        assert result.is_error, text_of(result)
        return text_of(result)

    async def read(self, stream: str, after: str = "start") -> tuple[list[Any], str]:
        """Everything behind `after` until the stream ends, and the last cursor."""
        found: list[Any] = []
        async with asyncio.timeout(CALL_SECONDS_MAX):
            while True:
                page = await self.call("read_stream", stream=stream, after=after, wait_ms=5_000)
                found += page["messages"]
                after = page["cursor"]
                if page["done"]:
                    return found, after

    async def until(self, stream: str, **wanted: Any) -> Any:
        """`get_task` as soon as it shows these fields with these values; True stands for any."""
        async with asyncio.timeout(CALL_SECONDS_MAX):
            while True:
                task = await self.call("get_task", stream=stream)
                if all(task.get(name) == value or (value is True and name in task) for name, value in wanted.items()):
                    return task
                await asyncio.sleep(0.05)


def text_of(result: CallToolResult) -> str:
    assert len(result.content) == 1
    content = result.content[0]
    assert isinstance(content, TextContent)
    return content.text


def stdio_parameters(url: str, **environment: str) -> StdioServerParameters:
    """How a host starts `unbroken mcp` for the server at `url`."""
    return StdioServerParameters(
        command=sys.executable,
        args=["-m", "unbroken", "mcp"],
        env={"UNBROKEN_SERVER": url, "PYTHONUNBUFFERED": "1", **environment},
    )


@asynccontextmanager
async def stdio_agent(url: str, *, mode: Mode = "auto", **environment: str) -> AsyncIterator[Agent]:
    """An agent with an `unbroken mcp` of its own as a child process."""
    parameters = stdio_parameters(url, **environment)
    async with Client(parameters, mode=mode) as client:
        yield Agent(client)


@asynccontextmanager
async def agent_of(url: str, *, mode: Mode = "auto") -> AsyncIterator[Agent]:
    """An agent of an MCP server at `url`."""
    async with Client(url, mode=mode) as client:
        yield Agent(client)


def mcp_children() -> list[psutil.Process]:
    """The `unbroken mcp` processes of this test process."""
    found = psutil.Process().children(recursive=True)
    return [one for one in found if one.is_running() and one.cmdline()[1:4] == ["-m", "unbroken", "mcp"]]


class McpProcess(ServerProcess):
    """`unbroken mcp --http` as a child process, for the server at `server`."""

    ready = "mcp listening on"

    def __init__(self, directory: Path, server: str, *arguments: str, **environment: str) -> None:
        super().__init__(directory, arguments=arguments, environment={"UNBROKEN_SERVER": server, **environment})

    @property
    def endpoint(self) -> str:
        return f"{self.url}/mcp"

    def _command(self) -> list[str]:
        address = f"127.0.0.1:{self.port}"
        return [sys.executable, "-m", "unbroken", "mcp", "--http", address, *self.arguments]
