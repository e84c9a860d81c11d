"""The way past ASGI for the body of a long response: whole pieces, written straight to uvicorn's transport.

A response begins and ends through ASGI's `send`, so that headers, keep-alive, access log, timers and shutdown stay uvicorn's
and the application's own. In between, pieces that many viewers share need not be awaited, framed and written for each of
them. Only the frame around our outgoing pieces is our own; it is used only where uvicorn was seen to write the same.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, cast

from unbroken.server.guard import Inbound
from unbroken.server.takeover import tested_uvicorn
from unbroken.server.undelivered import Undelivered, tells

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import Receive, Scope, Send
    from uvicorn.protocols.http.flow_control import FlowControl

__all__ = ["Delivery", "Direct", "begin_body", "cut_off", "piece"]

TESTED: Final = frozenset(
    {
        "uvicorn.protocols.http.h11_impl.RequestResponseCycle",
        "uvicorn.protocols.http.httptools_impl.RequestResponseCycle",
    }
)


class _Cycle(Protocol):
    """What is used of uvicorn's object behind one request and its response."""

    flow: FlowControl
    transport: asyncio.Transport
    on_response: Callable[[], None]


class _Connections(Protocol):
    """What is used of uvicorn's protocols."""

    connections: set[object]


class Direct:
    """The body of one response on its way, beside `send`. Never use it while a `send` is not finished."""

    __slots__ = ("_flow", "_transport")

    def __init__(self, cycle: _Cycle) -> None:
        self._flow = cycle.flow
        self._transport = cycle.transport

    def write(self, data: bytes) -> bool:
        """Write one `piece`; False, and nothing written, when the socket takes no more now or never again."""
        if self._flow.write_paused or self._transport.is_closing():
            return False
        self._transport.write(data)
        return True


def piece(data: bytes) -> bytes:
    """`data` as one chunk of HTTP/1.1's chunked transfer coding (RFC 9112, section 7.1)."""
    assert data, "an empty chunk would end the body"
    return b"%x\r\n%b\r\n" % (len(data), data)


async def begin_body(scope: Scope, receive: Receive, send: Send, first: bytes) -> Direct | None:
    """Send `first` as the first piece of the body; gives the way past `send` where there is one.

    There is one with the protocol classes and versions of uvicorn that were tested, when `first` reached the
    transport as exactly one chunk: no middleware has changed it or kept it back, and the response is in chunks.
    """
    cycle = _cycle(scope, receive)
    message = {"type": "http.response.body", "body": first, "more_body": True}
    if cycle is None:
        await send(message)
        return None
    transport = cycle.transport
    witness = _Witness(transport)
    cycle.transport = cast("asyncio.Transport", witness)
    try:
        await send(message)
    finally:
        cycle.transport = transport
    return Direct(cycle) if witness.seen == piece(first) else None


async def cut_off(scope: Scope, receive: Receive) -> None:
    """Close the request's connection: what its peer has not taken by now is lost.

    Where the server is not one that was tested nothing happens: it closes the connection when the peer has taken the rest.
    """
    cycle = _cycle(scope, receive)
    if cycle is not None:
        cycle.transport.abort()
        await asyncio.sleep(0)  # until uvicorn knows, which takes a response without an end for a mistake otherwise


class Delivery:
    """Looks after one response: a peer that does not take what waits for it for `seconds` is cut off.

    `unbroken serve` does that for each connection. In an application's own server it is done here, for responses with large
    pieces, where the server is one that was tested and the kernel tells what is taken (Linux).
    """

    __slots__ = ("_found", "_receive", "_scope", "_seconds", "_undelivered")

    def __init__(self, scope: Scope, receive: Receive, seconds: float) -> None:
        self._scope = scope
        self._receive = receive
        self._seconds = seconds
        self._found = False
        self._undelivered: Undelivered | None = None

    @property
    def looked_after(self) -> bool:
        """Whether somebody does: the server itself, or this."""
        cycle = _cycle(self._scope, self._receive)
        return cycle is not None and (_protocol(cycle) is None or tells(cycle.transport))

    def answered(self) -> None:
        """All of the response was sent but its formal end, which waits for the rest of the request."""
        cycle = _cycle(self._scope, self._receive)
        falls_silent = None if cycle is None else getattr(_owner(cycle), "falls_silent", None)
        if falls_silent is not None:
            falls_silent()

    def watch(self) -> None:
        """Something large is about to be sent, or was."""
        if not self._found:
            self._found = True
            cycle = _cycle(self._scope, self._receive)
            protocol = None if cycle is None else _protocol(cycle)
            if cycle is not None and protocol is not None and tells(cycle.transport):
                gone = partial(_is_gone, protocol)
                self._undelivered = Undelivered(cycle.transport, self._seconds, gone=gone)
        if self._undelivered is not None:
            self._undelivered.watch()


class _Witness:
    """Stands in for a transport during one `send` and remembers what is written."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.seen = b""

    def write(self, data: bytes) -> None:
        self.seen += data
        self._transport.write(data)

    def __getattr__(self, name: str) -> object:
        return getattr(self._transport, name)


def _cycle(scope: Scope, receive: Receive) -> _Cycle | None:
    if scope.get("http_version") != "1.1" or not tested_uvicorn():
        return None
    owner = getattr(receive, "__self__", None)
    while isinstance(owner, Inbound):
        owner = getattr(owner.source, "__self__", None)
    kind = type(owner)
    return cast("_Cycle", owner) if f"{kind.__module__}.{kind.__qualname__}" in TESTED else None


def _protocol(cycle: _Cycle) -> _Connections | None:
    """The protocol of an application's own server, which looks after no answers; None for ours, which does."""
    owner = _owner(cycle)
    return None if owner is None or getattr(owner, "looks_after_answers", False) else cast("_Connections", owner)


def _owner(cycle: _Cycle) -> object:
    """The protocol behind a request that is not answered yet."""
    return getattr(cycle.on_response, "__self__", None)


def _is_gone(protocol: _Connections) -> bool:
    return protocol not in protocol.connections
