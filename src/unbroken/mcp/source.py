"""The source that offers one MCP server's tools as runs. The composition root makes one for each configured server."""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

from unbroken.errors import InvalidError, UnbrokenError, UnknownRunnableError
from unbroken.limits import DEFAULT_LIMITS, Limits
from unbroken.mcp.call import ToolCall
from unbroken.mcp.client import McpClient
from unbroken.mcp.config import ServerConfig
from unbroken.mcp.credentials import HeadersHook
from unbroken.mcp.failures import Failure
from unbroken.mcp.tools import Tool
from unbroken.runs.spec import RunSpec, RunType, SourceView

__all__ = ["McpServer"]

MISSING_MAX: Final = 10


class McpServer:
    """The tools of one server; a `Source`. Nothing is started or imported before it is first used."""

    type: RunType = "tool"

    def __init__(
        self, config: ServerConfig, limits: Limits = DEFAULT_LIMITS, *, headers: HeadersHook | None = None
    ) -> None:
        """`headers` gives what is sent to an HTTP server besides its configured headers, as its `headersHelper` would."""
        self.server = config.name
        self._limits = limits
        self._client = McpClient(config, limits, headers)

    async def find(self, spec: RunSpec) -> ToolCall:
        """As `Source.find`. A server that is away is not waited for: the call itself finds out, and is tried again."""
        arguments = _arguments(spec)
        tools = await self._listed(spec.name)
        if tools is not None:
            tool = tools.get(spec.name)
            if tool is None:
                raise UnknownRunnableError(f"the MCP server {self.server!r} has no tool {spec.name!r}")
            _check(tool, arguments)
        return ToolCall(self._client, spec.name, arguments)

    async def view(self) -> SourceView:
        """As `Source.view`: the tools, asked for now, or why there are none."""
        try:
            async with asyncio.timeout(self._limits.mcp_view_seconds):
                tools = await self._client.fresh_tools()
        except TimeoutError:
            known = self._client.known_tools  # a process that is busy has them still
            if known is None:
                return self._without("it did not answer in time")
            tools = known
        except (Failure, UnbrokenError) as error:
            return self._without(self._client.redact(str(error)))
        views = tuple(tool.view(self.server) for tool in tools.values())
        return SourceView(type=self.type, server=self.server, runnables=views)

    async def close(self) -> None:
        """As `Source.close`."""
        await self._client.close()

    def _without(self, why: str) -> SourceView:
        text = f"the tools of {self.server!r} cannot be listed: {why}"[: self._limits.mcp_error_text_bytes_max]
        return SourceView(type=self.type, server=self.server, error=text)

    async def _listed(self, name: str) -> dict[str, Tool] | None:
        """The tools, listed anew when `name` is not among them; None when they cannot be had quickly."""
        known = self._client.known_tools
        if known is not None and name in known:
            return known
        try:
            async with asyncio.timeout(self._limits.mcp_view_seconds):
                return await self._client.fresh_tools()
        except (Failure, TimeoutError):
            return None


def _arguments(spec: RunSpec) -> dict[str, object]:
    try:
        return msgspec.json.decode(spec.arguments, type=dict[str, object])
    except (msgspec.DecodeError, RecursionError):
        raise InvalidError("arguments is a JSON object", field="arguments") from None


def _check(tool: Tool, arguments: dict[str, object]) -> None:
    """What the schema says of the names of arguments; the server checks the rest."""
    schema = msgspec.json.decode(tool.input_schema)
    required = schema.get("required") if isinstance(schema, dict) else None
    missing = (
        [name for name in required if isinstance(name, str) and name not in arguments]
        if isinstance(required, list)
        else []
    )
    if missing:
        names = ", ".join(missing[:MISSING_MAX])
        raise InvalidError(f"the tool {tool.name!r} needs {names}", field=f"arguments.{missing[0]}")
