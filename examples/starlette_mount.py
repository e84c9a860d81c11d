"""Unbroken in a Starlette application: mounted, with its lifespan entered by the application.

Run it with `uvicorn examples.starlette_mount:app` and open http://127.0.0.1:8000/streams/.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from unbroken import Unbroken

unbroken = Unbroken(os.environ.get("UNBROKEN_STORE", "sqlite:///tasks.db"))


async def count(limit: int) -> AsyncIterator[dict[str, int]]:
    """A task that tells how far it is, as JSON values."""
    for done in range(1, limit + 1):
        yield {"done": done, "of": limit}
        await asyncio.sleep(0.01)


async def start(request: Request) -> JSONResponse:
    name = request.path_params["name"]
    stream = await unbroken.start(count(50), f"tasks/{name}", kind="task")
    return JSONResponse({"stream": stream.name}, 202)


app = Starlette(
    routes=[Route("/tasks/{name}", start, methods=["POST"]), Mount("/streams", app=unbroken.asgi)],
    lifespan=unbroken.lifespan,
)
