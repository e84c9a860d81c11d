"""The mock server speaks the protocol, and each of its faults is what it says, as a plain WebSocket client sees it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from unbroken.testing import (
    Abort,
    Disconnect,
    Duplicate,
    Freeze,
    Malformed,
    MockConnection,
    MockWebSocketServer,
    Oversized,
    Reorder,
    Silence,
    Skip,
)

pytestmark = [pytest.mark.anyio, pytest.mark.scenario("INFRA-001")]

CEILING = 60.0


@pytest.fixture
async def server(anyio_backend: str) -> AsyncIterator[MockWebSocketServer]:
    async with MockWebSocketServer(messages_per_frame=1) as server, asyncio.timeout(CEILING):
        yield server


def dial(server: MockWebSocketServer, version: str = "unbroken.v1") -> connect:
    url = server.url.replace("http", "ws", 1) + "/v1/ws"
    return connect(
        url, subprotocols=[Subprotocol(version)], compression=None, ping_interval=None, close_timeout=0.2, max_size=None
    )


@asynccontextmanager
async def viewer(server: MockWebSocketServer) -> AsyncIterator[ClientConnection]:
    """A client that has said hello and follows stream `a`."""
    async with dial(server) as socket:
        assert (await frame(socket))["type"] == "hello"
        await socket.send(json.dumps({"type": "subscribe", "id": 1, "stream": "a"}))
        assert (await frame(socket))["type"] == "subscribed"
        yield socket


async def frame(socket: ClientConnection) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(await socket.recv())
    return decoded


async def closed(socket: ClientConnection) -> None:
    """Read until the connection is closed."""
    with contextlib.suppress(ConnectionClosed):
        async for _ in socket:
            pass


async def firsts(socket: ClientConnection, count: int) -> list[int]:
    """The first seqs of the next `messages` frames."""
    return [(await frame(socket))["first"] for _ in range(count)]


async def test_it_stores_acknowledges_and_delivers(server: MockWebSocketServer) -> None:
    server.write("a", "one")
    async with viewer(server) as socket:
        assert (await frame(socket))["messages"][0]["text"] == "one"
        append = {"type": "append", "id": 2, "stream": "a", "messages": [{"text": "two"}], "producer": {"id": "p"}}
        for duplicate in (False, True):
            await socket.send(json.dumps(append))
            got = [await frame(socket) for _ in range(1 if duplicate else 2)]
            acks = next(each for each in got if each["type"] == "acks")["acks"]
            assert acks == [{"id": 2, "first": 2, "last": 2} | ({"duplicate": True} if duplicate else {})]
        server.write("a", close="completed")
        assert (await frame(socket))["stream"]["state"] == "completed"


@pytest.mark.parametrize(("fault", "code"), [(Disconnect(4401, "why"), 4401), (Disconnect(), 1012), (Abort(), 1006)])
async def test_it_disconnects_when_it_is_told(
    server: MockWebSocketServer, fault: Disconnect | Abort, code: int
) -> None:
    injected = server.inject(fault, after_messages=2)
    server.write("a", "one", "two", "three")
    async with viewer(server) as socket:
        assert await firsts(socket, 2) == [1, 2]
        with pytest.raises(ConnectionClosed):
            await socket.recv()
        assert socket.close_code == code
    assert injected.bites == 1


@pytest.mark.parametrize(
    ("fault", "expected"), [(Duplicate(), [1, 1, 2, 3]), (Skip(), [2, 3]), (Reorder(), [2, 1, 3])], ids=repr
)
async def test_it_doubles_skips_and_swaps(
    server: MockWebSocketServer, fault: Duplicate | Skip | Reorder, expected: list[int]
) -> None:
    server.inject(fault)
    server.write("a", "one", "two", "three")
    async with viewer(server) as socket:
        assert await firsts(socket, len(expected)) == expected


async def test_it_sends_what_is_no_frame_and_what_is_too_large(server: MockWebSocketServer) -> None:
    server.inject(Malformed("{nonsense"))
    server.inject(Oversized(3_000_000), after_messages=1)
    server.write("a", "one", "two")
    async with viewer(server) as socket:
        assert await socket.recv() == "{nonsense"
        assert len(await socket.recv()) == 3_000_000


@pytest.mark.parametrize("fault", [Silence(), Freeze()], ids=repr)
async def test_it_falls_silent_and_frozen_it_answers_no_close_either(
    server: MockWebSocketServer, fault: Silence | Freeze
) -> None:
    injected = server.inject(fault)
    server.write("a", "one")
    async with viewer(server) as socket:
        await injected.bitten()
        await socket.send(json.dumps({"type": "cancel", "id": 3, "stream": "a"}))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await socket.recv()
        await socket.close()
        assert socket.close_code == (1006 if isinstance(fault, Freeze) else 1000)
    stopped = server.log.streams["a"].cancel_requested
    assert stopped == isinstance(fault, Silence)


async def test_it_refuses_handshakes_as_often_as_told(server: MockWebSocketServer) -> None:
    server.refuse(503, headers={"Retry-After": "7"}, times=2)
    for _ in range(2):
        with pytest.raises(InvalidStatus) as caught:
            await dial(server)
        assert (caught.value.response.status_code, caught.value.response.headers["Retry-After"]) == (503, "7")
    async with dial(server):
        assert (server.refused, server.accepted) == (2, 1)


async def test_it_refuses_versions_that_it_does_not_speak(server: MockWebSocketServer) -> None:
    with pytest.raises(InvalidStatus) as caught:
        await dial(server, "unbroken.v9")
    problem = json.loads(caught.value.response.body or b"")
    assert (caught.value.response.status_code, problem["code"]) == (426, "version")
    assert "unbroken.v9" in problem["detail"]


async def test_latency_delays_every_frame(server: MockWebSocketServer) -> None:
    server.latency_seconds = 0.05
    begun = asyncio.get_running_loop().time()
    async with dial(server) as socket:
        await frame(socket)
    assert asyncio.get_running_loop().time() - begun >= 0.05


async def test_it_goes_away_and_comes_back_with_its_streams(server: MockWebSocketServer) -> None:
    server.write("a", "one")
    async with viewer(server) as socket:
        await server.down()
        await closed(socket)
    with pytest.raises(ConnectionRefusedError):
        await dial(server)
    await server.up()
    async with viewer(server) as socket:
        assert await firsts(socket, 1) == [1]


async def test_a_script_replaces_the_protocol() -> None:
    async def script(connection: MockConnection) -> None:
        await connection.send("anything at all")
        await connection.receive()
        await connection.close(4999, "enough")

    async with asyncio.timeout(CEILING), MockWebSocketServer(script=script) as server, dial(server) as socket:
        assert await socket.recv() == "anything at all"
        await socket.send('{"type":"heartbeat"}')
        with pytest.raises(ConnectionClosed):
            await socket.recv()
        assert socket.close_code == 4999


async def test_a_client_that_breaks_the_protocol_is_closed_with_its_code(server: MockWebSocketServer) -> None:
    async with dial(server) as socket:
        await socket.send("{nonsense")
        await closed(socket)
        assert socket.close_code == 4400
