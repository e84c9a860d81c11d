"""What may happen to a WebSocket between its handshake and the takeover, while a middleware holds the two apart."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.integration.websocket.test_hostile import CLOSE, CONTINUATION, TEXT, handshake, masked, until
from tests.support.speeds import Running, running_server

LOOPS: list[Callable[[], asyncio.AbstractEventLoop]] = [asyncio.new_event_loop, uvloop.new_event_loop]


class Between:
    """A middleware that waits where `at` says: before a WebSocket's handshake is answered, or after."""

    def __init__(self, app: ASGIApp, at: str) -> None:
        self._app = app
        self._at = at
        self.came = asyncio.Event()
        self.go_on = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sent(message: Any) -> None:
            if self._at == "before":
                await self._wait()
            await send(message)
            if self._at == "after":
                await self._wait()

        if scope["type"] == "websocket":
            await self._app(scope, receive, sent)
        else:
            await self._app(scope, receive, send)

    async def _wait(self) -> None:
        self.came.set()
        await self.go_on.wait()


@asynccontextmanager
async def held(at: str) -> AsyncIterator[tuple[Running, Between, asyncio.StreamReader, asyncio.StreamWriter]]:
    """A server, and a peer whose WebSocket the middleware holds back."""
    middlewares: list[Between] = []

    def around(app: ASGIApp) -> ASGIApp:
        middlewares.append(Between(app, at))
        return middlewares[0]

    async with running_server(around=around) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        try:
            writer.write(handshake(server.port))
            async with asyncio.timeout(20):
                await middlewares[0].came.wait()
                if at == "after":
                    await reader.readuntil(b"\r\n\r\n")
            yield server, middlewares[0], reader, writer
        finally:
            writer.transport.abort()


def go(writer: asyncio.StreamWriter, how: str) -> None:
    """The peer leaves."""
    if how == "close":
        writer.write(masked(struct.pack(">H", 1000), CLOSE))
    elif how == "fin":
        writer.write_eof()
    elif how == "reset":
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
    elif how == "fragment and reset":
        go_after(writer, masked(b'{"type":', TEXT, fin=False))
    else:
        go_after(writer, masked(b'{"type":"create","id":1,"stream":"a"}'))


def go_after(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    go(writer, "reset")


async def leaves_nothing(at: str, how: str) -> None:
    problems: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
    async with held(at) as (server, middleware, _, writer):
        state = server.server.server_state
        (protocol,) = state.connections
        go(writer, how)
        if how in {"close", "fin", "reset"}:  # uvicorn reads on, so it notices before the takeover
            await until(protocol.transport.is_closing)
        middleware.go_on.set()
        await until(lambda: not state.connections and not state.tasks and not server.count("connections"))
    assert not problems


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("at", ["before", "after"])
@pytest.mark.parametrize("how", ["close", "fin", "reset", "fragment and reset", "message and reset"])
def test_a_peer_that_goes_before_the_takeover_leaves_nothing(
    loop: Callable[[], asyncio.AbstractEventLoop], at: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    with asyncio.Runner(loop_factory=loop) as runner, caplog.at_level(logging.WARNING):
        runner.run(leaves_nothing(at, how))
    assert [record for record in caplog.records if record.exc_info or record.levelno >= logging.ERROR] == []


@pytest.mark.parametrize("loop", LOOPS)
def test_a_peer_that_goes_in_the_step_of_the_takeover_leaves_nothing(
    loop: Callable[[], asyncio.AbstractEventLoop], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its end is on its way to uvicorn's protocol already when ours takes that one's place, as it can be under TLS."""
    from unbroken.server import takeover, websocket  # noqa: PLC0415

    def overtaken(protocol: Any, *rest: Any) -> takeover.Carried | None:
        asyncio.get_running_loop().call_soon(protocol.connection_lost, None)
        return takeover.take_over(protocol, *rest)

    async def scenario() -> None:
        async with held("after") as (server, middleware, _, _writer):
            state = server.server.server_state
            middleware.go_on.set()
            await until(lambda: not state.connections and not state.tasks and not server.count("connections"))

    monkeypatch.setattr(websocket, "take_over", overtaken)
    with asyncio.Runner(loop_factory=loop) as runner, caplog.at_level(logging.WARNING):
        runner.run(scenario())
    assert [record for record in caplog.records if record.exc_info] == []


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("cut", [0, 10, 21])
@pytest.mark.parametrize("partial", [0, 3])
def test_a_message_that_the_takeover_falls_into_the_middle_of_arrives_whole(
    loop: Callable[[], asyncio.AbstractEventLoop], cut: int, partial: int
) -> None:
    whole = b'{"type":"create","id":1,"stream":"a"}'
    first = masked(whole[:cut], TEXT, fin=False) + masked(whole[cut:30], CONTINUATION, fin=False)
    last = masked(whole[30:], CONTINUATION)

    async def scenario() -> None:
        async with held("after") as (server, middleware, reader, writer):
            (protocol,) = server.server.server_state.connections
            writer.write(first + last[:partial])
            await until(lambda: len(getattr(protocol, "frames", ())) == 2)
            middleware.go_on.set()
            async with asyncio.timeout(20):
                await reader.readuntil(b'"hello"')
                writer.write(last[partial:] + masked(b'{"type":"create","id":2,"stream":"b"}'))
                await reader.readuntil(b'"id":1')
                await reader.readuntil(b'"id":2')

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(scenario())
