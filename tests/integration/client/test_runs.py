"""`client.runs` of both clients: one set of tests, asynchronous calls and blocking ones."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.integration.runs.test_supervised import LIMITS, all_tasks
from tests.support.speeds import Running, running_server
from unbroken.client import Client, SyncClient
from unbroken.client.runs import ClientRuns, RunOptions
from unbroken.client.sync_runs import SyncRuns
from unbroken.errors import (
    AlreadyExistsError,
    InvalidError,
    NotFoundError,
    OverloadedError,
    TransitionError,
    UnknownRunnableError,
)

pytestmark = pytest.mark.anyio
CEILING = 60.0
Ask = Callable[..., Awaitable[Any]]
"""Calls a method of `client.runs`, or, by a name with a dot before it, of the client itself."""


@pytest.fixture
async def server() -> AsyncIterator[Running]:
    async with running_server(limits=LIMITS, catalog=all_tasks()) as running, asyncio.timeout(CEILING):
        yield running


@pytest.fixture(params=["asynchronous", "blocking"])
async def ask(server: Running, request: pytest.FixtureRequest) -> AsyncIterator[Ask]:
    if request.param == "asynchronous":
        async with Client(server.url) as client:

            async def call(name: str, *args: Any, **kwargs: Any) -> Any:
                return await getattr(client if name[0] == "." else client.runs, name.lstrip("."))(*args, **kwargs)

            yield call
        return
    blocking = SyncClient(server.url)
    await asyncio.to_thread(blocking.__enter__)
    try:

        async def call_in_thread(name: str, *args: Any, **kwargs: Any) -> Any:
            place: Any = blocking if name[0] == "." else blocking.runs
            return await asyncio.to_thread(getattr(place, name.lstrip(".")), *args, **kwargs)

        yield call_in_thread
    finally:
        await asyncio.to_thread(blocking.__exit__, None, None, None)


async def ended(ask: Ask, name: str) -> str:
    while (view := await ask(".state", name)).ended is None:
        await asyncio.sleep(0.01)
    return str(view.state)


async def messages(ask: Ask, name: str, kind: str) -> list[Any]:
    """What the run has said of this kind, when there is any."""
    while not (found := [one.json for one in (await ask(".read", name)).received() if one.kind == kind]):
        await asyncio.sleep(0.01)
    return found


def test_both_have_the_same_calls() -> None:
    def calls(kind: type) -> dict[str, list[inspect.Parameter]]:
        functions = {name: value for name, value in vars(kind).items() if inspect.isfunction(value) and name[0] != "_"}
        return {name: list(inspect.signature(value).parameters.values()) for name, value in functions.items()}

    assert calls(SyncRuns) == calls(ClientRuns)
    assert inspect.signature(SyncClient.list) == inspect.signature(Client.list)


async def test_a_task_is_started_once_and_its_result_is_there(ask: Ask) -> None:
    view = await ask("task", "add", {"left": 2, "right": 3}, RunOptions(key="k", session="s", metadata={"x": 1}))
    assert (view.kind, view.session, bytes(view.metadata)) == ("task", "s", b'{"x":1}')
    again = await ask("task", "add", {"right": 3, "left": 2}, RunOptions(key="k", session="s"))
    assert (again.stream, again.epoch) == (view.stream, view.epoch)
    with pytest.raises(AlreadyExistsError):
        await ask("task", "add", {"left": 4}, RunOptions(key="k"))
    other = await ask("task", "add", {"left": 2, "right": 3})
    assert other.stream != view.stream
    assert await ended(ask, view.stream) == "completed"
    assert await messages(ask, view.stream, "result") == [{"value": 5}]


async def test_what_cannot_be_started_is_refused_by_its_kind(ask: Ask) -> None:
    with pytest.raises(UnknownRunnableError):
        await ask("task", "nobody")
    with pytest.raises(UnknownRunnableError):
        await ask("tool", "server", "nobody", {"x": 1})
    with pytest.raises(UnknownRunnableError):
        await ask("program", "nobody")
    with pytest.raises(InvalidError) as caught:
        await ask("task", "add", {"left": "x"})
    assert caught.value.detail["field"] == "arguments.left"
    with pytest.raises(InvalidError):
        await ask("task", "add", {"left": 1}, RunOptions(idle_seconds=0))
    assert (await ask(".list")).streams == []


async def test_a_question_is_answered_once(ask: Ask) -> None:
    await ask("task", "curious", None, RunOptions(name="q"))
    (asked,) = await messages(ask, "q", "input_required")
    summary = await ask("summary", "q")
    assert (summary.stream.stream, summary.complete, summary.messages[-1].kind) == ("q", True, "input_required")
    with pytest.raises(NotFoundError):
        await ask("answer", "q", "another", "green")
    with pytest.raises(InvalidError, match="not of type"):
        await ask("answer", "q", asked["id"], {"colour": "green"})
    seq = await ask("answer", "q", asked["id"], "green")
    assert seq > 1
    with pytest.raises(AlreadyExistsError):
        await ask("answer", "q", asked["id"], "red")
    assert await ended(ask, "q") == "completed"
    assert await messages(ask, "q", "result") == [{"value": "you said green"}]


async def test_a_run_is_tried_again_once(ask: Ask) -> None:
    await ask("task", "broken", None, RunOptions(name="b"))
    assert await ended(ask, "b") == "failed"
    assert (await ask("retry", "b")).stream == "b.2"
    assert (await ask("retry", "b")).stream == "b.2"
    await ask("task", "stuck", None, RunOptions(name="s"))
    with pytest.raises(TransitionError):
        await ask("retry", "s")
    assert (await ask(".cancel", "s")).cancel_requested


async def test_runs_are_listed_apart_in_pages(ask: Ask) -> None:
    for number in range(3):
        await ask(".create", f"plain/{number}")
        await ask("task", "add", {"left": number}, RunOptions(name=f"run/{number}"))
    found: list[str] = []
    page = None
    while True:
        answer = await ask(".list", run=True, limit=2, page=page)
        found += [view.stream for view in answer.streams]
        if (page := answer.next) is None:
            break
    assert found == ["run/2", "run/1", "run/0"]
    assert [view.stream for view in (await ask(".list", run=False)).streams] == ["plain/2", "plain/1", "plain/0"]
    assert len((await ask(".list")).streams) == 6


async def test_what_there_is_to_run_is_told(ask: Ask) -> None:
    (source,) = await ask("available")
    assert source.type == "task"
    assert "add" in {one.name for one in source.runnables}


async def test_too_many_runs_are_told_after_bounded_retries() -> None:
    limits = replace(LIMITS, active_runs_max=1)
    patient = replace(LIMITS, client_retries_max=0)
    async with (
        running_server(limits=limits, catalog=all_tasks()) as server,
        Client(server.url, limits=patient) as client,
    ):
        await client.runs.task("stuck", None, RunOptions(name="a"))
        with pytest.raises(OverloadedError):
            await client.runs.task("stuck", None, RunOptions(name="b"))
