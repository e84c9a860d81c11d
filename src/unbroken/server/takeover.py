"""Taking a WebSocket over from uvicorn after its handshake, so that our own writes replace ASGI's `send`.

The ASGI endpoint calls `take_over` once it has accepted. It works only with the one protocol class of uvicorn whose
internals were checked, in the range of versions that the tests have run with; anything else stays on plain ASGI, with the
same behaviour.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Final, cast

import uvicorn

from unbroken.messages import Principal
from unbroken.server.transport import WebSocket

if TYPE_CHECKING:
    from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

    from unbroken.server.services import Services

__all__ = ["TESTED_FROM", "TESTED_UNTIL", "take_over", "tested_uvicorn", "uvicorn_protocol"]

TESTED_FROM: Final = (0, 53)
TESTED_UNTIL: Final = (0, 55)
"""The first version that has not been tested."""


def tested_uvicorn() -> bool:
    """Whether the uvicorn that is installed is one whose internals the tests have run with."""
    match = re.match(r"(\d+)\.(\d+)", uvicorn.__version__)
    return match is not None and TESTED_FROM <= (int(match[1]), int(match[2])) < TESTED_UNTIL


def uvicorn_protocol(receive: object) -> WebSocketsSansIOProtocol | None:
    """The uvicorn protocol behind an ASGI `receive`, if it is one that can be taken over; else None."""
    if not tested_uvicorn():
        return None
    try:
        from uvicorn.protocols.websockets.websockets_sansio_impl import (  # noqa: PLC0415 - only where uvicorn has it
            WebSocketsSansIOProtocol,
        )
    except ImportError:
        return None
    protocol = getattr(receive, "__self__", None)
    return protocol if type(protocol) is WebSocketsSansIOProtocol else None


async def take_over(protocol: WebSocketsSansIOProtocol, services: Services, principal: Principal) -> None:
    """Move the accepted connection of `protocol` onto a `WebSocket` and wait until it is gone.

    Call it in the same step of the event loop in which the handshake was accepted. On cancellation the socket is closed
    with 1012.
    """
    lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    connections = cast("set[object]", protocol.connections)

    def on_lost(exc: Exception | None) -> None:
        connections.discard(socket)
        connections.add(protocol)
        protocol.connection_lost(exc)
        if not lost.done():
            lost.set_result(None)

    protocol.stop_keepalive()
    socket = WebSocket(services, principal, protocol.transport, protocol.conn, on_lost)
    connections.discard(protocol)
    connections.add(socket)  # so that uvicorn's shutdown closes it our way
    protocol.transport.set_protocol(socket)
    if protocol.read_paused:
        protocol.read_paused = False
        protocol.transport.resume_reading()
    while not protocol.queue.empty():
        event = protocol.queue.get_nowait()
        if event["type"] == "websocket.receive":
            socket.feed(event.get("text") or event.get("bytes") or b"")
    socket.handle_events()
    try:
        await lost
    except asyncio.CancelledError:
        socket.close(1012, "restarting")
        raise
