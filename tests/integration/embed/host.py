"""An application of somebody else, served by uvicorn in this process over real sockets, as its users reach it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import uvicorn
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from tests.support.speeds import Peer
from unbroken.protocol.frames import PROTOCOL

__all__ = ["CEILING_SECONDS", "Hosted", "hosted", "until"]

CEILING_SECONDS = 60.0


class Hosted:
    """A served application."""

    def __init__(self, server: uvicorn.Server, serving: asyncio.Task[None], client: httpx2.AsyncClient) -> None:
        self._server = server
        self._serving = serving
        self.client = client

    @property
    def port(self) -> int:
        port = self.client.base_url.port
        assert port is not None
        return port

    @asynccontextmanager
    async def peer(self, path: str, headers: dict[str, str] | None = None) -> AsyncIterator[Peer]:
        """A raw WebSocket client, whose hello is still to be received."""
        url = str(self.client.base_url.copy_with(scheme="ws")).rstrip("/") + path
        async with connect(
            url, subprotocols=[Subprotocol(PROTOCOL)], additional_headers=headers, close_timeout=2, max_size=None
        ) as socket:
            yield Peer(socket)

    async def stop(self) -> None:
        """SIGTERM's effect: returns when the application has ended."""
        self._server.should_exit = True
        async with asyncio.timeout(CEILING_SECONDS):
            await asyncio.wait([self._serving])


@asynccontextmanager
async def hosted(app: Any, **options: Any) -> AsyncIterator[Hosted]:
    """`app` on a free port of the loopback interface, with its lifespan; `options` are uvicorn's."""
    config = uvicorn.Config(
        app,
        **{
            "host": "127.0.0.1",
            "port": 0,
            "lifespan": "on",
            "log_config": None,
            "access_log": False,
            "timeout_graceful_shutdown": 3,
            **options,
        },
    )
    server = uvicorn.Server(config)
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(server._serve())
        async with asyncio.timeout(CEILING_SECONDS):
            while not server.started and not serving.done():
                await asyncio.sleep(0.005)
        assert server.started, "the application did not start"
        port = server.servers[0].sockets[0].getsockname()[1]
        base, timeout = f"http://127.0.0.1:{port}", httpx2.Timeout(CEILING_SECONDS)
        try:
            async with httpx2.AsyncClient(base_url=base, timeout=timeout, trust_env=False) as client:
                yield Hosted(server, serving, client)
        finally:
            server.should_exit = True


async def until(what: str, condition: Any) -> None:
    """Poll until `condition()` holds, with a generous ceiling."""
    async with asyncio.timeout(CEILING_SECONDS):
        while not condition():
            await asyncio.sleep(0.005)
    assert condition(), what
