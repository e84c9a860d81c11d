"""Well-behaved MCP servers, built with the official SDK: `python servers.py stdio|http PORT [legacy] [DIRECTORY]`.

With a directory it offers tasks, kept in files there, so that they outlive it; a task ends when a file `release` is there.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import uvicorn
from mcp.server.extension import Extension, MethodBinding
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.request_state import RequestStateSecurity
from mcp_types import (
    CallToolResult,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    InputRequiredResult,
    RequestParams,
    TextContent,
    ToolAnnotations,
)

SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
READ_ONLY = ToolAnnotations(read_only_hint=True, idempotent_hint=True)


class TaskParams(RequestParams):
    taskId: str  # noqa: N815 - the protocol's name
    inputResponses: dict[str, Any] | None = None  # noqa: N815


class Tasks(Extension):
    """Calls of `job` become tasks."""

    identifier = "io.modelcontextprotocol/tasks"

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def methods(self) -> Sequence[MethodBinding]:
        handlers = {"tasks/get": self.get, "tasks/update": self.update, "tasks/cancel": self.cancel}
        return [MethodBinding(name, TaskParams, handler) for name, handler in handlers.items()]

    async def intercept_tool_call(self, params: Any, ctx: Any, call_next: Any) -> Any:
        if params.name != "job":
            return await call_next(ctx)
        identity = secrets.token_hex(8)
        self.write(identity, {"status": "working", "asks": bool((params.arguments or {}).get("ask"))})
        return {"resultType": "task", **self.told(identity, {"status": "working"})}

    def told(self, identity: str, more: dict[str, Any]) -> dict[str, Any]:
        when = "2026-11-26T00:00:00Z"
        return {
            "taskId": identity,
            "createdAt": when,
            "lastUpdatedAt": when,
            "ttlMs": None,
            "pollIntervalMs": 50,
            **more,
        }

    def write(self, identity: str, state: dict[str, Any]) -> None:
        (self.directory / f"{identity}.json").write_text(json.dumps(state))

    def read(self, identity: str) -> dict[str, Any]:
        return dict(json.loads((self.directory / f"{identity}.json").read_text()))

    async def get(self, ctx: Any, params: TaskParams) -> dict[str, Any]:
        state = self.read(params.taskId)
        with (self.directory / "looks").open("a") as looks:
            looks.write("look\n")
        status: dict[str, Any] = {"status": state["status"], "statusMessage": "thinking"}
        if state["status"] == "working" and state["asks"] and "answer" not in state:
            request = {"method": "elicitation/create", "params": {"message": "who?", "requestedSchema": SCHEMA}}
            status |= {"status": "input_required", "inputRequests": {"q": request}}
        elif state["status"] == "working" and (self.directory / "release").exists():
            text = json.dumps(state.get("answer", "done"))
            status |= {"status": "completed", "result": {"content": [{"type": "text", "text": text}], "isError": False}}
        return {"resultType": "complete", **self.told(params.taskId, status)}

    async def update(self, ctx: Any, params: TaskParams) -> dict[str, Any]:
        assert params.inputResponses is not None
        self.write(params.taskId, {**self.read(params.taskId), "answer": params.inputResponses["q"]})
        return {"resultType": "complete"}

    async def cancel(self, ctx: Any, params: TaskParams) -> dict[str, Any]:
        self.write(params.taskId, {**self.read(params.taskId), "status": "cancelled"})
        (self.directory / "cancelled").touch()
        return {"resultType": "complete"}


async def record(ctx: Context, marker: str, steps: int = 100, pause: float = 0.02) -> str:
    """Leaves a mark each time it is really called."""
    with Path(marker).open("a", encoding="utf-8") as marks:
        marks.write("called\n")
    for step in range(1, steps + 1):
        await ctx.report_progress(step, steps)
        await asyncio.sleep(pause)
    return "recorded"


async def talk(ctx: Context, lines: int, until: str) -> str:
    """Logs, then waits for a file."""
    for line in range(lines):
        await ctx.info(f"line {line}")
    await ctx.report_progress(1, 1)
    while not Path(until).exists():
        await asyncio.sleep(0.01)
    return f"{lines} lines"


def build(directory: Path | None) -> MCPServer:
    security = RequestStateSecurity(keys=["k" * 32], audience="test")
    extensions = [] if directory is None else [Tasks(directory)]
    server = MCPServer("good", request_state_security=security, extensions=extensions)

    @server.tool(annotations=READ_ONLY)
    async def slow(ctx: Context, steps: int = 3, pause: float = 0.01, marker: str = "") -> str:
        """Counts."""
        try:
            for step in range(1, steps + 1):
                await ctx.report_progress(step, steps, f"step {step}")
                await ctx.info(f"logged {step}")
                await asyncio.sleep(pause)
        except asyncio.CancelledError:
            if marker:
                Path(marker).touch()
            raise
        return f"{steps} steps"

    server.tool()(record)
    server.tool()(talk)

    @server.tool()
    async def add(left: int, right: int) -> int:
        """Adds."""
        return left + right

    @server.tool()
    async def large(megabytes: float) -> CallToolResult:
        """A large text."""
        return CallToolResult(content=[TextContent(type="text", text="x" * int(megabytes * 1024 * 1024))])

    @server.tool()
    async def ask(ctx: Context) -> str | InputRequiredResult:
        """Asks for a name, and greets."""
        answer = (ctx.input_responses or {}).get("who")
        if not isinstance(answer, ElicitResult):
            params = ElicitRequestFormParams(message="who are you?", requested_schema=SCHEMA)
            return InputRequiredResult(input_requests={"who": ElicitRequest(params=params)}, request_state="remember")
        assert ctx.request_state == "remember"
        return f"{answer.action}: {(answer.content or {}).get('name')}"

    @server.tool()
    async def job(ask: bool = False) -> str:
        """Never called itself: it becomes a task."""
        return "no task"

    return server


def main(how: str, *arguments: str) -> None:
    directory = next((Path(argument) for argument in arguments if "/" in argument), None)
    server = build(directory)
    if how == "stdio":
        server.run("stdio")
        return
    app: Any = server.streamable_http_app()
    if "legacy" in arguments:
        app = without_discovery(app)
    uvicorn.run(app, host="127.0.0.1", port=int(arguments[0]), log_level="warning")


def without_discovery(app: Any) -> Any:
    """As a server of the old protocol, which knows no other handshake."""

    async def legacy(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and dict(scope["headers"]).get(b"mcp-method") == b"server/discover":
            await send({"type": "http.response.start", "status": 400, "headers": []})
            await send({"type": "http.response.body", "body": b"what?"})
        else:
            await app(scope, receive, send)

    return legacy


if __name__ == "__main__":
    main(*sys.argv[1:])
