"""Not a yardstick but ourselves, as an application has us: Unbroken mounted in FastAPI behind a middleware, run by uvicorn.

`unbroken bench` starts it to measure what the take-over of connections gains and costs.
"""

from __future__ import annotations

import os

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from unbroken.embed import Unbroken


class PassThrough:
    """A middleware that does nothing, as applications have several."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand everything on."""
        await self._app(scope, receive, send)


unbroken = Unbroken(os.environ.get("UNBROKEN_STORE", "memory:"))
app = FastAPI()
app.add_middleware(PassThrough)
app.include_router(unbroken.router, prefix="/streams")
