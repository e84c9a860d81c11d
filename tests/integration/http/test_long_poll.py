"""Long polls answer at once when there is news, wait when there is none, and end with their viewer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from tests.support.inprocess import Served, served, store_of
from unbroken.limits import DEFAULT_LIMITS

pytestmark = pytest.mark.anyio

PATH = "/v1/messages/a?live=long-poll"


@pytest.fixture(params=["memory", "sqlite"])
async def server(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Served]:
    async with served(store=store_of(request.param, tmp_path)) as made:
        await made.create("a")
        yield made


async def test_what_is_there_is_given_at_once(server: Served) -> None:
    await server.append("a", "one", "two")
    found = await server.answer(200, "GET", f"{PATH}&after=1")
    assert ([message["text"] for message in found["messages"]], found["cursor"].split(":")[1]) == (["two"], "2")


async def test_an_append_wakes_every_waiting_poll(server: Served) -> None:
    async with asyncio.TaskGroup() as tasks:
        polls = [tasks.create_task(server.answer(200, "GET", PATH)) for _ in range(5)]
        await server.viewers(5)
        await server.append("a", "one", "two")
    for poll in polls:
        found = poll.result()
        assert [message["text"] for message in found["messages"]] == ["one", "two"]
        assert (found["stream"]["head"], found["up_to_date"]) == (2, True)
    assert server.services.hub.subscriptions == 0


async def test_a_change_of_state_wakes_a_poll_and_the_end_is_told_without_waiting(server: Served) -> None:
    for path, state in (("/v1/pause/a", "paused"), ("/v1/close/a", "completed")):
        async with asyncio.TaskGroup() as tasks:
            poll = tasks.create_task(server.answer(200, "GET", PATH))
            await server.viewers(1)
            await server.answer(200, "POST", path)
        assert (poll.result()["stream"]["state"], poll.result()["messages"]) == (state, [])
    assert (await server.answer(200, "GET", PATH))["stream"]["state"] == "completed"


async def test_a_deleted_stream_ends_a_poll(server: Served) -> None:
    async with asyncio.TaskGroup() as tasks:
        poll = tasks.create_task(server.problem(404, "not_found", "GET", PATH))
        await server.viewers(1)
        await server.client.delete("/v1/streams/a")
    assert poll.result()["code"] == "not_found"


async def test_a_viewer_that_leaves_ends_its_poll(server: Served) -> None:
    async with asyncio.timeout(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(f"GET {PATH} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode())
        await server.viewers(1)
        writer.close()
        await server.viewers(0)
        assert await reader.read() == b""


async def test_a_poll_without_news_ends_with_204_in_time() -> None:
    async with served(limits=replace(DEFAULT_LIMITS, long_poll_seconds=0.05)) as server:
        await server.create("a")
        response = await server.client.get(PATH)
        assert (response.status_code, response.content) == (204, b"")
        assert (await server.client.head(PATH)).status_code == 200
        await server.viewers(0)


async def test_draining_does_not_wait() -> None:
    async with served() as server:
        await server.create("a")
        async with asyncio.TaskGroup() as tasks:
            poll = tasks.create_task(server.client.get(PATH))
            await server.viewers(1)
            server.services.draining = True
            response: httpx2.Response = await asyncio.wait_for(poll, 10)
        assert response.status_code == 204
        assert (await server.client.get(PATH)).status_code == 204
