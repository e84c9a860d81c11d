"""The way in: one route for all methods, who is asking, and which handler answers.

The composition root calls `routes`. Errors that the protocol answers in its own way are answered
here, all others by the middleware in front.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Final

from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from unbroken.errors import InvalidError, NotFoundError, ProtocolError
from unbroken.identity import Verb
from unbroken.server.departure import LongResponses
from unbroken.server.durable_streams import read, write
from unbroken.server.durable_streams.exchange import SAFE_HEADERS, Exchange, Refusal
from unbroken.server.durable_streams.live import long_poll
from unbroken.server.durable_streams.sse import follow_events
from unbroken.server.problems import problem_response
from unbroken.server.services import Services

__all__ = ["METHODS", "routes"]

METHODS: Final = "GET, HEAD, PUT, POST, DELETE, OPTIONS"
RESERVED: Final = "__ds"
"""The path segment that the protocol keeps for its optional subscriptions."""
ALLOWED_HEADERS: Final = ", ".join(
    (
        "Authorization",
        "Content-Type",
        "If-None-Match",
        "Last-Event-ID",
        "Producer-Epoch",
        "Producer-Id",
        "Producer-Seq",
        "Stream-Closed",
        "Stream-Expires-At",
        "Stream-Fork-Offset",
        "Stream-Fork-Sub-Offset",
        "Stream-Forked-From",
        "Stream-Seq",
        "Stream-TTL",
    )
)
PREFLIGHT: Final = {
    "access-control-allow-methods": METHODS,
    "access-control-allow-headers": ALLOWED_HEADERS,
    "access-control-max-age": "600",
    "allow": METHODS,
}


def routes(services: Services) -> list[BaseRoute]:
    """The routes of this face."""
    return [Route("/v1/stream/{name:path}", endpoint=_Face(services))]


class _Face:
    """An ASGI application for every method of one stream's URL."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._viewers = LongResponses(services, "durable-streams")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = _headers(scope)
        if scope["method"] == "OPTIONS":
            await Response(status_code=204, headers={**SAFE_HEADERS, **PREFLIGHT})(scope, receive, send)
            return
        services, name = self._services, scope["path_params"]["name"]
        principal = await services.callers.principal(headers, scope)
        services.quotas.request(principal)
        try:
            with ExitStack() as held:
                exchange = Exchange(
                    services, scope, receive, send, principal=principal, name=name, headers=headers, held=held
                )
                await self._dispatch(exchange)
        except Refusal as refusal:
            services.refused(refusal.error, "durable_streams")
            response = problem_response(refusal.error, status=refusal.status, headers=refusal.headers)
            await response(scope, receive, send)

    async def _dispatch(self, exchange: Exchange) -> None:
        match exchange.scope["method"]:
            case "GET":
                await self._get(exchange)
            case "HEAD":
                await read.head(exchange, await exchange.stream(Verb.READ))
            case "PUT":
                _check_reserved(exchange)
                await write.create(exchange)
            case "POST":
                await write.append(exchange)
            case "DELETE":
                await write.delete(exchange)
            case method:
                error = ProtocolError(f"{method[:20]} is not a method of this path", allow=METHODS)
                raise Refusal(error, 405, {"allow": METHODS})

    async def _get(self, exchange: Exchange) -> None:
        query = exchange.query
        live = query.get("live")
        if live not in {None, "long-poll", "sse"}:
            raise InvalidError("live is long-poll or sse", field="live")
        if live is not None and "offset" not in query:
            raise InvalidError("live reading needs an offset", field="offset")
        info = await exchange.stream(Verb.READ)
        if live is None:
            await read.catch_up(exchange, info, query)
            return
        with self._viewers.place(exchange.principal):
            await (follow_events if live == "sse" else long_poll)(exchange, info, query)


def _headers(scope: Scope) -> dict[str, str]:
    """The request's headers by their names in lower case; one that is there several times is joined by commas."""
    headers: dict[str, str] = {}
    for raw, value in scope["headers"]:
        name = raw.decode("latin-1").lower()
        text = value.decode("latin-1")
        headers[name] = f"{headers[name]}, {text}" if name in headers else text
    return headers


def _check_reserved(exchange: Exchange) -> None:
    if RESERVED in exchange.name.split("/"):
        raise NotFoundError("this server has no subscriptions of Durable Streams")
