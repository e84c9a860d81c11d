"""A real server in this process, at each of the three speeds at which a WebSocket can be carried."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import uvicorn
from starlette.types import ASGIApp
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from unbroken.auth.access import Access
from unbroken.clock import Clock
from unbroken.identity import Principal
from unbroken.limits import DEFAULT_LIMITS, Limits
from unbroken.protocol.frames import PROTOCOL
from unbroken.runs.catalog import Catalog
from unbroken.server.app import build_app, build_services
from unbroken.server.engine import Engine
from unbroken.server.listening import BoundedServer
from unbroken.server.patience import bounded_http
from unbroken.server.services import Services
from unbroken.server.standalone import standalone_protocol
from unbroken.store.base import StreamingMessageRepository
from unbroken.store.memory import MemoryStore

__all__ = ["LOCAL", "Http", "Peer", "Running", "Speed", "running_server"]

LOCAL = Principal()
Http = Literal["auto", "h11", "httptools"]


class Speed(StrEnum):
    """How frames travel: through ASGI, on a transport taken over from uvicorn, or without ASGI from the start."""

    ASGI = "asgi"
    TAKEOVER = "takeover"
    STANDALONE = "standalone"


class Peer:
    """A raw client: sends and receives frames as JSON, without any cleverness."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def send(self, **frame: Any) -> None:
        await self.socket.send(json.dumps(frame))

    async def receive(self, *types: str) -> Any:
        """The next frame; with `types`, the next of one of these types."""
        async with asyncio.timeout(20):
            while True:
                frame = json.loads(await self.socket.recv())
                if not types or frame["type"] in types:
                    return frame

    async def closed(self) -> int:
        """Wait until the server has closed; the close code."""
        async with asyncio.timeout(20):
            await self.socket.wait_closed()
        assert self.socket.close_code is not None
        return self.socket.close_code


class Running:
    """A server that runs until its block is left."""

    def __init__(self, engine: Engine, server: uvicorn.Server, port: int) -> None:
        self.engine = engine
        self.server = server
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    @property
    def services(self) -> Services:
        return self.engine.services

    @asynccontextmanager
    async def peer(self, **options: Any) -> AsyncIterator[Peer]:
        """A connected raw client, whose hello is still to be received."""
        subprotocols = options.pop("subprotocols", [PROTOCOL])
        named = options.pop("named", f"127.0.0.1:{self.port}")
        async with connect(
            f"{'wss' if 'ssl' in options else 'ws'}://{named}/v1/ws",
            host="127.0.0.1",
            port=self.port,
            subprotocols=[Subprotocol(name) for name in subprotocols],
            compression=None,
            close_timeout=2,
            max_size=None,
            **options,
        ) as socket:
            yield Peer(socket)

    async def until(self, what: str, value: int) -> None:
        """Wait until `connections` or `subscriptions` has `value`."""
        async with asyncio.timeout(20):
            while self.count(what) != value:
                await asyncio.sleep(0.005)

    def count(self, what: str) -> int:
        return len(self.services.connections) if what == "connections" else self.services.hub.subscriptions


@asynccontextmanager
async def running_server(
    speed: Speed = Speed.TAKEOVER,
    *,
    store: StreamingMessageRepository | None = None,
    limits: Limits = DEFAULT_LIMITS,
    access: Access | None = None,
    http: Http = "auto",
    catalog: Catalog | None = None,
    around: Callable[[ASGIApp], ASGIApp] | None = None,
    certificate: Path | None = None,
    clock: Clock | None = None,
) -> AsyncIterator[Running]:
    """A server on a free port of the loopback interface; `http` is which of uvicorn's parsers it uses, `around` a middleware.

    With `certificate` (a file that holds its key too) it speaks TLS. Everything else of uvicorn is as an application has it
    that sets nothing, its offer to compress among them.
    """
    known = store or MemoryStore(limits=limits)
    services = build_services(known, access or Access(), limits=limits, catalog=catalog, clock=clock)
    engine = Engine(services)
    app = build_app(engine, takeover=speed is Speed.TAKEOVER)
    config = uvicorn.Config(
        app if around is None else around(app),
        host="127.0.0.1",
        port=0,
        ws=standalone_protocol(services) if speed is Speed.STANDALONE else "websockets-sansio",  # type: ignore[arg-type]
        log_config=None,
        http=bounded_http(limits) if speed is Speed.STANDALONE and http == "auto" else http,
        access_log=False,
        ssl_certfile=certificate,
        proxy_headers=services.access.proxies is None,
        timeout_graceful_shutdown=5,
        timeout_keep_alive=75,  # a client that computes for long meets no closing connection
        lifespan="on",
    )
    server = BoundedServer(config, limits) if speed is Speed.STANDALONE else uvicorn.Server(config)
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(server._serve())
        async with asyncio.timeout(20):
            while not server.started and not serving.done():
                await asyncio.sleep(0.005)
        assert server.started, "the server did not start"
        try:
            yield Running(engine, server, server.servers[0].sockets[0].getsockname()[1])
        finally:
            await engine.drain()
            server.should_exit = True
