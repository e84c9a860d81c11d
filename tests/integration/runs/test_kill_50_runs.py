"""`kill -9` of the server and of the worker, 50 times, while 12 tool calls and 5 tasks run: each ends with the truth."""

from __future__ import annotations

import asyncio
import json
import random
import secrets
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from tests.integration.mcp.test_calls import http_server
from tests.integration.runs.test_recovery import ENVIRONMENT, TASKS
from tests.support.server import ServerProcess, WorkerProcess
from unbroken import Client
from unbroken.client.runs import RunOptions
from unbroken.limits import DEFAULT_LIMITS

pytestmark = pytest.mark.anyio

KILLS = 50
TOOL_CALLS = 12
TASK_RUNS = 5
UPTO = 60
CEILING_SECONDS = 600.0
EAGER = replace(DEFAULT_LIMITS, backoff_seconds_max=0.5, client_retries_max=100)
KINDS = ("count", "restartable", "plain")


@dataclass(slots=True)
class Load:
    """Keeps so many runs going until the kills are over, and remembers what everyone of them said."""

    client: Client
    marks: Path
    over: asyncio.Event = field(default_factory=asyncio.Event)
    found: dict[str, tuple[list[Any], str]] = field(default_factory=dict)
    stored: int = 0
    more: asyncio.Event = field(default_factory=asyncio.Event)

    async def calls(self, number: int) -> None:
        """Tool calls, one after the other: of a tool that may be repeated, or of one that may not."""
        turn = 0
        while not self.over.is_set():
            turn += 1
            name = f"tool/{number}/{turn}"
            given: dict[str, Any] = {"steps": 100, "pause": 0.02}
            tool = "record" if number % 3 else "slow"
            if tool == "record":
                given["marker"] = str(self.marks / name.replace("/", "-"))
            await self.client.runs.tool("s", tool, given, RunOptions(name=name))
            await self.watch(name)

    async def tasks(self, number: int) -> None:
        """Tasks, one after the other."""
        turn = 0
        while not self.over.is_set():
            turn += 1
            kind = KINDS[number % len(KINDS)]
            name = f"{kind}/{number}/{turn}"
            await self.client.runs.task(kind, {"upto": UPTO, "pause": 0.03}, RunOptions(name=name))
            await self.watch(name)

    async def watch(self, name: str) -> None:
        messages = self.client.follow(name)
        seen: list[Any] = []
        async for message in messages:
            seen.append(message)
            self.stored += 1
            self.more.set()
        assert messages.state is not None
        self.found[name] = (seen, messages.state.state)

    async def grows(self, count: int) -> None:
        """Wait for so many more messages."""
        target = self.stored + count
        while self.stored < target:
            self.more.clear()
            await self.more.wait()


@asynccontextmanager
async def running(directory: Path) -> AsyncIterator[tuple[ServerProcess, WorkerProcess]]:
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(http_server())
        config = directory / "mcp.json"
        entry = {"type": "http", "url": f"http://127.0.0.1:{port}/mcp", "unbroken": {"trusted": True}}
        config.write_text(json.dumps({"mcpServers": {"s": entry}}))
        arguments = (*TASKS, "--mcp-config", str(config))
        environment = ENVIRONMENT | {"UNBROKEN_LEASE": "2.5"}
        server = ServerProcess(directory, arguments=(*arguments, "--no-worker"), environment=environment)
        worker = WorkerProcess(directory, arguments=arguments, environment=environment)
        await stack.enter_async_context(server)
        await stack.enter_async_context(worker)
        yield server, worker


def judge(name: str, seen: list[Any], state: str, marks: Path) -> str:
    """What is wrong with a run, if anything is."""
    kinds = Counter(message.kind for message in seen)
    if [message.seq for message in seen] != list(range(1, len(seen) + 1)):
        return "a hole, a double or a swap"
    if sum(kinds[kind] for kind in ("result", "failed", "timed_out", "cancelled", "interrupted")) > 1:
        return "more than one end"
    kind = name.partition("/")[0]
    if kind == "tool":
        marked = marks / name.replace("/", "-")
        called = len(marked.read_text(encoding="utf-8").splitlines()) if marked.exists() else 0
        if called > 1:
            return f"called {called} times although it may not be repeated"
        if called and state == "interrupted" and not seen[-1].json["may_have_run"]:
            return "called, and said that it was not"
        return "" if state in {"completed", "interrupted"} else state
    if state == "interrupted" and seen[-1].json.get("cause") == "crashed_repeatedly":
        return ""  # on a slow machine the kills have met one run so often that it was held for their cause
    numbers = [int(message.text) for message in seen if message.kind == "text"]
    if numbers != list(range(1, len(numbers) + 1)):
        return f"yielded {numbers}"
    if kind == "plain" or (kind == "count" and not kinds["checkpoint"]):  # it cannot go on, or not yet
        return "" if state in {"completed", "interrupted"} else state
    return "" if (state, len(numbers)) == ("completed", UPTO) else f"{state} after {len(numbers)}"


@pytest.mark.timeout(700)
@pytest.mark.scenario("TC-UT-003b", "TC-EDGE-013")
async def test_50_kills_of_server_and_worker_and_every_run_ends_with_the_truth(tmp_path: Path) -> None:
    seed = secrets.randbits(32)
    chance = random.Random(seed)
    marks = tmp_path / "marks"
    marks.mkdir()
    async with running(tmp_path) as (server, worker), Client(server.url, limits=EAGER) as client:
        load = Load(client, marks)
        async with asyncio.timeout(CEILING_SECONDS), asyncio.TaskGroup() as tasks:
            for number in range(TOOL_CALLS):
                tasks.create_task(load.calls(number))
            for number in range(TASK_RUNS):
                tasks.create_task(load.tasks(number))
            await load.grows(100)
            for _ in range(KILLS):
                await load.grows(chance.randint(1, 150))
                await chance.choice((server, worker)).restart(kill=True)
            load.over.set()
        wrong = {name: judge(name, *run, marks) for name, run in load.found.items()}
        assert {name: text for name, text in wrong.items() if text} == {}, f"seed {seed}"
        ends = Counter(f"{name.partition('/')[0]} {state}" for name, (_, state) in load.found.items())
        assert ends["count completed"] >= 2, ends
        assert ends["tool interrupted"] >= 5, f"inconclusive: hardly a kill hit a call: {ends}"
        restarted = [name for name, (seen, _) in load.found.items() if [m.kind for m in seen].count("started") > 1]
        assert len(restarted) >= 5, f"inconclusive: hardly a kill hit a run that goes on: {restarted}"
        active = (await client.list(active=True)).streams
        assert active == [], f"still active: {[view.stream for view in active]}"
