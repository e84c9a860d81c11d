"""A WebSocket that was taken over inside an application: what it lets go of, and what the application still gets."""

from __future__ import annotations

import asyncio
import gc
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.asyncio.client import connect
from websockets.frames import Frame, Opcode
from websockets.typing import Subprotocol

from tests.integration.embed.host import Hosted, hosted
from unbroken import Unbroken
from unbroken.protocol.frames import PROTOCOL
from unbroken.server.frames import Frames
from unbroken.server.wire import TransportWire

pytestmark = pytest.mark.anyio

PATH = "/streams/v1/ws"
HANDSHAKE = (
    f"GET {PATH} HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    f"Sec-WebSocket-Protocol: {PROTOCOL}\r\nX-Of-The-Application: kept\r\n\r\n"
)


def included(unbroken: Unbroken) -> Any:
    app = FastAPI()
    app.include_router(unbroken.router, prefix="/streams")
    return app


def mounted(unbroken: Unbroken) -> Any:
    return Starlette(routes=[Mount("/streams", app=unbroken.asgi)], lifespan=unbroken.lifespan)


class Attends:
    """A middleware that notes what it is told of each WebSocket, and that can hold one back before its handshake."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.events: list[str] = []
        self.scopes: list[Scope] = []
        self.heard: list[Any] = []
        self.admit = asyncio.Event()
        self.admit.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            await self._app(scope, receive, send)
            return

        accepted = asyncio.Event()

        async def sent(message: Any) -> None:
            await send(message)
            accepted.set()

        async def listen() -> None:
            await accepted.wait()
            await asyncio.sleep(0)
            self.heard.append(await receive())

        self.events.append("came")
        await self.admit.wait()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(listen())
            await self._app(scope, receive, sent)
            self.events.append("returned")
        self.scopes.append(scope)


@asynccontextmanager
async def raw(host: Hosted) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection that has sent its handshake: nothing in this process but two streams."""
    reader, writer = await asyncio.open_connection("127.0.0.1", host.port)
    try:
        writer.write(HANDSHAKE.replace("PORT", str(host.port)).encode())
        yield reader, writer
    finally:
        writer.transport.abort()


def kept() -> Counter[str]:
    """What the collector knows of that belongs to handshakes, queues and suspended calls."""
    gc.collect()
    found: Counter[str] = Counter()
    for thing in gc.get_objects():
        kind, module = type(thing), str(type(thing).__module__)
        if kind.__name__ == "coroutine":
            found[thing.__qualname__] += 1
        elif module.startswith("websockets.") or kind is Frames or kind.__name__ in {"Queue", "Event"}:
            found[f"{module}.{kind.__qualname__}"] += 1
    return found


@pytest.mark.parametrize("application", [included, mounted])
async def test_an_idle_websocket_keeps_nothing_of_its_handshake(application: Any) -> None:
    unbroken = Unbroken("memory:")
    async with hosted(application(unbroken)) as host, raw(host) as (first, _):
        await first.readuntil(b'"hello"')
        before = kept()
        async with raw(host) as (reader, _):
            await reader.readuntil(b'"hello"')
            assert all(isinstance(connection._wire, TransportWire) for connection in unbroken.services.connections)
            more = kept() - before
    handshakes = ("websockets.", "asyncio.", "unbroken.server.frames.")
    assert {name: count for name, count in more.items() if name.startswith(handshakes)} == {
        "unbroken.server.frames.Frames": 1,
        "websockets.streams.StreamReader": 1,
    }
    ours = {name for name in more if name.startswith(("ProblemMiddleware", "WebSocketEndpoint", "_Face", "Carried"))}
    assert ours == {"_Face.__call__", "Carried.gone"}


@pytest.mark.parametrize("application", [included, mounted])
async def test_a_middleware_is_returned_to_when_the_connection_has_gone_and_told_so(application: Any) -> None:
    middleware = Attends(application(Unbroken("memory:")))
    async with hosted(middleware) as host:
        async with raw(host) as (reader, _):
            await reader.readuntil(b'"hello"')
            await asyncio.sleep(0.05)
            assert (middleware.events, middleware.heard) == (["came"], [])
        async with asyncio.timeout(20):
            while not middleware.scopes:
                await asyncio.sleep(0.005)
        (scope,), (heard,) = middleware.scopes, middleware.heard
        assert middleware.events == ["came", "returned"]
        assert heard["type"] == "websocket.disconnect"
        assert scope["path"] == PATH
        assert dict(scope["headers"])[b"x-of-the-application"] == b"kept"
        assert not [key for key in scope if key.startswith("unbroken")]


CREATE = json.dumps({"type": "create", "id": 1, "stream": "a"}).encode()
FRAME = Frame(Opcode.TEXT, CREATE).serialize(mask=True)


@pytest.mark.parametrize("early", [1, 2, 7, len(FRAME) - 1, len(FRAME)])
async def test_what_a_hasty_peer_sends_before_its_handshake_is_done_is_not_lost(
    early: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrived = bytearray()
    data_received = WebSocketsSansIOProtocol.data_received

    def noting(self: WebSocketsSansIOProtocol, data: bytes) -> None:
        if not data.startswith(b"GET "):
            arrived.extend(data)
        data_received(self, data)

    monkeypatch.setattr(WebSocketsSansIOProtocol, "data_received", noting)
    middleware = Attends(included(Unbroken("memory:")))
    middleware.admit.clear()
    async with hosted(middleware) as host, raw(host) as (reader, writer), asyncio.timeout(20):
        while not middleware.events:
            await asyncio.sleep(0.005)
        writer.write(FRAME[:early])
        while len(arrived) < early:
            await asyncio.sleep(0.005)
        middleware.admit.set()
        await reader.readuntil(b'"hello"')
        writer.write(FRAME[early:])
        await reader.readuntil(b'"result"')


@pytest.mark.parametrize("application", [included, mounted])
async def test_a_connection_that_offers_to_compress_goes_on_uncompressed(application: Any) -> None:
    async with hosted(application(Unbroken("memory:")), ws_per_message_deflate=True) as host:
        url = f"ws://127.0.0.1:{host.port}{PATH}"
        async with (
            asyncio.timeout(20),
            connect(url, subprotocols=[Subprotocol(PROTOCOL)], compression="deflate") as socket,
        ):
            assert "Sec-WebSocket-Extensions" not in socket.response.headers  # type: ignore[union-attr]
            assert json.loads(await socket.recv())["type"] == "hello"
            for number in range(3):
                await socket.send(json.dumps({"type": "create", "id": number, "stream": "a" * 300}))
                assert json.loads(await socket.recv())["id"] == number
