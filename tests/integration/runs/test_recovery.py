"""Runs across `kill -9` and restarts of servers and workers: continued exactly, or ended with the truth."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.support.server import ServerProcess, WorkerProcess
from unbroken import Client
from unbroken.client.runs import RunOptions
from unbroken.limits import DEFAULT_LIMITS

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[3]
TASKS = ("--tasks", "tests.support.tasks")
ENVIRONMENT = {"PYTHONPATH": str(ROOT)}
CEILING_SECONDS = 100.0
EAGER = replace(DEFAULT_LIMITS, backoff_seconds_max=0.5, client_retries_max=100)


@asynccontextmanager
async def serving(directory: Path, *arguments: str) -> AsyncIterator[ServerProcess]:
    given = ("--lease", "1.5", *TASKS, *arguments)
    async with ServerProcess(directory, arguments=given, environment=ENVIRONMENT) as process:
        yield process


async def follow(client: Client, name: str) -> tuple[list[Any], Any]:
    """Every message of the run, and its last state."""
    async with asyncio.timeout(CEILING_SECONDS):
        messages = client.follow(name)
        found = [received async for received in messages]
    return found, messages.state


async def follow_over_crashes(server: ServerProcess, client: Client, name: str) -> tuple[list[Any], Any]:
    """As `follow`, of a run that takes its server down: that is started again each time, as an operator's supervisor does."""
    async with asyncio.timeout(CEILING_SECONDS), asyncio.TaskGroup() as tasks:
        ending = tasks.create_task(follow(client, name))
        while not ending.done():
            await asyncio.wait([ending], timeout=0.05)
            if not server.running and not ending.done():
                await server.start()
    return ending.result()


async def reaches(client: Client, name: str, head: int) -> None:
    async with asyncio.timeout(CEILING_SECONDS):
        while (await client.state(name)).head < head:
            await asyncio.sleep(0.02)


def numbers(found: list[Any]) -> list[int]:
    return [int(one.text) for one in found if one.kind == "text"]


