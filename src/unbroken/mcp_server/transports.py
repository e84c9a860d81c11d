"""How agents reach the MCP server: over this process' standard input and output, or over Streamable HTTP.

The command line calls it. Over HTTP every request stands for itself: an agent goes on after a restart of this process as if
nothing had been.
"""

from __future__ import annotations

import hmac
import ipaddress
import sys
from typing import TYPE_CHECKING

import uvicorn
from mcp.server.stdio import stdio_server
from mcp.server.transport_security import TransportSecuritySettings
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse

from unbroken.errors import AddressError, ConfigurationError
from unbroken.mcp_server.remote import Remote
from unbroken.mcp_server.service import build

if TYPE_CHECKING:
    from mcp.server.lowlevel.server import Server
    from starlette.types import ASGIApp, Receive, Scope, Send

    from unbroken.limits import Limits

__all__ = ["check_address", "http_app", "parse_address", "serve_http", "serve_stdio"]


async def serve_stdio(remote: Remote) -> None:
    """Serve one agent over standard input and output, until it closes its end."""
    async with remote:
        server = build(remote)
        async with stdio_server() as (incoming, outgoing):
            await server.run(incoming, outgoing, server.create_initialization_options())


async def serve_http(remote: Remote, address: tuple[str, int], token: str | None) -> None:
    """Serve agents at `http://HOST:PORT/mcp` until SIGTERM or Ctrl-C. Prints one line when it is ready.

    Raises `ConfigurationError` for an address beyond the loopback interface without a token, and `AddressError`.
    """
    host, port = address
    check_address(host, token)
    async with remote:
        app = http_app(build(remote), remote.limits, token)
        config = uvicorn.Config(
            app,
            host=host,
            port=port,
            log_level="warning",
            http="h11",  # takes the white space around a header's value away, as RFC 9110 demands and httptools does not
            limit_concurrency=4 * remote.limits.agent_calls_max,
            timeout_graceful_shutdown=1,
            server_header=False,
        )
        server = _Announcing(config)
        try:
            await server.serve()
        except SystemExit:  # how uvicorn says that it cannot listen, after telling why
            raise AddressError(f"cannot listen on {host}:{port}") from None


def http_app(server: Server, limits: Limits, token: str | None) -> ASGIApp:
    """The ASGI application of the MCP server, at `/mcp`.

    With a token, every request must carry it. Without one, only requests that name the loopback interface as their host, and
    no foreign page as their origin, are let in: a page in a browser cannot reach it.
    """
    local = TransportSecuritySettings(
        allowed_hosts=["127.0.0.1:*", "localhost:*", "[::1]:*"],
        allowed_origins=["http://127.0.0.1:*", "http://localhost:*", "http://[::1]:*"],
    )
    app = server.streamable_http_app(
        json_response=True,
        stateless_http=True,
        max_request_body_size=limits.agent_request_bytes_max,
        transport_security=local if token is None else TransportSecuritySettings(enable_dns_rebinding_protection=False),
    )
    return app if token is None else _Guarded(app, token)


def parse_address(text: str) -> tuple[str, int]:
    """`HOST:PORT` or `PORT`; `ConfigurationError` for anything else."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") or "127.0.0.1"
    if not (port.isascii() and port.isdigit()) or int(port) > 65_535:
        raise ConfigurationError(f"an address is HOST:PORT, not {text!r}", setting="http")
    return host, int(port)


def check_address(host: str, token: str | None) -> None:
    """`ConfigurationError` for an address that others can reach while there is no token."""
    try:
        local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = False
    if not local and token is None:
        raise ConfigurationError(
            f"{host} can be reached from other machines: set UNBROKEN_MCP_TOKEN or --http-token-file, or listen on 127.0.0.1",
            setting="http",
        )


class _Announcing(uvicorn.Server):
    """Says where it listens as soon as it does."""

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        await super().startup()
        if self.started:
            name = self.servers[0].sockets[0].getsockname()
            host = f"[{name[0]}]" if ":" in name[0] else name[0]
            sys.stdout.write(f"unbroken mcp listening on http://{host}:{name[1]}/mcp\n")
            sys.stdout.flush()


class _Guarded:
    """Lets in whoever has the token."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._carries(Headers(scope=scope)):
            response = PlainTextResponse("a token is needed", 401, {"WWW-Authenticate": "Bearer"})
            await response(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _carries(self, headers: Headers) -> bool:
        """Whether the token is there, once."""
        given = headers.getlist("authorization")
        scheme, _, token = (given[0] if len(given) == 1 else "").partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(token.strip().encode(errors="replace"), self._token)
