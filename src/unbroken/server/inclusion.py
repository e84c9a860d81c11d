"""The server as routes of a FastAPI router, so that the application's own dependencies guard them like any other.

The embedding object makes the router. FastAPI knows no dependencies for a mounted application, so here are two routes
that take every path and hand it on; it answers nothing itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket

from unbroken.server.guard import route_path

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from typing import Protocol

    from starlette.types import ASGIApp, Receive, Scope, Send

    class Lifespan(Protocol):
        def __call__(self, app: object, /) -> AbstractAsyncContextManager[None]: ...


__all__ = ["fastapi_router"]

PARAMETER: Final = "unbroken_path"
METHODS: Final = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


def fastapi_router(app: ASGIApp, lifespan: Lifespan) -> APIRouter:
    """A router for `include_router` under any prefix; the dependencies given there run before `app` sees a request."""

    async def http(_request: Request) -> Response:
        return _Onward(app)

    async def socket(websocket: WebSocket) -> None:
        # the server's own callables and not Starlette's checked ones: behind them a connection can be taken over
        receive, send = websocket._receive, websocket._send
        await app(_below(dict(websocket.scope)), receive, send)

    router = APIRouter(lifespan=lifespan)
    path = f"/{{{PARAMETER}:path}}"
    router.add_api_route(path, http, methods=METHODS, include_in_schema=False, response_model=None)
    router.add_api_websocket_route(path, socket)
    return router


class _Onward(Response):
    """A response that is whatever `app` answers."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__()
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(_below(dict(scope)), receive, send)
        if self.background is not None:
            await self.background()


def _below(scope: Scope) -> Scope:
    """`scope` as the application below the router sees it, like that of a mounted one."""
    parameters = dict(scope["path_params"])
    rest: str = parameters.pop(PARAMETER)
    path = route_path(scope)
    scope["path_params"] = parameters
    scope["root_path"] = scope.get("root_path", "") + path[: len(path) - len(rest) - 1]
    return scope
