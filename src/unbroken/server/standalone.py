"""The WebSocket face without ASGI: `unbroken serve` gives this class to uvicorn as its WebSocket protocol.

The handshake of `/v1/ws` is answered here, so that an idle connection costs a few kilobytes and no task. There is no
WebSocket at any other path.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, cast

from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from unbroken.auth.forwarded import Seen
from unbroken.auth.handshake import Admission, admit
from unbroken.errors import NotFoundError, ProviderUnavailableError, UnbrokenError
from unbroken.identity import Principal
from unbroken.server.frames import Frames
from unbroken.server.headers import SECURITY
from unbroken.server.problems import problem_response
from unbroken.server.transport import WebSocket

if TYPE_CHECKING:
    from collections.abc import Callable

    from uvicorn.config import Config
    from uvicorn.server import ServerState

    from unbroken.server.patience import Silent
    from unbroken.server.services import Services

__all__ = ["PATH", "standalone_protocol"]

logger = logging.getLogger(__name__)

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
        self._silent: Silent | None = getattr(config.http_protocol_class, "silent", None)
        self._connections = cast("set[object]", server_state.connections)
        self._conn = ServerProtocol(max_size=services.limits.frame_bytes_max)
        self._received = b""
        self._successor: asyncio.Protocol | None = None
        self._client = ""
        """The address of who asks, for the audit log."""
        self._deciding = False
        """Whether the request is here, and who is asking is still to be found out."""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        if self._silent is not None:
            self._silent.discard(self)
        if self._successor is not None:
            self._successor.connection_lost(exc)  # the peer went before the successor was set

    def eof_received(self) -> bool:
        """The peer has closed its half: so do we."""
        return False

    def pause_writing(self) -> None:
        if self._successor is not None:
            self._successor.pause_writing()

    def resume_writing(self) -> None:
        if self._successor is not None:
            self._successor.resume_writing()

    def shutdown(self) -> None:
        """uvicorn stops before the handshake was done."""
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        if self._successor is not None:
            self._successor.data_received(data)  # over TLS more may come before the successor is set
            return
        self._received += data
        if self._deciding:
            return
        conn = self._conn
        conn.receive_data(data)
        events = conn.events_received()
        if events and isinstance(events[0], Request):
            request = events[0]
            self._answer(request)
        elif conn.handshake_exc is not None or conn.parser_exc is not None:
            self._close()

    def _become(self, protocol: asyncio.Protocol) -> None:
        """Leave the transport to `protocol`, from the next step on: uvicorn sets us as its protocol after this one."""
        self._successor = protocol
        asyncio.get_running_loop().call_soon(self._transport.set_protocol, protocol)

    def _answer(self, request: Request) -> None:
        conn = self._conn
        response = conn.accept(request)
        if response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            _secure(response)
            self._finish(response, None)
            return
        try:
            if request.path.partition("?")[0] != PATH:
                raise NotFoundError("there is no WebSocket at this path")
            admission = self._admit(request)
            response.headers["Sec-WebSocket-Protocol"] = admission.subprotocol
            if admission.principal is not None:
                self._services.quotas.handshake(admission.principal)
            else:
                self._services.connections.begin(self._decide(admission, request, response))
                self._deciding = True
                self._transport.pause_reading()
                return
        except UnbrokenError as error:
            self._refuse(error)
        else:
            self._finish(response, admission.principal)

    async def _decide(self, admission: Admission, request: Request, response: Response) -> None:
        """Find out who is asking, as a child of the manager of connections; then answer."""
        services = self._services
        try:
            async with asyncio.timeout(services.limits.handshake_seconds_max):
                principal = await admission.whose(request.headers, services.callers)
            services.connections.check_room()
            services.quotas.handshake(principal)
        except UnbrokenError as error:
            refusal = error
        except TimeoutError:
            refusal = ProviderUnavailableError("who is asking could not be found out in time")
        except Exception:  # the top of a task: the peer is told, and the others are not concerned
            logger.exception("a handshake failed")
            refusal = UnbrokenError("an unexpected error")
        else:
            if not self._transport.is_closing():
                self._finish(response, principal)
                asyncio.get_running_loop().call_soon(self._transport.resume_reading)  # when the successor is set
            return
        if not self._transport.is_closing():
            self._refuse(refusal)

    def _refuse(self, error: UnbrokenError) -> None:
        self._services.refused(error, "websocket", client=self._client)
        self._finish(_refusal(error), None)

    def _finish(self, response: Response, principal: Principal | None) -> None:
        """Send the answer; with a principal, leave the transport to what carries the rest."""
        conn = self._conn
        conn.send_response(response)
        self._transport.write(b"".join(conn.data_to_send()))
        self._connections.discard(self)
        if principal is None:
            self._close()
            return
        # What the handshake held is three quarters of an idle connection's memory: a fresh protocol goes on without it.
        bytes_max = self._services.limits.frame_bytes_max
        socket = WebSocket(self._services, principal, self._transport, Frames(bytes_max), self._connections)
        self._become(socket)
        early = self._received.partition(b"\r\n\r\n")[2]
        if early:
            socket.data_received(early)

    def _close(self) -> None:
        """Over TLS it is not closed before the peer has said so too: until then it is a silent connection."""
        self._transport.close()
        if self._silent is not None:
            self._silent.add(self, self._transport)

    def _admit(self, request: Request) -> Admission:
        services = self._services
        peer = (self._transport.get_extra_info("peername") or ("",))[0]
        seen = self._seen(request, peer)
        self._client = seen.address
        services.connections.check_room()
        offered = [
            name.strip() for line in request.headers.get_all("Sec-WebSocket-Protocol") for name in line.split(",")
        ]
        return admit(
            request.headers,
            offered,
            callers=services.callers,
            scheme=seen.scheme,
            server=self._transport.get_extra_info("sockname")[:2],
            peer=peer,
        )

    def _seen(self, request: Request, peer: str) -> Seen:
        """Who asks, and how: by what our proxy says, if one is in front."""
        headers, proxies = request.headers, self._services.access.proxies
        plain = "http" if self._transport.get_extra_info("sslcontext") is None else "https"
        if proxies is None:
            return Seen(peer, plain)
        seen = proxies.seen(peer, headers.get_all("X-Forwarded-For"), headers.get_all("X-Forwarded-Proto"))
        return seen if seen.scheme is not None else replace(seen, scheme=plain)


def _secure(response: Response) -> None:
    """The headers of every response also on what the library itself refuses."""
    for name, value in SECURITY.items():
        if name not in response.headers:
            response.headers[name] = value


def _refusal(error: UnbrokenError) -> Response:
    problem = problem_response(error, headers=SECURITY)
    headers = Headers([(name, value) for name, value in problem.headers.items()])
    headers["Connection"] = "close"
    body = bytes(problem.body)
    return Response(problem.status_code, HTTPStatus(problem.status_code).phrase, headers, body)
