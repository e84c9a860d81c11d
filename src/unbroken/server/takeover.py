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
from websockets.protocol import Protocol, State

from unbroken.errors import TooLargeError
from unbroken.identity import Principal
from unbroken.server.frames import Frames, between_frames
from unbroken.server.transport import WebSocket
from unbroken.server.wire import CLOSE_SECONDS_MAX

if TYPE_CHECKING:
    from uvicorn._types import ASGIReceiveEvent
    from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

    from unbroken.server.services import Services

__all__ = [
    "CARRIED",
    "TESTED_FROM",
    "TESTED_UNTIL",
    "Carried",
    "decline_compression",
    "take_over",
    "tested_uvicorn",
    "uvicorn_protocol",
]

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


def decline_compression(protocol: WebSocketsSansIOProtocol) -> None:
    """Take back what uvicorn is about to agree to: some kilobytes of compressed frames can stand for gigabytes.

    Call it before the handshake is accepted.
    """
    protocol.conn.extensions = []
    headers = protocol.response.headers
    if "Sec-WebSocket-Extensions" in headers:
        del headers["Sec-WebSocket-Extensions"]


def take_over(protocol: WebSocketsSansIOProtocol, services: Services, principal: Principal) -> Carried | None:
    """Move the connection of `protocol`, whose handshake was accepted, onto a `WebSocket`; None if it has gone already."""
    loop = asyncio.get_running_loop()
    if _left_alone(protocol):
        return None
    lost: asyncio.Future[None] = loop.create_future()
    connections = cast("set[object]", protocol.connections)

    def on_lost(exc: Exception | None) -> None:
        if not protocol.disconnected:
            connections.add(protocol)
            protocol.connection_lost(exc)
        if not lost.done():
            lost.set_result(None)

    def settle() -> None:
        if not protocol.disconnected:
            connections.discard(protocol)
        elif not lost.done():
            socket.connection_lost(None)

    protocol.stop_keepalive()
    early = _messages(protocol)
    fragments = None if protocol.conn.current_size is None else b"".join(protocol.frames)
    protocol.frames = []
    socket = WebSocket(services, principal, protocol.transport, _lighten(protocol), connections, on_lost)
    protocol.transport.set_protocol(socket)
    if protocol.read_paused:
        protocol.read_paused = False
        protocol.transport.resume_reading()
    if sum(map(len, early)) > 2 * services.limits.frame_bytes_max:  # more than a frame and a read: it was inflated
        early = []
        socket.refuse(TooLargeError("too much before the handshake was done", limit="frame_bytes_max"))
    socket.begin(early, fragments)
    loop.call_soon(settle)  # the end of a connection may have been on its way to `protocol` already
    return Carried(socket, lost)


def _left_alone(protocol: WebSocketsSansIOProtocol) -> bool:
    """Whether the peer has gone, or is going; then the rest is uvicorn's, in bounded time."""
    if not protocol.disconnected:
        if protocol.conn.state is State.OPEN and not protocol.transport.is_closing():
            return False
        loop = asyncio.get_running_loop()
        loop.call_later(CLOSE_SECONDS_MAX, protocol.transport.abort)  # should it not take what is on its way
    protocol.handshake_complete = protocol.close_sent = True  # nothing more is to be said to it, nor logged
    return True


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
    if between_frames(conn) and not conn.events:  # a fresh parser may go on
        frames = Frames((conn.max_message_size, conn.max_fragment_size))
        frames.current_size = conn.current_size
        protocol.conn = frames  # type: ignore[assignment]
        del protocol.request, protocol.response
    protocol.conn.debug = False  # a frame's contents are not for the log
    if not getattr(protocol.queue, "_getters", True):
        protocol.queue = cast("asyncio.Queue[ASGIReceiveEvent]", _Unmade(protocol))
    protocol.writable = _WRITABLE
    return protocol.conn


class _Unmade:
    """Stands in for a protocol's queue until somebody uses it; mostly that is its end alone."""

    __slots__ = ("_protocol",)

    def __init__(self, protocol: WebSocketsSansIOProtocol) -> None:
        self._protocol = protocol

    def __getattr__(self, name: str) -> object:
        queue = self._protocol.queue = asyncio.Queue()
        return getattr(queue, name)
