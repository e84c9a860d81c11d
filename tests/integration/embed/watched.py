"""An application in a process of its own, served by uvicorn as its command does: no limit for how long it takes to stop.

`test_stop.py` starts it as `python -m tests.integration.embed.watched PORT STORE`, and stops it with a signal.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from tests.integration.embed.victim import Server
from unbroken import Unbroken


async def slow() -> AsyncIterator[str]:
    yield "one "
    await asyncio.Event().wait()


def application(store: str) -> Starlette:
    unbroken = Unbroken(store, durability="process")

    async def answer(request: Request) -> Response:
        return await unbroken.respond(slow(), "answer")

    routes = [Route("/answer", answer), Mount("/streams", app=unbroken.asgi)]
    return Starlette(routes=routes, lifespan=unbroken.lifespan)


if __name__ == "__main__":
    Server(uvicorn.Config(application(sys.argv[2]), port=int(sys.argv[1]), log_level="warning")).run()
