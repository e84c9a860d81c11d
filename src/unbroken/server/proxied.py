"""Requests that came through a proxy, as if they had come directly: the client's address and the scheme in their scope.

The composition root puts it in front of everything where proxies are configured. What others than those proxies say about
themselves is not looked at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.datastructures import Headers

from unbroken.auth.forwarded import Proxies

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["ProxiedMiddleware"]


class ProxiedMiddleware:
    """ASGI middleware that corrects `client` and `scheme` by what `proxies` say."""

    def __init__(self, app: ASGIApp, proxies: Proxies) -> None:
        self._app = app
        self._proxies = proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = scope.get("client")
        if client is not None:
            headers = Headers(scope=scope)
            proto = headers.getlist("x-forwarded-proto")
            seen = self._proxies.seen(client[0], headers.getlist("x-forwarded-for"), proto)
            scope["unbroken.peer"] = client[0]
            scope["client"] = (seen.address, client[1] if seen.address == client[0] else 0)
            if seen.scheme is not None:
                secure = seen.scheme == "https"
                plain = ("ws", "wss") if scope["type"] == "websocket" else ("http", "https")
                scope["scheme"] = plain[secure]
        await self._app(scope, receive, send)
