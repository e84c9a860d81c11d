"""One connection of the mock MCP server over HTTP: requests as they come, responses as they are told.

`mcp_http` answers with it, `mcp_faults` misuses it.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["CHALLENGE", "Json", "McpRequest", "Wire", "read_request", "reset", "text"]

Json = dict[str, Any]

CHALLENGE: Final = (
    'WWW-Authenticate: Bearer realm="tools", error="invalid_token", scope="run", '
    'resource_metadata="https://auth.example/.well-known/oauth-protected-resource"\r\n'
)


@dataclass(frozen=True, slots=True)
class McpRequest:
    """One HTTP request as it came."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Json

    @property
    def id(self) -> object:
        """The id of the JSON-RPC request, None for a notification."""
        return self.body.get("id")

    @property
    def rpc(self) -> str:
        """The JSON-RPC method."""
        return str(self.body.get("method", ""))

    @property
    def tool(self) -> str:
        """The tool that is called, if one is."""
        return str(self.body.get("params", {}).get("name", "")) if self.rpc == "tools/call" else ""


class Wire:
    """Writes responses to one connection, and knows when its other end has gone."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self.left = False

    async def send(self, status: int, body: bytes, *, kind: str = "application/json", headers: str = "") -> None:
        """A whole response."""
        head = f"HTTP/1.1 {status} x\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
        await self.raw(head.encode() + body)

    async def raw(self, data: bytes) -> None:
        """Bytes as they are."""
        self.writer.write(data)
        await self.writer.drain()

    async def result(self, request: McpRequest, result: Json | None) -> None:
        """A JSON-RPC result, or the error for an unknown method."""
        if result is None:
            await self.error(request, -32601, "no such method")
        else:
            await self.send(200, json.dumps({"jsonrpc": "2.0", "id": request.id, "result": result}).encode())

    async def error(
        self, request: McpRequest, code: int, message: str, data: object = None, *, status: int = 200, headers: str = ""
    ) -> None:
        """A JSON-RPC error."""
        error = {"code": code, "message": message, "data": data}
        body = json.dumps({"jsonrpc": "2.0", "id": request.id, "error": error}).encode()
        await self.send(status, body, headers=headers)

    async def sse(self) -> None:
        """The head of an event stream that ends with the connection."""
        await self.raw(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")

    async def event(self, message: Json) -> None:
        """One event."""
        await self.raw(b"event: message\ndata: " + json.dumps(message).encode() + b"\n\n")

    async def progress(self, request: McpRequest, done: float, message: str | None = None) -> None:
        """A progress notification of the call."""
        token = request.body["params"].get("_meta", {}).get("progressToken")
        params = {"progressToken": token, "progress": done, "total": 1_000_000, "message": message or f"at {done:g}"}
        await self.event({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})

    async def gone(self) -> None:
        """Until the other end has gone."""
        with suppress(ConnectionError):
            while await self._reader.read(65_536):
                pass
        self.left = True

    async def unless_gone(self, work: Awaitable[object]) -> bool:
        """`work`, unless the other end goes first; whether it was done."""
        done, left = asyncio.ensure_future(work), asyncio.ensure_future(self.gone())  # noqa: TID251 - both are awaited
        await asyncio.wait((done, left), return_when=asyncio.FIRST_COMPLETED)
        for future in (done, left):
            future.cancel()
        await asyncio.wait((done, left))
        return not done.cancelled()


def text(words: str) -> Json:
    """A tool's result that is a text."""
    return {"content": [{"type": "text", "text": words}], "isError": False, "resultType": "complete"}


def reset(writer: asyncio.StreamWriter) -> None:
    found = writer.get_extra_info("socket")
    if found is not None:
        with suppress(OSError):
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    writer.transport.abort()


async def read_request(reader: asyncio.StreamReader) -> McpRequest | None:
    """The next request; None at the end of the connection."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    method, path, _ = first.split(" ", 2)
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return McpRequest(method, path, headers, json.loads(body) if body else {})
