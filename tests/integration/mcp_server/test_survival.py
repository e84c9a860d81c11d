"""An agent's work outlives the agent, its MCP server and the restart of the Unbroken server."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from mcp.shared.exceptions import MCPError

from tests.support.agents import Agent, McpProcess, Mode, agent_of, mcp_children, stdio_agent
from tests.support.server import ServerProcess, free_port
from unbroken import Client

pytestmark = pytest.mark.anyio
MODES: list[Mode] = ["auto", "legacy"]


def numbers(messages: list[Any]) -> list[int]:
    return [int(one["text"]) for one in messages if one["kind"] == "text"]


@pytest.mark.parametrize("mode", MODES)
async def test_an_agent_starts_work_and_reads_it_while_it_runs(tasks: ServerProcess, mode: Mode) -> None:
    async with stdio_agent(tasks.url, mode=mode) as agent:
        begun = await agent.call("start_task", task="count", arguments={"upto": 20, "pause": 0.05}, session="s")
        assert begun["state"] == "open"
        first = await agent.call("read_stream", stream=begun["stream"], after=begun["cursor"], wait_ms=20_000)
        assert not first["done"]
        assert first["messages"][0]["kind"] == "accepted", "the cursor of the start stands before everything"
        rest, cursor = await agent.read(begun["stream"], first["cursor"])
        found = first["messages"] + rest
        assert numbers(found) == list(range(1, 21))
        assert [one["seq"] for one in found] == list(range(1, len(found) + 1))
        task = await agent.call("get_task", stream=begun["stream"])
        assert (task["state"], task["session"], task["cursor"]) == ("completed", "s", cursor)
        assert task["progress"]["progress"] == 20
        listed = await agent.call("list_streams", session="s", active=False)
        assert [one["stream"] for one in listed["streams"]] == [begun["stream"]]


GATED = {"task": "gated", "arguments": {"upto": 60}, "key": "k"}


async def half(agent: Agent, stream: str, cursor: str) -> tuple[list[Any], str]:
    """What the gated run says before it stands still, and the cursor behind it."""
    found: list[Any] = []
    while not found or found[-1]["kind"] != "input_required":
        page = await agent.call("read_stream", stream=stream, after=cursor, limit=7, wait_ms=5_000)
        found += page["messages"]
        cursor = page["cursor"]
    return found, cursor


async def kill_in_mid_call(agent: Agent, stream: str, cursor: str) -> None:
    """`kill -9` the MCP process while a call waits in it."""
    (victim,) = mcp_children()

    async def waits() -> None:
        with pytest.raises(MCPError):
            await agent.raw("read_stream", stream=stream, after=cursor, wait_ms=25_000)

    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(waits())
        await asyncio.sleep(0)
        await agent.call("get_task", stream=stream)  # sent after it, and answered: so it is there
        assert not waiting.done()
        victim.kill()


async def test_the_mcp_process_is_killed_and_the_next_one_reads_on_without_loss(tasks: ServerProcess) -> None:
    async with stdio_agent(tasks.url) as agent:
        begun = await agent.call("start_task", **GATED)
        stream = begun["stream"]
        found, cursor = await half(agent, stream, begun["cursor"])
        await kill_in_mid_call(agent, stream, cursor)
    async with stdio_agent(tasks.url, mode="legacy") as agent:
        assert (await agent.call("get_task", stream=stream))["state"] == "running", "it came in the middle"
        assert (await agent.call("start_task", **GATED))["stream"] == stream, "the same key finds the run"
        await agent.call("answer_input", stream=stream, question="question-1", response=True)
        rest, _ = await agent.read(stream, cursor)
    found += rest
    assert numbers(found) == list(range(1, 61))
    assert [one["seq"] for one in found] == list(range(1, len(found) + 1))
    assert [one["kind"] for one in found].count("started") == 1
    async with Client(tasks.url) as client:
        assert (await client.state(stream)).state == "completed"


async def test_an_agent_that_leaves_ends_nothing(tasks: ServerProcess) -> None:
    async with stdio_agent(tasks.url) as agent:
        begun = await agent.call("start_task", **GATED)
        _, cursor = await half(agent, begun["stream"], begun["cursor"])
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await agent.raw("read_stream", stream=begun["stream"], after=cursor, wait_ms=25_000)
    async with stdio_agent(tasks.url) as agent:
        assert (await agent.call("get_task", stream=begun["stream"]))["state"] == "running"
        await agent.call("answer_input", stream=begun["stream"], question="question-1", response=True)
        assert numbers((await agent.read(begun["stream"]))[0]) == list(range(1, 61))


@pytest.mark.parametrize("mode", MODES)
async def test_the_server_restarts_in_mid_call_and_the_call_goes_on(tasks: ServerProcess, mode: Mode) -> None:
    async with stdio_agent(tasks.url, mode=mode) as agent:
        begun = await agent.call("start_task", task="count", arguments={"upto": 60, "pause": 0.05})
        async with asyncio.TaskGroup() as group, Client(tasks.url) as client:
            reading = group.create_task(agent.read(begun["stream"], begun["cursor"]))
            while (await client.state(begun["stream"])).head < 30:
                await asyncio.sleep(0.02)
            await tasks.restart(kill=True)
        found, _ = reading.result()
        assert numbers(found) == list(range(1, 61))
        assert [one["kind"] for one in found].count("started") == 2, "the kill came in the middle"


async def test_the_mcp_server_over_http_restarts_and_the_same_connection_works_on(
    tasks: ServerProcess, tmp_path: Path
) -> None:
    async with McpProcess(tmp_path, tasks.url) as process:
        for mode in MODES:
            async with agent_of(process.endpoint, mode=mode) as agent:
                begun = await agent.call("start_task", task="plain", arguments={"upto": 40, "pause": 0.05})
                page = await agent.call("read_stream", stream=begun["stream"], after=begun["cursor"], wait_ms=5_000)
                await process.restart(kill=True)
                rest, _ = await agent.read(begun["stream"], page["cursor"])
                assert numbers(page["messages"] + rest) == list(range(1, 41))


AWAY: dict[str, dict[str, Any]] = {
    "list_runnables": {},
    "start_task": {"task": "add", "arguments": {"left": 1}},
    "get_task": {"stream": "r"},
    "read_stream": {"stream": "r", "wait_ms": 25_000},
    "list_streams": {},
    "cancel_task": {"stream": "r"},
    "answer_input": {"stream": "r", "question": "q", "response": 1},
}


async def test_a_server_that_is_away_is_told_plainly_and_soon_by_every_tool() -> None:
    async with stdio_agent(f"http://127.0.0.1:{free_port()}") as agent:
        begun = time.monotonic()
        texts = await asyncio.gather(*(agent.refused(tool, **arguments) for tool, arguments in AWAY.items()))
        assert time.monotonic() - begun < 25
    for tool, text in zip(AWAY, texts, strict=True):
        assert text.startswith("error[unreachable]: ")
        assert "retryable: yes" in text
        assert "cure: Start it (`unbroken serve`)" in text
        assert ("the same call with the key" in text) == (tool == "start_task")


async def test_a_server_that_is_frozen_makes_no_call_hang(tasks: ServerProcess) -> None:
    async with stdio_agent(tasks.url) as agent:
        await agent.call("list_streams")
        tasks.freeze()
        try:
            begun_at = time.monotonic()
            text = await agent.refused("start_task", task="add", arguments={"left": 1})
            seconds = time.monotonic() - begun_at
        finally:
            tasks.thaw()
        assert text.startswith("error[unreachable]: no answer from ")
        assert seconds < 40
        key = text.partition("with the key ")[2].split()[0]
        begun = await agent.call("start_task", task="add", arguments={"left": 1}, key=key)
        await agent.until(begun["stream"], state="completed")
        listed = await agent.call("list_streams")
        assert [one["stream"] for one in listed["streams"]] == [begun["stream"]], "started once"
