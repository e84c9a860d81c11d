"""The tasks extension: a run is a task for hosts that know tasks, from any MCP process, and for nobody who guesses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import mcp_types as types
import pytest
from mcp import Client
from mcp.client.context import ClientRequestContext
from mcp.client.extension import ClaimContext, ClientExtension, ResultClaim
from mcp.shared.exceptions import MCPError
from pydantic import ConfigDict, Field

from tests.support.agents import Agent, McpProcess, mcp_children, stdio_parameters
from tests.support.server import ServerProcess

pytestmark = pytest.mark.anyio
EXTENSION = "io.modelcontextprotocol/tasks"
CEILING_SECONDS = 100.0


class Loose(types.Result):
    """Any result, as it came."""

    model_config = ConfigDict(extra="allow")


class Begun(types.Result):
    """What a call gives that has become a task."""

    model_config = ConfigDict(extra="allow")
    result_type: Literal["task"] = Field("task", alias="resultType")


class TaskParams(types.RequestParams):
    model_config = ConfigDict(extra="allow")


class TaskRequest(types.Request[TaskParams, str]):
    """Any request of the extension."""


class KnowsTasks(ClientExtension):
    identifier = EXTENSION

    def claims(self) -> list[ResultClaim[Any]]:
        return [ResultClaim(result_type="task", model=Begun, resolve=self.resolve)]

    async def resolve(self, result: Begun, context: ClaimContext) -> types.CallToolResult:
        raise AssertionError("the tests look at tasks themselves")


async def form(context: ClientRequestContext, params: Any) -> types.ElicitResult:
    raise AssertionError("the tests answer themselves")


class Host:
    """A host that follows tasks by itself."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def start(self, **arguments: Any) -> dict[str, Any]:
        result = await self.client.session.call_tool("start_task", arguments, allow_claimed=True)
        return result.model_dump(by_alias=True, exclude_none=True)

    async def ask(self, method: str, task: str, **more: Any) -> dict[str, Any]:
        request = TaskRequest(method=method, params=TaskParams.model_validate({"taskId": task, **more}))
        async with asyncio.timeout(CEILING_SECONDS):
            result = await self.client.session.send_request(request, Loose)
        return result.model_dump(by_alias=True, exclude_none=True)

    async def until(self, task: str, *statuses: str) -> dict[str, Any]:
        async with asyncio.timeout(CEILING_SECONDS):
            while (found := await self.ask("tasks/get", task))["status"] not in statuses:
                await asyncio.sleep(0.05)
        return found


@asynccontextmanager
async def host(url: str) -> AsyncIterator[Host]:
    """A host with an `unbroken mcp` of its own."""
    parameters = stdio_parameters(url)
    async with Client(parameters, extensions=[KnowsTasks()], elicitation_callback=form) as client:
        yield Host(client)


async def test_a_run_is_a_task_that_outlives_the_process_that_gave_it(tasks: ServerProcess) -> None:
    async with host(tasks.url) as first:
        begun = await first.start(task="gated", arguments={"upto": 40})
        assert (begun["resultType"], begun["status"]) == ("task", "working")
        stream = begun["_meta"]["dev.unbroken/stream"]
        (victim,) = mcp_children()
        victim.kill()
    async with host(tasks.url) as second:
        asked = await second.until(begun["taskId"], "input_required", "completed", "failed")
        assert asked["status"] == "input_required", "it came in the middle"
        go_on = {"action": "accept", "content": {"value": "yes"}}
        await second.ask("tasks/update", begun["taskId"], inputResponses={"question-1": go_on})
        ended = await second.until(begun["taskId"], "completed", "failed")
        assert ended["result"]["isError"] is False
        assert ended["result"]["structuredContent"]["state"] == "completed"
        page = await Agent(second.client).call("read_stream", stream=stream, limit=1_000)
    assert [int(one["text"]) for one in page["messages"] if one["kind"] == "text"] == list(range(1, 41))


