"""A server that is killed takes the processes of its runs with it, also those that listen to nothing."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.support.requirement import missing
from tests.support.server import ServerProcess
from unbroken import Client
from unbroken.client.runs import RunOptions
from unbroken.testing.mcp_stdio import stdio_command

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills children at their parent's death"),
]

CEILING_SECONDS = 60.0
ROOT = Path(__file__).parents[3]
STUBBORN = (
    "import os, signal, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    "print(os.getpid(), flush=True)\n"
    "while True: time.sleep(60)\n"
)


@pytest.fixture(autouse=True)
def _setpriv() -> None:
    if shutil.which("setpriv") is None:
        missing("setpriv of util-linux")


def offers(directory: Path) -> tuple[str, ...]:
    command, args = stdio_command("stubborn")
    servers = {"mcpServers": {"s": {"command": command, "args": args, "unbroken": {"idle_timeout": "1h"}}}}
    programs = {"programs": {"stubborn": {"command": [sys.executable, "-c", STUBBORN]}}}
    (directory / "mcp.json").write_text(json.dumps(servers))
    (directory / "programs.json").write_text(json.dumps(programs))
    files = ("--mcp-config", str(directory / "mcp.json"), "--programs", str(directory / "programs.json"))
    return (*files, "--tasks", "tests.support.tasks")


async def start(client: Client, kind: str) -> None:
    options = RunOptions(name="r")
    match kind:
        case "tool":
            await client.runs.tool("s", "faulty", {}, options)
        case "program":
            await client.runs.program("stubborn", options)
        case _:
            await client.runs.task("asleep", {}, options)


async def child_of(server: ServerProcess, client: Client, said: str) -> psutil.Process:
    """The one process of the run, when it has said that it is at work."""
    async with asyncio.timeout(CEILING_SECONDS):
        while said not in [message.kind for message in (await client.read("r")).messages]:
            await asyncio.sleep(0.02)
    (child,) = [one for one in psutil.Process(server.pid).children() if "setpriv" not in one.name()]
    return child


def gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize(("kind", "said"), [("tool", "sent"), ("program", "stdout"), ("task", "json")])
async def test_a_killed_server_takes_a_child_that_ignores_everything_with_it(
    tmp_path: Path, kind: str, said: str
) -> None:
    environment = {"PYTHONPATH": str(ROOT)}
    process = ServerProcess(tmp_path, arguments=offers(tmp_path), environment=environment)
    async with process as server, Client(server.url) as client:
        await start(client, kind)
        child = await child_of(server, client, said)
        if kind != "task":
            child.send_signal(signal.SIGTERM)
            assert not gone(child), "it is stubborn"
        await server.kill()
        async with asyncio.timeout(CEILING_SECONDS):
            while not gone(child):
                await asyncio.sleep(0.02)


def test_a_child_of_ours_whose_parent_has_died_before_it_could_ask_ends_at_once() -> None:
    code = "from unbroken.runs.lifeline import end_with_parent\nend_with_parent(1 << 30)\nprint('alive')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")
