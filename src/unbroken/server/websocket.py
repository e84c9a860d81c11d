"""The WebSocket face: admits, shakes hands, then carries frames between the socket and a `Connection`.

Mounted at `/v1/ws`. Under uvicorn the socket is taken over after the handshake; everywhere else the plain ASGI path below
carries it, with the same behaviour.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.websockets import WebSocket as StarletteWebSocket

from unbroken.auth.handshake import admit
from unbroken.errors import LifespanError, NotFoundError, UnbrokenError
from unbroken.server.connection import Connection
from unbroken.server.headers import SECURITY
from unbroken.server.problems import problem_response
from unbroken.server.takeover import CARRIED, decline_compression, take_over, uvicorn_protocol
from unbroken.server.wire import CLOSE_SECONDS_MAX, AsgiWire

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from unbroken.identity import Principal
    from unbroken.server.services import Services

__all__ = ["UnknownEndpoint", "WebSocketEndpoint"]


class WebSocketEndpoint:
    """The ASGI application behind `/v1/ws`."""

    def __init__(self, services: Services, *, takeover: bool = True) -> None:
        self._services = services
        self._takeover = takeover

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one handshake and, when it is admitted, its connection until it is gone.

        A connection that was taken over is left to a caller that has asked for it (`CARRIED`).
        """
        socket = StarletteWebSocket(scope, receive, send)
        services = self._services
        try:
            principal, subprotocol = await self._admit(scope)
        except UnbrokenError as error:
            client = scope.get("client")
            services.refused(error, "websocket", client=client[0] if client else "")
            await socket.receive()
            await socket.send_denial_response(problem_response(error, headers=SECURITY))
            return
        await socket.receive()
        protocol = uvicorn_protocol(receive)
        compressing = protocol or uvicorn_protocol(send)
        if compressing is not None:
            decline_compression(compressing)
        await send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": []})
        if protocol is not None and self._takeover:
            carried = take_over(protocol, services, principal)
            if carried is None:
                return
            if CARRIED in scope:
                scope[CARRIED].append(carried)
            else:
                await carried.gone()
        else:
            await self._plain(principal, receive, send)

    async def _admit(self, scope: Scope) -> tuple[Principal, str]:
        services = self._services
        services.connections.check_room()
        if not services.started:
            raise LifespanError
        headers = Headers(scope=scope)
        admission = admit(
            headers,
            scope["subprotocols"],
            callers=services.callers,
            scheme=scope.get("scheme", "ws"),
            server=scope.get("server"),
            peer=scope.get("unbroken.peer"),
        )
        principal = await admission.whose(headers, services.callers, scope)
        services.quotas.handshake(principal)
        return principal, admission.subprotocol

    async def _plain(self, principal: Principal, receive: Receive, send: Send) -> None:
        wire = AsgiWire(bytes_max=self._services.limits.connection_buffer_bytes_max)
        connection = Connection(self._services, principal, wire)
        try:
            async with asyncio.TaskGroup() as tasks:
                reader = tasks.create_task(_read(wire, connection, receive))
                writer = tasks.create_task(_write(wire, connection, send))
                wire.on_abort = writer.cancel  # it may be stuck in `send`, to a peer that takes nothing
                await asyncio.wait([writer])
                if not wire.aborted:
                    await asyncio.wait([reader], timeout=CLOSE_SECONDS_MAX)  # the peer's answer to our close
                reader.cancel()
        finally:
            connection.lost()


class UnknownEndpoint:
    """What asks for a WebSocket at a path that has none."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        socket = StarletteWebSocket(scope, receive, send)
        await socket.receive()
        await socket.send_denial_response(
            problem_response(NotFoundError("there is no WebSocket at this path"), headers=SECURITY)
        )


async def _read(wire: AsgiWire, connection: Connection, receive: Receive) -> None:
    while True:
        await wire.may_read()
        event = await receive()
        if event["type"] != "websocket.receive":
            connection.lost()
            wire.close(1000, "")
            return
        connection.receive(event.get("text") or event.get("bytes") or b"")
        connection.read_ends()


async def _write(wire: AsgiWire, connection: Connection, send: Send) -> None:
    try:
        while (payload := await wire.next()) is not None:
            await send({"type": "websocket.send", "text": payload.decode()})
            if not wire.full:
                connection.writable()
        if wire.closing is not None and not wire.aborted:
            code, reason = wire.closing
            await send({"type": "websocket.close", "code": code, "reason": reason[:120]})
    except (OSError, RuntimeError):
        connection.lost()  # the peer has gone while we were sending
