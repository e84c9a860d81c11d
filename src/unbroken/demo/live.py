"""The demonstration for people: the server, its page, and streams to reload, until Ctrl-C.

`unbroken demo` runs it. It writes into a directory of its own, which goes away with it.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Callable, Coroutine
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from unbroken.cli.output import note
from unbroken.client import Client
from unbroken.demo import scenes
from unbroken.demo.server import DemoServer
from unbroken.runs.spec import RunOptions

__all__ = ["run_live"]

PAUSE_BETWEEN_SECONDS: Final = 5.0
TASKS: Final = ("--tasks", "unbroken.demo.work")
KNOWN: Final = (
    ("time", "mcp_server_time", ("--local-timezone", "UTC")),
    ("git", "mcp_server_git", ("--repository", ".")),
)
"""MCP servers that need no network and no keys, where they are installed."""


async def run_live(directory: Path, port: int) -> int:
    """Play until SIGINT or SIGTERM; prints the page's address first. The exit code."""
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, over.set)
    arguments = [*TASKS, *_tools(directory)]
    async with DemoServer(directory, port, arguments) as server, Client(server.url) as client:
        sys.stdout.write(f"open {server.url}/#/stream/demo/answer-1 and reload it while it writes\n")
        sys.stdout.write(f"open {server.url}/#/session/demo for what the server itself runs; + starts more of it\n")
        sys.stdout.flush()
        note(f"the command line works too: unbroken tail --follow demo/answer-1 --server {server.url}")
        note("Ctrl-C ends the demonstration")
        async with asyncio.TaskGroup() as group:
            plays: list[tuple[str, Callable[[str], Coroutine[object, object, object]]]] = [
                ("answer", lambda name: scenes.answer(client, name, pause=0.12)),
                ("task", lambda name: scenes.task(client, name, steps=120, pause=1.0)),
                ("program", lambda name: scenes.program(server.url, name, lines=120, pause=0.5)),
            ]
            tasks = [group.create_task(_repeat(name, play)) for name, play in plays]
            await _start_runs(client, tools=len(arguments) > len(TASKS))
            await over.wait()
            for task in tasks:
                task.cancel()
    return 0


async def _start_runs(client: Client, *, tools: bool) -> None:
    """Something to see on the page: a report, a question and, where there are tools, one of them."""
    await client.runs.task("report", {}, RunOptions(name="demo/report", session=scenes.SESSION))
    await client.runs.task("survey", {}, RunOptions(name="demo/survey", session=scenes.SESSION))
    if tools:
        await client.runs.tool("demo", "slow_report", {}, RunOptions(name="demo/tool", session=scenes.SESSION))


def _tools(directory: Path) -> list[str]:
    """The option that names the MCP servers: our own, and well-known ones that are installed; none without the extra."""
    if find_spec("mcp") is None:
        note("for MCP tools in the demonstration: pip install 'unbroken[mcp]'")
        return []
    servers = {"demo": {"command": sys.executable, "args": ["-m", "unbroken.demo.mcp_server"]}}
    for name, module, arguments in KNOWN:
        if find_spec(module) is not None:
            servers[name] = {"command": sys.executable, "args": ["-m", module, *arguments]}
    path = directory / "mcp.json"
    path.write_text(json.dumps({"mcpServers": servers}), encoding="utf-8")
    return ["--mcp-config", str(path)]


async def _repeat(name: str, play: Callable[[str], Coroutine[object, object, object]]) -> None:
    """Play a scene again and again, each time as another stream."""
    number = 1
    while True:
        await play(f"demo/{name}-{number}")
        number += 1
        await asyncio.sleep(PAUSE_BETWEEN_SECONDS)
