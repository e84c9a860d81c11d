"""The how-to about tasks: its module, its commands and its application do what they say."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.docs.test_examples import application, run, the
from tests.integration.embed.host import hosted
from tests.support.server import ServerProcess, WorkerProcess
from unbroken import Client

pytestmark = pytest.mark.anyio
DOCUMENT = "docs/howto/tasks.md"


async def ended(client: Client, name: str) -> tuple[list[Any], str]:
    async with asyncio.timeout(30):
        messages = client.follow(name)
        found = [received async for received in messages]
    assert messages.state is not None
    return found, messages.state.state


async def test_the_task_is_started_from_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "jobs.py").write_text(the(DOCUMENT, "python", 1), encoding="utf-8")
    serve, tools, start = (line.partition("#")[0].split() for line in the(DOCUMENT, "sh", 1).splitlines())
    assert serve[:2] == ["unbroken", "serve"]
    async with ServerProcess(tmp_path, arguments=serve[2:]) as server, Client(server.url) as client:
        shown = await run(tools, tmp_path, UNBROKEN_SERVER=server.url)
        assert "report" in shown.stdout
        started = await run([*start, "--json"], tmp_path, UNBROKEN_SERVER=server.url)
        found, state = await ended(client, json.loads(started.stdout)["stream"])
    assert state == "completed"
    assert [one.text for one in found if one.kind == "text"] == [f"page {page}\n" for page in range(1, 6)]


async def test_the_server_of_the_readme_offers_tasks_and_tools(tmp_path: Path) -> None:
    (tmp_path / "jobs.py").write_text(the(DOCUMENT, "python", 1), encoding="utf-8")
    (tmp_path / ".mcp.json").write_text('{"mcpServers": {"away": {"command": "no-such-program"}}}', encoding="utf-8")
    async with (
        ServerProcess(tmp_path, arguments=the("README.md", "sh", 3).split()[2:]) as server,
        Client(server.url) as client,
    ):
        tasks, tools = await client.runs.available()
    assert [found.name for found in tasks.runnables] == ["report"]
    assert (tools.server, tools.runnables) == ("away", ())
    assert tools.error


async def test_the_worker_apart_and_a_program(tmp_path: Path) -> None:
    (tmp_path / "jobs.py").write_text(the(DOCUMENT, "python", 1), encoding="utf-8")
    serve, work = (line.split()[2:] for line in the(DOCUMENT, "sh", 2).splitlines())
    programs = json.loads(the(DOCUMENT, "json", 1))
    programs["programs"]["build"] |= {"command": ["sh", "-c", "echo built; echo done >&2"], "cwd": str(tmp_path)}
    (tmp_path / "programs.json").write_text(json.dumps(programs), encoding="utf-8")
    also = ["--programs", "programs.json"]
    async with (
        ServerProcess(tmp_path, arguments=[*serve, *also]) as server,
        WorkerProcess(tmp_path, arguments=[*work, *also]),
        Client(server.url) as client,
    ):
        view = await client.runs.task("report", {"pages": 1})
        assert (await ended(client, view.stream))[1] == "completed"
        found, state = await ended(client, (await client.runs.program("build")).stream)
    assert state == "completed"
    assert {one.kind: one.text for one in found if one.kind in {"stdout", "stderr"}} == {
        "stdout": "built\n",
        "stderr": "done\n",
    }


async def test_the_task_in_an_application(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with hosted(application(DOCUMENT, 2)["app"]) as host:
        name = (await host.client.post("/reports/1?pages=2")).json()["stream"]
        async with asyncio.timeout(20):
            while (await host.client.get(f"/streams/v1/streams/{name}")).json()["state"] != "completed":
                await asyncio.sleep(0.02)
        messages = (await host.client.get(f"/streams/v1/messages/{name}")).json()["messages"]
    assert [one["text"] for one in messages if one["kind"] == "text"] == ["page 1\n", "page 2\n"]
