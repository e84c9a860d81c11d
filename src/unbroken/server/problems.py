"""Errors as a client of the HTTP faces sees them, and the one place where they become responses.

`ProblemMiddleware` stands in front of all routes: it lets in what the guard lets in, and turns every error into the
problem document of PROTOCOL.md 1.4. It never shows what an unexpected error says, and knows no route.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from unbroken.errors import DrainingError, NotFoundError, ProtocolError, UnauthorizedError, UnbrokenError, VersionError
from unbroken.server import guard

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from unbroken.server.services import Services

__all__ = ["ErrorView", "ProblemMiddleware", "error_view", "method_not_allowed", "problem_response"]

logger = logging.getLogger(__name__)

TOO_LARGE = 413
DRAINING_SECONDS = 1
"""When to come back to a server that is shutting down."""

_encoder = msgspec.json.Encoder()


class ErrorView(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An error as clients see it inside of a stream."""

    code: str
    message: str
    retryable: bool
    cure: str
    detail: dict[str, str | int | bool | None]


def error_view(error: UnbrokenError) -> ErrorView:
    """What a client may know of `error`."""
    return ErrorView(
        code=error.code,
        message=error.message,
        retryable=error.retryable,
        cure=error.cure,
        detail=error.detail,
    )


def problem_response(
    error: UnbrokenError, *, status: int | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    """`error` as a problem document (RFC 9457), with the headers that its kind asks for."""
    status = status or error.http_status
    document = {
        "status": status,
        "title": (type(error).__doc__ or "").partition("\n")[0],
        "code": error.code,
        "detail": error.message,
        "cure": error.cure,
        "retryable": error.retryable,
        "facts": error.detail,
    }
    extra = {**_headers(error), **(headers or {})}
    return Response(_encoder.encode(document), status, extra, "application/problem+json")


def method_not_allowed(method: str, allowed: str) -> Response:
    """The answer to a method that a path does not know."""
    error = ProtocolError(f"{method[:20]} is not a method of this path", allow=allowed)
    return problem_response(error, status=405, headers={"Allow": allowed})


def _headers(error: UnbrokenError) -> dict[str, str]:
    headers: dict[str, str] = {}
    seconds = error.detail.get("retry_after_seconds")
    if seconds is None and isinstance(error, DrainingError):
        seconds = DRAINING_SECONDS
    if isinstance(seconds, int | float):
        headers["Retry-After"] = str(math.ceil(seconds))
    if isinstance(error, UnauthorizedError):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, VersionError):
        headers["Upgrade"] = "websocket"
    if error.http_status == TOO_LARGE:
        headers["Connection"] = "close"  # what is left of the body is not read
    return headers


class ProblemMiddleware:
    """ASGI middleware around all routes of a server; WebSockets and lifespans pass untouched.

    Host, Origin, state of the server and size of the body are checked first. An error before the response began gives
    its problem document; one after it cuts the response off.
    """

    def __init__(self, app: ASGIApp, services: Services) -> None:
        self._app = app
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        reply = guard.Reply(send, guard.reply_headers(scope, self._services.access))
        waits = "expect" in Headers(scope=scope)
        inbound = guard.Inbound(receive, self._services.limits, waits=waits)
        try:
            answer: ASGIApp | None = guard.check(scope, self._services)
            if answer is not None:
                await answer(scope, receive, reply.send)
                return
            await self._app(scope, inbound.receive, reply.send)
        except ClientDisconnect:
            logger.debug("the client left during %s", scope["method"])
        except UnbrokenError as error:
            answer = self._report(error, scope)
            if error.http_status == TOO_LARGE and not inbound.complete:
                answer = guard.lingering(answer, inbound, self._services.stopping)
            await self._answer(answer, scope, receive, reply)
        except HTTPException as error:
            await self._answer(_of_starlette(error, scope), scope, receive, reply)
        except Exception:
            logger.exception("unexpected error in %s %r", scope["method"], scope["path"])
            self._services.metrics.errors.labels(UnbrokenError.code).inc()
            await self._answer(problem_response(UnbrokenError("an unexpected error")), scope, receive, reply)

    def _report(self, error: UnbrokenError, scope: Scope) -> Response:
        client = scope.get("client")
        self._services.refused(error, "http", client=client[0] if client else "")
        level = logging.WARNING if error.http_status >= 500 else logging.DEBUG
        logger.log(level, "%s in %s %r: %s", error.code, scope["method"], scope["path"], error)
        return problem_response(error)

    async def _answer(self, response: ASGIApp, scope: Scope, receive: Receive, reply: guard.Reply) -> None:
        """Send `response` if nothing was sent yet; else the peer learns from the missing end."""
        if reply.started:
            raise ConnectionAbortedError("the response was cut off by an error")
        await response(scope, receive, reply.send)


def _of_starlette(error: HTTPException, scope: Scope) -> Response:
    """What the router says when it has no route, in our own form."""
    if error.status_code == 405:
        return method_not_allowed(scope["method"], (error.headers or {}).get("Allow", ""))
    if error.status_code == 404:
        return problem_response(NotFoundError("there is no such path"))
    return problem_response(ProtocolError(error.detail), status=error.status_code, headers=error.headers)