@pytest.mark.scenario("TC-UT-003b")
@pytest.mark.parametrize("task", ["count", "restartable"])
async def test_a_run_that_can_go_on_does_after_each_kill_and_no_message_is_there_twice(
    tmp_path: Path, task: str
) -> None:
    async with serving(tmp_path) as server, Client(server.url) as client:
        await client.runs.task(task, {"upto": 60, "pause": 0.03}, RunOptions(name="r"))
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(follow(client, "r"))
            for head in (20, 60, 100):
                await reaches(client, "r", head if task == "count" else head // 3)
                await server.restart(kill=True)
        found, state = watching.result()
        assert numbers(found) == list(range(1, 61))
        assert [one.seq for one in found] == list(range(1, len(found) + 1))
        assert state.state == "completed"
        assert [one.kind for one in found].count("started") == 4, "each kill came in the middle"
        assert (await client.verify("r")).ok


@pytest.mark.scenario("TC-UT-003b")
async def test_a_run_that_cannot_go_on_ends_as_interrupted_within_ten_seconds(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, Client(server.url) as client:
        await client.runs.task("plain", {"upto": 10_000, "pause": 0.01}, RunOptions(name="r"))
        await reaches(client, "r", 10)
        await server.restart(kill=True)
        begun = asyncio.get_running_loop().time()
        found, state = await follow(client, "r")
        assert asyncio.get_running_loop().time() - begun < 10
        assert state.state == "interrupted"
        assert found[-1].kind == "interrupted"
        assert found[-1].json == {"cause": "worker_lost", "may_have_run": True}
        assert numbers(found) == list(range(1, len(numbers(found)) + 1))
        again = await client.runs.retry("r")
        assert (again.stream, again.state) == ("r.2", "open")


@pytest.mark.scenario("TC-UT-003b")
async def test_a_run_that_kills_its_server_at_once_has_begun_and_does_not_begin_again(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, Client(server.url, limits=EAGER) as client:
        await client.runs.task("dying", options=RunOptions(name="r"))
        found, state = await follow_over_crashes(server, client, "r")
        assert (state.state, found[-1].json) == ("interrupted", {"cause": "worker_lost", "may_have_run": True})
        assert [one.kind for one in found] == ["accepted", "started", "interrupted"]
        assert server.starts == 2


@pytest.mark.scenario("TC-UT-003b")
async def test_a_run_that_kills_its_server_every_time_ends_and_takes_no_other_with_it(tmp_path: Path) -> None:
    most = DEFAULT_LIMITS.run_crashes_max
    async with serving(tmp_path) as server, Client(server.url, limits=EAGER) as client:
        await client.runs.task("count", {"upto": 50, "pause": 0.1}, RunOptions(name="innocent"))
        await reaches(client, "innocent", 5)
        await client.runs.task("patient", options=RunOptions(name="asks"))
        await reaches(client, "asks", 4)
        await client.runs.task("poisonous", options=RunOptions(name="r"))
        found, state = await follow_over_crashes(server, client, "r")
        assert (state.state, found[-1].kind) == ("interrupted", "interrupted")
        assert found[-1].json == {"cause": "crashed_repeatedly", "crashes": most, "may_have_run": True}
        started = [one.json for one in found if one.kind == "started"]
        assert [one.get("after_crash", False) for one in started] == [False] + [True] * most, "it got on once"
        assert server.starts == len(started) + 1
        assert (await client.state("asks")).state == "running", "who waits for an answer is not ended"
        found, state = await follow(client, "innocent")
        assert (state.state, numbers(found)) == ("completed", list(range(1, 51)))


async def test_a_server_that_stops_gives_back_what_can_go_on_and_ends_the_rest(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, Client(server.url) as client:
        await client.runs.task("count", {"upto": 40, "pause": 0.03}, RunOptions(name="goes-on"))
        await client.runs.task("plain", {"upto": 10_000, "pause": 0.01}, RunOptions(name="ends"))
        await reaches(client, "goes-on", 20)
        await reaches(client, "ends", 10)
        assert await server.terminate() == 0
        await server.start()
        found, state = await follow(client, "goes-on")
        assert (state.state, numbers(found)) == ("completed", list(range(1, 41)))
        _, state = await follow(client, "ends")
        assert (state.state, bytes(state.reason)) == ("interrupted", b'{"cause":"server_stopped"}')


async def test_runs_go_on_in_a_worker_while_the_server_is_away_and_in_another_when_it_dies(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(serving(tmp_path, "--no-worker"))
        client = await stack.enter_async_context(Client(server.url))
        environment = ENVIRONMENT | {"UNBROKEN_LEASE": "1.5"}
        first = await stack.enter_async_context(WorkerProcess(tmp_path, arguments=TASKS, environment=environment))
        await client.runs.task("count", {"upto": 600, "pause": 0.02}, RunOptions(name="r"))
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        watching = tasks.create_task(follow(client, "r"))
        await reaches(client, "r", 30)
        await stack.enter_async_context(WorkerProcess(tmp_path, arguments=TASKS, environment=environment))
        await server.restart(kill=True)
        await reaches(client, "r", 80)
        assert [message.kind for message in (await client.read("r")).messages].count("started") == 1
        await first.kill()
        found, state = await watching
        assert (state.state, numbers(found)) == ("completed", list(range(1, 601)))
        assert [one.kind for one in found].count("started") == 2


async def test_a_run_that_no_worker_takes_over_ends_with_a_last_message_that_says_what_is_not_known(
    tmp_path: Path,
) -> None:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(serving(tmp_path, "--no-worker"))
        client = await stack.enter_async_context(Client(server.url))
        environment = ENVIRONMENT | {"UNBROKEN_LEASE": "1.5"}
        worker = await stack.enter_async_context(WorkerProcess(tmp_path, arguments=TASKS, environment=environment))
        for name in ("a", "b"):
            await client.runs.task("count", {"upto": 10_000, "pause": 0.02}, RunOptions(name=name))
            await reaches(client, name, 20)
        await client.pause("b")
        await worker.kill()
        found, state = await follow(client, "a")
        assert state.state == "interrupted"
        assert [one.kind for one in found].count("interrupted") == 1
        assert (found[-1].kind, found[-1].json) == ("interrupted", msgspec.json.decode(state.reason))
        assert (found[-1].json["cause"], found[-1].json["may_have_run"]) == ("lease_expired", True)
        assert (await client.state("b")).state == "paused", "what rests waits for a worker"


async def test_a_cancel_reaches_a_blocked_run_in_a_worker_within_a_second(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(serving(tmp_path, "--no-worker"))
        client = await stack.enter_async_context(Client(server.url))
        patient = ENVIRONMENT | {"UNBROKEN_LEASE": "300"}  # what it learns, it does not learn by renewing its lease
        await stack.enter_async_context(WorkerProcess(tmp_path, arguments=TASKS, environment=patient))
        for task in ("stuck", "asleep"):
            await client.runs.task(task, {}, RunOptions(name=task))
            await reaches(client, task, 3)
            await client.cancel(task)
            _, state = await follow(client, task)
            assert (state.state, bytes(state.reason)) == ("cancelled", b'{"by":"local"}')


async def test_a_question_survives_the_death_of_who_asked(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, Client(server.url) as client:
        await client.runs.task("patient", {}, RunOptions(name="r"))
        await reaches(client, "r", 4)
        await server.restart(kill=True)
        await client.runs.answer("r", "colour", "green")
        found, state = await follow(client, "r")
        assert state.state == "completed"
        assert found[-1].json == {"value": "you said green"}
        assert [one.kind for one in found].count("input_required") == 1


async def test_what_blocks_and_what_is_a_program_run_under_a_real_server(tmp_path: Path) -> None:
    programs = tmp_path / "programs.json"
    programs.write_text('{"programs": {"echo": {"command": ["sh", "-c", "echo out; exit 3"]}}}', encoding="utf-8")
    async with serving(tmp_path, "--programs", str(programs)) as server, Client(server.url) as client:
        for task in ("threaded", "processed"):
            await client.runs.task(task, {"upto": 5}, RunOptions(name=task))
            found, state = await follow(client, task)
            assert (state.state, numbers(found)) == ("completed", [1, 2, 3, 4, 5])
        await client.runs.program("echo", RunOptions(name="echo"))
        found, state = await follow(client, "echo")
        assert (state.state, bytes(state.reason)) == ("failed", b'{"exit_code":3}')
        assert [one.text for one in found if one.kind == "stdout"] == ["out\n"]


async def test_a_run_that_waits_is_begun_after_a_restart(tmp_path: Path) -> None:
    async with serving(tmp_path, "--no-worker") as server, Client(server.url) as client:
        await client.runs.task("add", {"left": 1}, RunOptions(name="r"))
        await server.kill()
    async with serving(tmp_path) as server, Client(server.url) as client:
        found, state = await follow(client, "r")
        assert (state.state, found[-1].json) == ("completed", {"value": 2})
