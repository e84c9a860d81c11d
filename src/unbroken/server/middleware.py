"""What stands in front of all routes, and the one place where errors become responses.

The composition roots put `ProblemMiddleware` around their router: it lets in what the guard lets in, and turns every error
into its problem document. It never shows what an unexpected error says, and knows no route.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from unbroken.errors import NotFoundError, ProtocolError, UnbrokenError
from unbroken.server import guard
from unbroken.server.direct import Delivery, cut_off
from unbroken.server.problems import TOO_LARGE, method_not_allowed, problem_response

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

    from unbroken.server.services import Services

__all__ = ["ProblemMiddleware"]

logger = logging.getLogger(__name__)


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
        delivery = Delivery(scope, receive, self._services.limits.silence_seconds_max)
        reply = guard.Reply(send, guard.reply_headers(scope, self._services.access), delivery.watch)
        waits = "expect" in Headers(scope=scope)
        inbound = guard.Inbound(receive, self._services.limits, waits=waits)
        try:
            answer: ASGIApp | None = guard.check(scope, self._services)
            if answer is not None:
                await answer(scope, receive, reply.send)
                return
            await self._app(scope, inbound.receive, reply.send)
        except ClientDisconnect:
            logger.debug("the client left during %s, or was sent away", scope["method"])
            await cut_off(scope, receive)
        except UnbrokenError as error:
            answer = self._report(error, scope)
            if error.http_status == TOO_LARGE and not inbound.complete:
                answer = guard.lingering(answer, inbound, self._services.stopping, delivery.answered)
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
