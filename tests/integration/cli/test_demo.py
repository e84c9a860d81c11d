"""`unbroken demo` for people: what it says to open is there, tasks and MCP tools run in it, and Ctrl-C ends all of it."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from pathlib import Path

import psutil
import pytest

from unbroken import Client

pytestmark = pytest.mark.anyio
RUNS = {"demo/report", "demo/tool", "demo/survey"}


async def test_the_demonstration_runs_tasks_and_tools_and_ends(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "unbroken", "demo"),
        cwd=tmp_path,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(90):
            found = re.search(r"open (http://\S+)/#/stream/", (await process.stdout.readline()).decode())
            assert found
            async with Client(found[1]) as client:
                while not {view.stream for view in (await client.list(prefix="demo/")).streams} >= RUNS:
                    await asyncio.sleep(0.1)
                for name in ("demo/report", "demo/tool"):
                    while not [one for one in (await client.read(name)).messages if one.kind == "progress"]:
                        await asyncio.sleep(0.1)
                while not [one for one in (await client.read("demo/survey")).messages if one.kind == "input_required"]:
                    await asyncio.sleep(0.1)
                await client.runs.answer("demo/survey", "question-1", "green")
                *_, last = [message async for message in client.follow("demo/survey")]
                assert last.json == {"value": "The best colour is green."}
            children = psutil.Process(process.pid).children(recursive=True)
            process.send_signal(signal.SIGINT)
            assert await process.wait() == 0
            assert [child for child in children if child.is_running() and child.status() != "zombie"] == []
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
