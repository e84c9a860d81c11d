"""Tool calls through a real server with its real supervisor, and what tests ask of them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.support.inprocess import Served, served
from unbroken.limits import DEFAULT_LIMITS, Limits
from unbroken.mcp.config import HttpServer, ServerConfig, StdioServer
from unbroken.mcp.options import Options
from unbroken.mcp.source import McpServer
from unbroken.runs.catalog import Catalog
from unbroken.store.base import StreamingMessageRepository
from unbroken.testing.mcp_stdio import stdio_command

LIMITS = replace(
    DEFAULT_LIMITS,
    lease_seconds=1.5,
    run_poll_seconds=0.1,
    run_takeover_seconds=0.5,
    run_progress_seconds=0.01,
    mcp_retries_max=0,
    mcp_connect_seconds=3.0,
    mcp_start_seconds=10.0,
    mcp_close_seconds=0.3,
    mcp_start_failures_max=100,
)
CEILING_SECONDS = 100.0
SERVER = Path(__file__).parent / "servers.py"


def http(url: str, options: Options | None = None) -> ServerConfig:
    return ServerConfig(name="s", reach=HttpServer(url=url), options=options or Options())


def stdio(
    fault: str, *arguments: str, options: Options | None = None, env: Mapping[str, str] | None = None
) -> ServerConfig:
    command, args = stdio_command(fault, *arguments)
    reach = StdioServer(command=command, args=tuple(args), env=env or {})
    return ServerConfig(name="s", reach=reach, options=options or Options())


def good(*arguments: str, options: Options | None = None) -> ServerConfig:
    """A server built with the official SDK, over stdio."""
    reach = StdioServer(command=sys.executable, args=(str(SERVER), "stdio", *arguments))
    return ServerConfig(name="s", reach=reach, options=options or Options())


@dataclass
class Calls:
    """The server, and the runs on it."""

    server: Served

    async def start(self, tool: str, name: str, **arguments: Any) -> Any:
        body = {"tool": tool, "server": "s", "arguments": arguments, "name": name}
        return await self.server.answer(201, "POST", "/v1/runs", json=body)

    async def state(self, name: str) -> Any:
        return await self.server.answer(200, "GET", f"/v1/streams/{name}")

    async def messages(self, name: str) -> list[Any]:
        found: list[Any] = []
        while True:
            page = await self.server.answer(200, "GET", f"/v1/messages/{name}?after={len(found)}")
            if not page["messages"]:
                return found
            found += page["messages"]

    async def ended(self, name: str) -> End:
        async with asyncio.timeout(CEILING_SECONDS):
            while (view := await self.state(name)).get("ended") is None:
                await asyncio.sleep(0.01)
        return End(view, await self.messages(name))

    async def call(self, tool: str, name: str = "r", **arguments: Any) -> End:
        """Start, and wait for the end."""
        await self.start(tool, name, **arguments)
        return await self.ended(name)

    async def until(self, name: str, kind: str, count: int = 1) -> Any:
        """Wait for the `count`th message of this kind."""
        async with asyncio.timeout(CEILING_SECONDS):
            while len(found := [one for one in await self.messages(name) if one["kind"] == kind]) < count:
                await asyncio.sleep(0.01)
        return found[count - 1]["json"]


@dataclass
class End:
    """How a run ended, and everything that its stream holds."""

    view: Any
    messages: list[Any]

    @property
    def state(self) -> str:
        return str(self.view["state"])

    @property
    def kinds(self) -> list[str]:
        return [one["kind"] for one in self.messages]

    @property
    def last(self) -> Any:
        return self.messages[-1]["json"]

    @property
    def text(self) -> str:
        assert self.state == "completed", self.last
        return str(self.last["content"][0]["text"])

    def of(self, kind: str) -> list[Any]:
        return [one["json"] for one in self.messages if one["kind"] == kind]


@asynccontextmanager
async def calls_of(
    config: ServerConfig, limits: Limits = LIMITS, store: StreamingMessageRepository | None = None
) -> AsyncIterator[Calls]:
    source = McpServer(config, limits)
    async with served(store=store, limits=limits, catalog=Catalog([source])) as server:
        yield Calls(server)
