"""How agents reach the MCP server: over this process' standard input and output, or over Streamable HTTP.

The command line calls it. Over HTTP every request stands for itself: an agent goes on after a restart of this process as if
nothing had been.
"""

from __future__ import annotations

import asyncio
import hmac
import sys
from typing import TYPE_CHECKING

import uvicorn
from mcp.server.stdio import stdio_server
from mcp.server.transport_security import TransportSecuritySettings
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse

from unbroken.errors import AddressError, ForbiddenOriginError
from unbroken.mcp_server.arriving import Arriving
from unbroken.mcp_server.remote import Remote
from unbroken.mcp_server.service import build
from unbroken.server.listening import BoundedServer
from unbroken.server.patience import bounded_http

if TYPE_CHECKING:
    from collections.abc import Callable

    from mcp.server.lowlevel.server import Server
    from starlette.types import ASGIApp, Receive, Scope, Send

    from unbroken.auth.forwarded import Proxies
    from unbroken.limits import Limits
    from unbroken.mcp_server.entry import Entry

__all__ = ["http_app", "http_server", "loop_factory", "serve_http", "serve_stdio"]


async def serve_stdio(remote: Remote) -> None:
    """Serve one agent over standard input and output, until it closes its end."""
    async with remote:
        server = build(remote)
        async with stdio_server() as (incoming, outgoing):
            await server.run(incoming, outgoing, server.create_initialization_options())


async def serve_http(remote: Remote, entry: Entry) -> None:
    """Serve agents at `http://HOST:PORT/mcp` (https with a certificate) until SIGTERM or Ctrl-C.

    Prints one line when it is ready. Raises `ConfigurationError` for an entry that is not safe, and `AddressError`.
    """
    entry.check()
    async with remote:
        try:
            await http_server(remote, entry).serve()
        except (SystemExit, OSError):  # that it cannot listen, as uvicorn says it after telling why; and over TLS
            raise AddressError(f"cannot listen on {entry.host}:{entry.port}") from None


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes the event loop for `serve_http`, as uvicorn has it for every server.

    Where no file can be opened any more, asyncio's own takes all that wait and logs each failure with its traceback.
    """
    return uvicorn.Config("", log_config=None).get_loop_factory()


def http_server(remote: Remote, entry: Entry) -> BoundedServer:
    """What `serve_http` runs, not running."""
    limits = remote.limits
    config = uvicorn.Config(
        http_app(build(remote), limits, entry),
        host=entry.host,
        port=entry.port,
        log_level="warning",
        http=bounded_http(limits),
        proxy_headers=False,
        ssl_certfile=entry.certificate,
        ssl_keyfile=entry.key,
        ws="none",
        timeout_graceful_shutdown=1,
        server_header=False,
    )
    return _Announcing(config, limits)


def http_app(server: Server, limits: Limits, entry: Entry) -> ASGIApp:
    """The ASGI application of the MCP server, at `/mcp`.

    Behind proxies, only they and this machine come in (with a certificate, anybody). With a token, every request must carry
    it. Without one, only requests that name the loopback interface as their host, and no foreign page as their origin, are
    let in: a page in a browser cannot reach it.
    """
    security = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    if entry.token is None:
        security = TransportSecuritySettings(
            allowed_hosts=["127.0.0.1:*", "localhost:*", "[::1]:*"],
            allowed_origins=["http://127.0.0.1:*", "http://localhost:*", "http://[::1]:*"],
        )
    app: ASGIApp = server.streamable_http_app(
        json_response=True,
        stateless_http=True,
        max_request_body_size=limits.agent_request_bytes_max,
        transport_security=security,
    )
    bounded = _Bounded(Arriving(app, limits), 4 * limits.agent_calls_max)
    return bounded if entry.token is None else _Guarded(bounded, entry.token, entry.proxies)


class _Announcing(BoundedServer):
    """Says where it listens as soon as it does."""

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        await super().startup()
        if self.started:
            sys.stdout.write(f"unbroken mcp listening on {self.url}/mcp\n")
            sys.stdout.flush()


class _Bounded:
    """Takes so many requests at a time, and refuses others with 503.

    It stands behind whatever keeps strangers out: who has not shown the token takes no place from who has.
    """

    def __init__(self, app: ASGIApp, requests_max: int) -> None:
        self._app = app
        self._left = requests_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif not self._left:
            await PlainTextResponse("too many requests at once", 503, {"Retry-After": "1"})(scope, receive, send)
        else:
            self._left -= 1
            try:
                await self._app(scope, receive, send)
            finally:
                self._left += 1


class _Guarded:
    """Lets in whoever has the token, and comes through the proxies if there are any."""

    def __init__(self, app: ASGIApp, token: str, proxies: Proxies | None) -> None:
        self._app = app
        self._token = token.encode()
        self._proxies = proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        await (self._app if refusal is None else refusal)(scope, receive, send)

    def _refusal(self, scope: Scope) -> PlainTextResponse | None:
        """What to answer to who may not come in; None for who may."""
        if self._proxies is not None and scope["client"] is not None:
            try:
                self._proxies.check_peer(scope["client"][0])
            except ForbiddenOriginError as error:
                return PlainTextResponse(str(error), 403)
        if not self._carries(Headers(scope=scope)):
            return PlainTextResponse("a token is needed", 401, {"WWW-Authenticate": "Bearer"})
        return None

    def _carries(self, headers: Headers) -> bool:
        """Whether the token is there, once."""
        given = headers.getlist("authorization")
        scheme, _, token = (given[0] if len(given) == 1 else "").partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(token.strip().encode(errors="replace"), self._token)
