"""Waiting on the Durable Streams face: resuming, ending, leaving, and the bounds of waiting."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from tests.support.inprocess import CEILING_SECONDS, Events, Served, served
from unbroken.limits import DEFAULT_LIMITS
from unbroken.protocol.sse import ServerEvent

pytestmark = pytest.mark.anyio
TEXT = {"Content-Type": "text/plain"}


@pytest.fixture
async def server() -> AsyncIterator[Served]:
    async with served() as running:
        yield running


async def put(server: Served, name: str, body: str = "") -> str:
    response = await server.client.put(f"/v1/stream/{name}", content=body, headers=TEXT)
    assert response.status_code == 201
    return str(response.headers["stream-next-offset"])


async def post(server: Served, name: str, body: str, **headers: str) -> str:
    response = await server.client.post(f"/v1/stream/{name}", content=body, headers={**TEXT, **headers})
    assert response.status_code == 204
    return str(response.headers["stream-next-offset"])


async def pair(events: Events) -> tuple[ServerEvent, dict[str, object]]:
    """The next data event and what the control event behind it says."""
    data = await events.next()
    assert data is not None
    assert data.event == "data"
    control = await events.next()
    assert control is not None
    assert control.event == "control"
    return data, json.loads(control.data)


async def test_every_batch_is_followed_by_where_its_reader_is(server: Served) -> None:
    await put(server, "a", "one")
    async with server.events("/v1/stream/a?offset=-1&live=sse") as events:
        data, control = await pair(events)
        assert (data.data, control["upToDate"]) == ("one", True)
        for text in ("two", "three"):
            offset = await post(server, "a", text)
            data, control = await pair(events)
            assert (data.data, data.id, control["streamNextOffset"]) == (text, offset, offset)


@pytest.mark.scenario("TC-INT-002a")
async def test_the_last_event_id_goes_before_the_query(server: Served) -> None:
    first = await put(server, "a", "one")
    await post(server, "a", "two")
    url = "/v1/stream/a?offset=-1&live=sse"
    async with server.events(url, {"Last-Event-ID": first}) as events:
        assert (await pair(events))[0].data == "two"
    async with server.events(url, {"Last-Event-ID": "something else"}) as events:
        assert (await pair(events))[0].data == "onetwo"


async def test_a_closed_stream_ends_the_response_behind_its_last_message(server: Served) -> None:
    await put(server, "a")
    async with server.events("/v1/stream/a?offset=-1&live=sse") as events:
        assert await events.next() is not None
        await server.viewers(1)
        last = await post(server, "a", "bye", **{"Stream-Closed": "true"})
        found = await events.rest()
    assert [event.data for event in found if event.event == "data"] == ["bye"]
    assert json.loads(found[-1].data) == {"streamNextOffset": last, "upToDate": True, "streamClosed": True}
    assert sum("streamClosed" in event.data for event in found) == 1


async def test_the_response_ends_after_its_time_and_beats_before() -> None:
    limits = replace(DEFAULT_LIMITS, sse_seconds_max=0.5, heartbeat_seconds=0.1)
    async with served(limits=limits) as server:
        await put(server, "a")
        async with server.events("/v1/stream/a?offset=-1&live=sse") as events:
            found = await events.rest()
        assert [event.event for event in found] == ["control"]
        assert b": heartbeat\n\n" in events.raw


async def test_a_draining_server_ends_its_responses(server: Served) -> None:
    tail = await put(server, "a")
    async with server.events("/v1/stream/a?offset=-1&live=sse") as events, asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(server.client.get(f"/v1/stream/a?offset={tail}&live=long-poll"))
        await server.viewers(2)
        server.services.draining = True
        async with asyncio.timeout(CEILING_SECONDS):
            assert (await waiting).status_code == 204
            assert [event.event for event in await events.rest()] == ["control"]


async def test_a_reader_that_leaves_is_forgotten(server: Served) -> None:
    tail = await put(server, "a")
    async with server.events("/v1/stream/a?offset=-1&live=sse") as events:
        assert await events.next() is not None
        await server.viewers(1)
    await server.viewers(0)
    async with asyncio.TaskGroup() as tasks:
        poll = tasks.create_task(server.client.get(f"/v1/stream/a?offset={tail}&live=long-poll"))
        await server.viewers(1)
        poll.cancel()
    await server.viewers(0)
    exposed = (await server.client.get("/metrics")).text
    assert 'unbroken_connections{face="durable-streams"} 0.0' in exposed


async def test_deleting_ends_those_who_wait(server: Served) -> None:
    tail = await put(server, "a")
    async with server.events("/v1/stream/a?offset=-1&live=sse") as events, asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(server.client.get(f"/v1/stream/a?offset={tail}&live=long-poll"))
        await server.viewers(2)
        assert (await server.client.delete("/v1/stream/a")).status_code == 204
        async with asyncio.timeout(CEILING_SECONDS):
            assert (await waiting).status_code == 404
            await events.rest()


async def test_there_are_at_most_so_many_readers_waiting() -> None:
    async with served(limits=replace(DEFAULT_LIMITS, connections_max=1)) as server:
        await put(server, "a")
        async with server.events("/v1/stream/a?offset=-1&live=sse") as events:
            assert await events.next() is not None
            await server.problem(429, "overloaded", "GET", "/v1/stream/a?offset=-1&live=sse")
            assert (await server.client.get("/v1/stream/a")).status_code == 200


async def test_readers_of_one_stream_get_the_same_bytes(server: Served) -> None:
    await put(server, "a")
    url = "/v1/stream/a?offset=-1&live=sse&cursor=0"
    async with server.events(url) as one, server.events(url) as other:
        await server.viewers(2)
        for text in ("x\r\ny", " z", ""):
            await post(server, "a", text or "end", **({} if text else {"Stream-Closed": "true"}))
        assert [event.data for event in await one.rest() if event.event == "data"] == [
            event.data for event in await other.rest() if event.event == "data"
        ]


async def test_a_fork_is_not_woken_by_its_source(server: Served) -> None:
    await put(server, "a", "one")
    await server.client.put("/v1/stream/fork", headers={**TEXT, "Stream-Forked-From": "/v1/stream/a"})
    async with server.events("/v1/stream/fork?offset=now&live=sse") as events:
        assert await events.next() is not None
        await server.viewers(1)
        await post(server, "a", "of the source")
        await post(server, "fork", "own")
        assert (await pair(events))[0].data == "own"


async def test_a_reader_that_takes_nothing_is_let_go_after_its_time() -> None:
    limits = replace(DEFAULT_LIMITS, sse_seconds_max=0.5, silence_seconds_max=0.2)
    async with served(limits=limits) as server:
        await put(server, "a")
        for _ in range(24):  # more than the sockets' buffers hold
            await post(server, "a", "x" * 1_000_000)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1)
        writer.write(f"GET /v1/stream/a?offset=-1&live=sse HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode())
        await server.viewers(1)
        await server.viewers(0)
        writer.close()
        assert not reader.at_eof()
