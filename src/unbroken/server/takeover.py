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
from websockets.protocol import Protocol, Side, State
from websockets.streams import StreamReader

from unbroken.messages import Principal
from unbroken.server.transport import WebSocket

if TYPE_CHECKING:
    from uvicorn._types import ASGIReceiveEvent
    from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
    from websockets.server import ServerProtocol

    from unbroken.server.services import Services

__all__ = ["CARRIED", "TESTED_FROM", "TESTED_UNTIL", "Carried", "take_over", "tested_uvicorn", "uvicorn_protocol"]

TESTED_FROM: Final = (0, 53)
TESTED_UNTIL: Final = (0, 55)
"""The first version that has not been tested."""
CARRIED: Final = "unbroken.carried"
"""In a WebSocket's scope: a list for its `Carried`, from a caller that waits for it itself once the application has returned.

So all frames between that caller and the endpoint are gone while the connection lives.
"""
_WRITABLE: Final = asyncio.Event()
"""Set for ever: uvicorn's protocol learns nothing more of the transport, so its `send` would wait for nothing."""
_WRITABLE.set()


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


class Carried:
    """A connection that was taken over; the ASGI call that it came with must not end before it."""

    __slots__ = ("_lost", "_socket")

    def __init__(self, socket: WebSocket, lost: asyncio.Future[None]) -> None:
        self._socket = socket
        self._lost = lost

    async def gone(self) -> None:
        """Wait until the connection is gone. On cancellation the socket is closed with 1012."""
        try:
            await self._lost
        except asyncio.CancelledError:
            self._socket.close(1012, "restarting")
            raise


def take_over(protocol: WebSocketsSansIOProtocol, services: Services, principal: Principal) -> Carried:
    """Move the accepted connection of `protocol` onto a `WebSocket`.

    Call it in the same step of the event loop in which the handshake was accepted.
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
    early = _messages(protocol)
    socket = WebSocket(services, principal, protocol.transport, _lighten(protocol), on_lost)
    connections.discard(protocol)
    connections.add(socket)  # so that uvicorn's shutdown closes it our way
    protocol.transport.set_protocol(socket)
    if protocol.read_paused:
        protocol.read_paused = False
        protocol.transport.resume_reading()
    for message in early:
        socket.feed(message)
    socket.handle_events()
    return Carried(socket, lost)


def _messages(protocol: WebSocketsSansIOProtocol) -> list[str | bytes]:
    """What the peer sent before the takeover."""
    found: list[str | bytes] = []
    while not protocol.queue.empty():
        event = protocol.queue.get_nowait()
        if event["type"] == "websocket.receive":
            found.append(event.get("text") or event.get("bytes") or b"")
    return found


def _lighten(protocol: WebSocketsSansIOProtocol) -> Protocol:
    """Let go of what only the handshake needed, most of what an idle connection costs; gives the parser that goes on."""
    conn = protocol.conn
    if _between_frames(conn):
        bounds = (conn.max_message_size, conn.max_fragment_size)
        frames = Protocol(Side.SERVER, state=State.OPEN, max_size=bounds, logger=conn.logger)
        frames.extensions = conn.extensions
        protocol.conn = frames  # type: ignore[assignment]
        del protocol.request, protocol.response
    if not getattr(protocol.queue, "_getters", True):
        protocol.queue = cast("asyncio.Queue[ASGIReceiveEvent]", _Unmade(protocol))
    protocol.writable = _WRITABLE
    return protocol.conn


def _between_frames(conn: ServerProtocol) -> bool:
    """Whether a fresh parser may go on: nothing of a frame has been received, not even part of its header."""
    waiting = getattr(getattr(conn.parser, "gi_yieldfrom", None), "gi_yieldfrom", None)
    resting = getattr(waiting, "gi_code", None) is StreamReader.at_eof.__code__
    return resting and not conn.reader.buffer and not conn.events and conn.state is State.OPEN


class _Unmade:
    """Stands in for a protocol's queue until somebody uses it; mostly that is its end alone."""

    __slots__ = ("_protocol",)

    def __init__(self, protocol: WebSocketsSansIOProtocol) -> None:
        self._protocol = protocol

    def __getattr__(self, name: str) -> object:
        queue = self._protocol.queue = asyncio.Queue()
        return getattr(queue, name)