async def test_how_a_run_ends_is_told_as_a_task_ends(tasks: ServerProcess) -> None:
    async with host(tasks.url) as agent:
        task = (await agent.start(task="add", arguments={"left": 2}))["taskId"]
        assert (await agent.until(task, "completed"))["result"]["structuredContent"]["result"] == {"value": 3}
        task = (await agent.start(task="broken"))["taskId"]
        ended = await agent.until(task, "completed", "failed")
        assert (ended["status"], ended["result"]["isError"]) == ("completed", True)
        task = (await agent.start(task="stuck"))["taskId"]
        assert "status" not in await agent.ask("tasks/cancel", task)
        assert "result" not in await agent.until(task, "cancelled")
        begun = await agent.start(task="plain", arguments={"upto": 1_000, "pause": 0.05})
        stream = begun["_meta"]["dev.unbroken/stream"]
        while (await Agent(agent.client).call("get_task", stream=stream))["cursor"].endswith((":1", ":2")):
            await asyncio.sleep(0.02)
        await tasks.restart(kill=True)
        ended = await agent.until(begun["taskId"], "failed", "completed")
        assert (ended["error"]["code"], "result" in ended) == (types.INTERNAL_ERROR, False)


async def test_a_question_is_asked_as_a_form_and_answered_or_declined(tasks: ServerProcess) -> None:
    async with host(tasks.url) as agent:
        for name, key, response, said in (
            ("curious", "question-1", {"action": "accept", "content": {"value": "red"}}, "red"),
            ("patient", "colour", {"action": "decline"}, None),
        ):
            task = (await agent.start(task=name))["taskId"]
            asked = (await agent.until(task, "input_required"))["inputRequests"][key]
            assert asked["method"] == "elicitation/create"
            assert asked["params"]["message"] == "Which colour?"
            assert asked["params"]["requestedSchema"]["properties"] == {"value": {"type": "string"}}
            await agent.ask("tasks/update", task, inputResponses={"nobody": response})
            assert (await agent.ask("tasks/get", task))["status"] == "input_required"
            await agent.ask("tasks/update", task, inputResponses={key: response})
            ended = await agent.until(task, "completed")
            assert ended["result"]["structuredContent"]["result"] == {"value": f"you said {said}"}
            await agent.ask("tasks/update", task, inputResponses={key: response})


async def test_a_question_whose_schema_knows_no_refusal_stays_open_when_it_is_declined(tasks: ServerProcess) -> None:
    async with host(tasks.url) as agent:
        task = (await agent.start(task="curious"))["taskId"]
        await agent.until(task, "input_required")
        for response in ({"action": "decline"}, {"action": "accept", "content": {"value": 1}}):
            with pytest.raises(MCPError, match="not of type"):
                await agent.ask("tasks/update", task, inputResponses={"question-1": response})
        assert (await agent.ask("tasks/get", task))["status"] == "input_required"


async def test_a_key_finds_its_task_again_and_a_run_of_somebody_else_is_no_task(tasks: ServerProcess) -> None:
    work = {"task": "add", "arguments": {"left": 1}, "key": "k"}
    async with host(tasks.url) as agent:
        plain = await agent.client.session.call_tool("start_task", {**work, "key": "p"}, allow_claimed=True)
        assert isinstance(plain, Begun)
        first, again = await agent.start(**work), await agent.start(**work)
        assert first["taskId"] == again["taskId"]
        async with Client(stdio_parameters(tasks.url)) as unaware:
            begun = await Agent(unaware).call("start_task", **{**work, "key": "other"})
        found = await agent.start(**{**work, "key": "other"})
        assert "taskId" not in found
        assert found["structuredContent"]["stream"] == begun["stream"]


async def test_no_task_can_be_guessed_and_none_is_there_without_the_extension(
    tasks: ServerProcess, tmp_path: Path
) -> None:
    async with host(tasks.url) as agent:
        task = (await agent.start(task="add", arguments={"left": 1}))["taskId"]
        place, _, secret = task.partition(".")
        assert len(secret) == 32
        guesses = [f"{place}.{'0' * 32}", f"{place}.", place, f".{secret}", secret, "nobody", "\u202e", "=" * 2_000, ""]
        for guess in guesses:
            for method in ("tasks/get", "tasks/update", "tasks/cancel"):
                with pytest.raises(MCPError) as refused:
                    await agent.ask(method, guess)
                assert refused.value.code == types.INVALID_PARAMS, guess
        assert (await agent.until(task, "completed"))["status"] == "completed", "none of them had an effect"
    async with McpProcess(tmp_path, tasks.url) as process:
        for mode, code in (("auto", types.MISSING_REQUIRED_CLIENT_CAPABILITY), ("legacy", types.METHOD_NOT_FOUND)):
            async with Client(process.endpoint, mode=mode) as client:
                with pytest.raises(MCPError) as refused:
                    await Host(client).ask("tasks/get", task)
                assert refused.value.code == code
