"""The server that the public conformance suite is run against: ours, with the tools that its scenarios call by name.

`python -m tests.mcp.fixture SERVER PORT`. The suite knows tools of its own only; they answer as it demands and stand beside
ours in the same table. Everything else is what `unbroken mcp --http` serves.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from typing import Final

import uvicorn

from unbroken.client.values import Json
from unbroken.errors import InvalidError
from unbroken.limits import DEFAULT_LIMITS
from unbroken.mcp_server.arguments import StartTask
from unbroken.mcp_server.entry import Entry
from unbroken.mcp_server.remote import Remote
from unbroken.mcp_server.service import build
from unbroken.mcp_server.tools import TOOLS, Handler, ToolSpec
from unbroken.mcp_server.transports import http_app
from unbroken.server.patience import bounded_http

Answer = dict[str, Json]
JOBS: Final = ("slow_compute", "failing_job", "protocol_error_job", "confirm_delete", "multi_input")
NOTHING: Final[dict[str, object]] = {"type": "object", "properties": {}}


async def simple_text(remote: Remote, given: dict[str, object]) -> Answer:
    return {"text": "This is a simple text response for testing."}


async def error_handling(remote: Remote, given: dict[str, object]) -> Answer:
    raise InvalidError("This tool intentionally returns an error for testing", field="arguments")


async def greet(remote: Remote, given: dict[str, object]) -> Answer:
    return {"text": f"Hello, {given.get('name')}!"}


async def at_once(remote: Remote, given: dict[str, object]) -> Answer:
    """What a tool of a task answers to a client that knows no tasks."""
    return {"text": "done"}


def job(name: str) -> Callable[[dict[str, object]], StartTask]:
    """The run of tests/mcp/jobs.py that a call of the tool starts."""
    return lambda given: StartTask(task=name, arguments=given)


def tool(name: str, handler: Handler, starts: Callable[[dict[str, object]], StartTask] | None = None) -> ToolSpec:
    description = "Of the conformance suite."
    return ToolSpec(name=name, title=name, description=description, schema=NOTHING, handler=handler, starts=starts)


FIXTURES: Final[Sequence[ToolSpec]] = (
    tool("test_simple_text", simple_text),
    tool("test_error_handling", error_handling),
    tool("greet", greet),
    *(tool(name, at_once, job(name)) for name in JOBS),
)


async def main(server: str, port: int) -> None:
    async with Remote(server) as remote:
        app = http_app(build(remote, (*TOOLS, *FIXTURES)), DEFAULT_LIMITS, Entry(host="127.0.0.1", port=port))
        config = uvicorn.Config(app, host="127.0.0.1", port=port, log_level="info", http=bounded_http(DEFAULT_LIMITS))
        await uvicorn.Server(config).serve()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
