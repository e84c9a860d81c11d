"""Running the server as a program: uvicorn around the application, with a graceful stop.

`unbroken serve` calls `serve`. It prints the one line that says that the server is ready; everything else goes to the log.
"""

from __future__ import annotations

import logging
import signal
import socket
import sys
from typing import TYPE_CHECKING

import uvicorn

from unbroken.auth.access import Access
from unbroken.server.app import build_app, build_services, open_store
from unbroken.server.engine import Engine
from unbroken.server.standalone import standalone_protocol
from unbroken.store.base import Durability

if TYPE_CHECKING:
    from unbroken.settings import Settings

__all__ = ["build_engine", "serve"]

SWITCH_INTERVAL_SECONDS = 0.0005
"""How long the store's writer thread waits for the interpreter; Python's 5 ms starve it beside a busy loop."""


class _Server(uvicorn.Server):
    """A uvicorn server that says when it is ready, and drains before it closes sockets."""

    def __init__(self, config: uvicorn.Config, engine: Engine, host: str) -> None:
        super().__init__(config)
        self._engine = engine
        self._host = host

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            port = self.servers[0].sockets[0].getsockname()[1]
            host = f"[{self._host}]" if ":" in self._host else self._host
            print(f"unbroken listening on http://{host}:{port}", flush=True)  # noqa: T201 - the one line on stdout

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        await self._engine.drain()
        await super().shutdown(sockets)


def build_engine(settings: Settings) -> Engine:
    """The parts of a server as `settings` say, not running."""
    limits = settings.limits
    store = open_store(settings.store, Durability(settings.durability), limits=limits)
    access = Access(
        token=settings.secret,
        allow_origins=frozenset(settings.allow_origin),
        allow_hosts=frozenset(settings.allow_host) | {settings.host},
    )
    return Engine(build_services(store, access, limits=limits))


def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT, then drain; the exit code (0 after a graceful stop, 1 when it could not start)."""
    engine = build_engine(settings)
    config = uvicorn.Config(
        build_app(engine),
        host=settings.host,
        port=settings.port,
        ws=standalone_protocol(engine.services),  # type: ignore[arg-type]
        ws_per_message_deflate=False,
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=int(engine.services.limits.drain_seconds_max),
        lifespan="on",
    )
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    server = _Server(config, engine, settings.host)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)  # uvicorn raises the signal again when it has stopped gracefully
    try:
        server.run()
    except SystemExit:
        return 1
    logging.getLogger(__name__).info("stopped")
    return 0 if server.started else 1
