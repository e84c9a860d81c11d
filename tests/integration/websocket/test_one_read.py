"""What one read can hold: however much its bytes stand for, a connection keeps no more than its inbox may."""

from __future__ import annotations

import asyncio
import json
import struct
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from tests.integration.websocket.test_hostile import handshake, masked, until
from tests.support.faulty import FaultyStore
from tests.support.speeds import LOCAL, Running, Speed, running_server
from unbroken.limits import DEFAULT_LIMITS
from unbroken.protocol.frames import PROTOCOL
from unbroken.requests import NewStream
from unbroken.server.inbox import INBOX_MAX

pytestmark = pytest.mark.anyio

DEFLATE = b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
READ_BYTES = 200_000


def offering(port: int) -> bytes:
    """A handshake that offers to compress."""
    return handshake(port)[:-2] + DEFLATE


def bomb(frames: int) -> bytes:
    """Compressed frames of some thousand bytes, each of which stands for seven million."""
    append = {"type": "append", "id": 1, "stream": "a", "messages": [{"text": " " * 1_000_000}] * 7}
    deflate = zlib.compressobj(9, zlib.DEFLATED, -12)
    found = b""
    for payload in (json.dumps({"type": "create", "id": 0, "stream": "b"}), *[json.dumps(append)] * frames):
        packed = (deflate.compress(payload.encode()) + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]
        found += b"\xc1\xff" + struct.pack(">Q", len(packed)) + b"\0\0\0\0" + packed
    return found


@asynccontextmanager
async def streams_to(server: Running) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


@pytest.mark.parametrize("speed", list(Speed))
async def test_compression_is_not_negotiated(speed: Speed) -> None:
    async with (
        running_server(speed) as server,
        connect(
            f"ws://127.0.0.1:{server.port}/v1/ws", subprotocols=[Subprotocol(PROTOCOL)], compression="deflate"
        ) as socket,
        asyncio.timeout(20),
    ):
        assert socket.response is not None
        assert "Sec-WebSocket-Extensions" not in socket.response.headers
        assert json.loads(await socket.recv())["type"] == "hello"
        await socket.send(json.dumps({"type": "create", "id": 1, "stream": "a" * 300}))
        assert json.loads(await socket.recv())["id"] == 1


@pytest.mark.parametrize("speed", list(Speed))
async def test_compressed_frames_are_refused_before_anything_is_inflated(speed: Speed) -> None:
    store = FaultyStore(limits=DEFAULT_LIMITS)
    async with running_server(speed, store=store) as server, streams_to(server) as (reader, writer):
        await server.services.streams.create(LOCAL, "a", NewStream())
        writer.write(offering(server.port))
        async with asyncio.timeout(20):
            await reader.readuntil(b'"hello"')
            (connection,) = server.services.connections
            store.hold()
            writer.write(bomb(4))
            assert b"\x03\xea" in await reader.read()  # 1002
        assert connection._inbox.bytes == 0
        store.release()


class Waits:
    """A middleware that takes its time before it lets a WebSocket through."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.came = asyncio.Event()
        self.admit = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            self.came.set()
            await self.admit.wait()
        await self._app(scope, receive, send)


async def test_what_a_hasty_peer_compressed_before_it_was_answered_does_not_fill_the_inbox(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol  # noqa: PLC0415

    messages = 0
    receive = WebSocketsSansIOProtocol.send_receive_event_to_app

    def noting(self: WebSocketsSansIOProtocol) -> None:
        nonlocal messages
        messages += 1
        receive(self)

    monkeypatch.setattr(WebSocketsSansIOProtocol, "send_receive_event_to_app", noting)
    middlewares: list[Waits] = []
    store = FaultyStore(limits=DEFAULT_LIMITS)

    def around(app: ASGIApp) -> ASGIApp:
        middlewares.append(Waits(app))
        return middlewares[0]

    async with running_server(store=store, around=around) as server, streams_to(server) as (reader, writer):
        writer.write(offering(server.port))
        async with asyncio.timeout(20):
            await middlewares[0].came.wait()
            writer.write(bomb(4))
            await until(lambda: messages >= 5)
            store.hold()
            middlewares[0].admit.set()
            await reader.readuntil(b"too_large")
        assert all(not len(connection._inbox) for connection in server.services.connections)
        store.release()


@pytest.mark.parametrize("speed", list(Speed))
async def test_of_many_small_frames_in_one_read_few_are_taken_while_one_waits_and_none_is_lost(speed: Speed) -> None:
    store = FaultyStore(limits=DEFAULT_LIMITS)
    async with running_server(speed, store=store) as server, streams_to(server) as (reader, writer):
        writer.write(handshake(server.port))
        async with asyncio.timeout(20):
            await reader.readuntil(b'"hello"')
        (connection,) = server.services.connections
        store.hold()
        sent, number = masked(b'{"type":"create","id":0,"stream":"a"}'), 0
        while len(sent) < READ_BYTES:
            number += 1
            sent += masked(
                b'{"type":"lease","id":%d,"stream":"nope","seconds":5,"producer":{"id":"p","epoch":1}}' % number
            )
        writer.write(sent)
        await until(lambda: not connection.reading)
        await asyncio.sleep(0.1)
        most = len(connection._inbox)
        assert INBOX_MAX - 1 <= most <= 4 * INBOX_MAX, "one of them is at work"
        store.release()
        answers = b""
        async with asyncio.timeout(20):
            while b'"id":%d,' % number not in answers:
                data = await reader.read(1_000_000)
                assert data, answers[-300:]
                answers += data
        places = [answers.index(b'"id":%d,' % each) for each in range(number + 1)]
        assert places == sorted(places)


async def test_a_connection_that_is_lost_while_a_read_waits_keeps_nothing() -> None:
    store = FaultyStore(limits=DEFAULT_LIMITS)
    async with running_server(Speed.STANDALONE, store=store) as server:
        async with streams_to(server) as (reader, writer):
            writer.write(handshake(server.port))
            async with asyncio.timeout(20):
                await reader.readuntil(b'"hello"')
            (connection,) = server.services.connections
            store.hold()
            writer.write(masked(b'{"type":"create","id":0,"stream":"a"}') * 5_000)
            await until(lambda: not connection.reading)
        connection.abort(1011, "gone")
        await until(lambda: not server.server.server_state.connections)
        store.release()
        await server.until("connections", 0)
