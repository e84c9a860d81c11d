"""An MCP server over HTTP that misbehaves as it is told, for the tests of whatever calls tools.

It speaks both eras of the protocol well enough to be called, and each fault bites the tool `faulty` only: so a test sees that
another call, of `steady`, survives. `bitten` counts how often a fault had its effect.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Final

from unbroken.testing.mcp_faults import FAULTS, McpFault, task_of
from unbroken.testing.mcp_wire import CHALLENGE, Json, McpRequest, Wire, read_request, reset, text

__all__ = ["McpFault", "McpRequest", "MockMcpServer"]

MODERN: Final = "2026-07-28"
LEGACY: Final = "2025-11-25"
UNKNOWN: Final = "1999-01-01"
STOP_SECONDS_MAX: Final = 5.0


class MockMcpServer:
    """One server on a port of its own. `fault` may change at any time; `token`, when set, is wanted in every request.

    `release` lets calls of `steady` end. `calls` counts calls by tool, `cancelled` those whose caller went away, and
    `requests` holds what came. `said_all` is set when `SPOKEN` has sent all its words.
    """

    def __init__(
        self, fault: McpFault = McpFault.NONE, *, era: str = "modern", hints: Mapping[str, bool] | None = None
    ) -> None:
        self.fault = fault
        self.era = era
        self.token: str | None = None
        self.hints = dict(hints or {})
        self.calls: Counter[str] = Counter()
        self.bitten = 0
        self.cancelled = 0
        self.requests: list[McpRequest] = []
        self.called = asyncio.Event()
        self.said_all = asyncio.Event()
        self.release = asyncio.Event()
        self.port = 0
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.StreamWriter, asyncio.Task[object] | None] = {}

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}/mcp"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[MockMcpServer]:
        """It listens inside the block."""
        await self.start()
        try:
            yield self
        finally:
            await self.stop()

    async def start(self) -> None:
        """Listen; on the same port as before, if there was one."""
        self._server = await asyncio.start_server(self._connection, "127.0.0.1", self.port, limit=1 << 24)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """As if killed: every connection is reset, and nobody listens."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        handlers = [task for task in self._open.values() if task is not None]
        for writer in list(self._open):
            reset(writer)
        if handlers:
            await asyncio.wait(handlers, timeout=STOP_SECONDS_MAX)
        if server is not None:
            await server.wait_closed()

    # --- one connection ------------------------------------------------------------------------------------------------

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open[writer] = asyncio.current_task()
        try:
            while (request := await read_request(reader)) is not None:
                self.requests.append(request)
                if not await self._answer(request, Wire(reader, writer)):
                    return
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
            self._open.pop(writer, None)

    async def _answer(self, request: McpRequest, wire: Wire) -> bool:
        """Answer one request; whether the connection goes on."""
        fault = self.fault
        if fault is McpFault.HANG_EVERYTHING:
            self.bitten += 1
            await wire.gone()
            return False
        wrong = self.token is not None and request.headers.get("authorization") != f"Bearer {self.token}"
        if wrong or fault is McpFault.UNAUTHORIZED_EVERYTHING:
            self.bitten += 1
            return await self._refuse(wire, 401, CHALLENGE)
        if request.method != "POST" or request.id is None:
            await wire.send(405 if request.method == "GET" else 202, b"")
            return True
        if fault is McpFault.UNKNOWN_VERSION:
            self.bitten += 1
            return await self._unknown_version(request, wire)
        if request.rpc == "tools/call":
            return await self._call(request, wire)
        await wire.result(request, self._known(request))
        return True

    async def _unknown_version(self, request: McpRequest, wire: Wire) -> bool:
        if self.era == "modern":
            data = {"supported": [UNKNOWN], "requested": MODERN}
            await wire.error(request, -32022, "unsupported", data, status=400)
        elif request.rpc == "initialize":
            await wire.result(request, {**(self._known(request) or {}), "protocolVersion": UNKNOWN})
        else:
            await wire.error(request, -32601, "no such method")
        return True

    def _known(self, request: McpRequest) -> Json | None:
        about = {"capabilities": {"tools": {}, "logging": {}}, "serverInfo": {"name": "mock", "version": "1"}}
        more = {"ttlMs": 0, "cacheScope": "private", "resultType": "complete"} if self.era == "modern" else {}
        if request.rpc == "server/discover" and self.era == "modern":
            return {"supportedVersions": [MODERN], **about, **more}
        if request.rpc == "initialize" and self.era == "legacy":
            return {"protocolVersion": LEGACY, **about}
        if request.rpc == "tasks/get" and self.fault is McpFault.LEAK_TASK:
            known = request.body["params"]["taskId"] == request.headers["authorization"]
            done = {**task_of(request, "completed"), "result": text("the id came back")}
            return {"resultType": "complete", **done} if known else None
        if request.rpc == "tools/list":
            schema = {"type": "object"}
            return {
                "tools": [
                    {"name": name, "inputSchema": schema, "annotations": self.hints} for name in ("faulty", "steady")
                ],
                **more,
            }
        return None

    async def _call(self, request: McpRequest, wire: Wire) -> bool:
        self.calls[request.tool] += 1
        self.called.set()
        if request.tool == "steady":
            if not await wire.unless_gone(self.release.wait()):
                self.cancelled += 1
                return False
            await wire.result(request, text("steady"))
            return True
        self.bitten += 1
        behave = FAULTS.get(self.fault)
        if behave is None:
            await wire.result(request, text("fine"))
            return True
        goes_on = await behave(self, request, wire)
        if wire.left:
            self.cancelled += 1
        return goes_on

    async def _refuse(self, wire: Wire, status: int, headers: str = "", body: bytes = b"no <b>way</b>") -> bool:
        await wire.send(status, body, kind="text/plain", headers=headers)
        return True
