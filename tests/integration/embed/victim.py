"""A FastAPI application in a process of its own, made to be killed: its one run counts for ever.

`test_kill.py` starts it as `python -m tests.integration.embed.victim PORT STORE`.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

import uvicorn
from fastapi import FastAPI

from unbroken import Unbroken


async def count() -> AsyncIterator[str]:
    number = 0
    while True:
        number += 1
        yield f"{number},"
        await asyncio.sleep(0.005)


def application(store: str) -> FastAPI:
    unbroken = Unbroken(store, durability="process")
    app = FastAPI()
    app.include_router(unbroken.router, prefix="/streams")

    @app.post("/count")
    async def start() -> str:
        return (await unbroken.start(count(), "count")).state

    return app


class Server(uvicorn.Server):
    async def startup(self, sockets: object = None) -> None:
        await super().startup()
        print("listening on its port", flush=True)  # noqa: T201 - what the test waits for


if __name__ == "__main__":
    Server(uvicorn.Config(application(sys.argv[2]), port=int(sys.argv[1]), log_level="warning")).run()
