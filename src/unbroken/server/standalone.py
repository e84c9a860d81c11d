"""The WebSocket face without ASGI: `unbroken serve` gives this class to uvicorn as its WebSocket protocol.

The handshake of `/v1/ws` is answered here, so that an idle connection costs a few kilobytes and no task. Any other path is
handed to uvicorn's own protocol, and so to the application.
"""

from __future__ import annotations

import asyncio
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, cast

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.protocol import Protocol, Side, State
from websockets.server import ServerProtocol

from unbroken.auth.handshake import admit
from unbroken.errors import UnbrokenError
from unbroken.identity import Principal
from unbroken.server.problems import problem_response
from unbroken.server.transport import WebSocket

if TYPE_CHECKING:
    from collections.abc import Callable

    from uvicorn.config import Config
    from uvicorn.server import ServerState

    from unbroken.server.services import Services

__all__ = ["PATH", "standalone_protocol"]

PATH = "/v1/ws"


def standalone_protocol(services: Services) -> Callable[..., asyncio.Protocol]:
    """What to give to `uvicorn.Config(ws=…)`."""
    return partial(_Handshake, services)


class _Handshake(asyncio.Protocol):
    """Waits for the request, decides, and puts the protocol onto the transport that carries the rest."""

    def __init__(
        self,
        services: Services,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, object],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._services = services
        self._delegate = partial(WebSocketsSansIOProtocol, config, server_state, app_state, _loop)
        self._connections = cast("set[object]", server_state.connections)
        self._conn = ServerProtocol(max_size=services.limits.frame_bytes_max)
        self._received = b""
        self._successor: asyncio.Protocol | None = None
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        if self._successor is not None:
            self._successor.connection_lost(exc)  # the peer went before the successor was set

    def shutdown(self) -> None:
        """uvicorn stops before the handshake was done."""
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._received += data
        conn = self._conn
        conn.receive_data(data)
        events = conn.events_received()
        if events and isinstance(events[0], Request):
            request = events[0]
            if request.path.partition("?")[0] == PATH:
                self._answer(request)
            else:
                self._hand_over()
        elif conn.handshake_exc is not None or conn.parser_exc is not None:
            self._transport.close()

    def _hand_over(self) -> None:
        """Not ours: begin again with uvicorn's protocol."""
        self._connections.discard(self)
        protocol = self._delegate()
        protocol.connection_made(self._transport)
        self._become(protocol)
        protocol.data_received(self._received)

    def _become(self, protocol: asyncio.Protocol) -> None:
        """Leave the transport to `protocol`, from the next step on: uvicorn sets us as its protocol after this one."""
        self._successor = protocol
        asyncio.get_running_loop().call_soon(self._transport.set_protocol, protocol)

    def _answer(self, request: Request) -> None:
        conn = self._conn
        response = conn.accept(request)
        principal: Principal | None = None
        if response.status_code == HTTPStatus.SWITCHING_PROTOCOLS:
            try:
                principal, subprotocol = self._admit(request)
                response.headers["Sec-WebSocket-Protocol"] = subprotocol
            except UnbrokenError as error:
                self._services.metrics.refused(error)
                response = _refusal(error)
        conn.send_response(response)
        self._transport.write(b"".join(conn.data_to_send()))
        self._connections.discard(self)
        if principal is None:
            self._transport.close()
            return
        connections = self._connections
        # What the handshake held is three quarters of an idle connection's memory: a fresh protocol goes on without it.
        frames = Protocol(Side.SERVER, state=State.OPEN, max_size=self._services.limits.frame_bytes_max)
        socket = WebSocket(self._services, principal, self._transport, frames, lambda _exc: connections.discard(socket))
        connections.add(socket)
        self._become(socket)
        early = self._received.partition(b"\r\n\r\n")[2]
        if early:
            socket.data_received(early)

    def _admit(self, request: Request) -> tuple[Principal, str]:
        services = self._services
        services.connections.check_room()
        offered = [
            name.strip() for line in request.headers.get_all("Sec-WebSocket-Protocol") for name in line.split(",")
        ]
        admission = admit(
            request.headers,
            offered,
            access=services.access,
            tickets=services.tickets,
            scheme="ws" if self._transport.get_extra_info("sslcontext") is None else "wss",
            server=self._transport.get_extra_info("sockname")[:2],
        )
        return admission.principal, admission.subprotocol


def _refusal(error: UnbrokenError) -> Response:
    problem = problem_response(error)
    headers = Headers([(name, value) for name, value in problem.headers.items()])
    headers["Connection"] = "close"
    body = bytes(problem.body)
    return Response(problem.status_code, HTTPStatus(problem.status_code).phrase, headers, body)
