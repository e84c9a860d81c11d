"""Running the server as a program: uvicorn around the application, with a graceful stop.

`unbroken serve` calls `serve`. It prints the one line that says that the server is ready; everything else goes to the log.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn

from unbroken.errors import AddressError, ConfigurationError
from unbroken.redaction.redactor import Redactor, load_rules
from unbroken.server.app import build_app, build_services, keeper_of, open_store
from unbroken.server.auditing import configured
from unbroken.server.catalog import build_catalog
from unbroken.server.engine import Engine
from unbroken.server.entrance import build_access, check_certificate, tell_if_others_may_read
from unbroken.server.listening import BoundedServer
from unbroken.server.open_files import allow_open_files
from unbroken.server.patience import bounded_http
from unbroken.server.standalone import standalone_protocol
from unbroken.store.base import Durability
from unbroken.store.keys import MasterKeys

if TYPE_CHECKING:
    from pathlib import Path

    from unbroken.limits import Limits
    from unbroken.settings import Settings

__all__ = ["build_engine", "serve", "work"]

logger = logging.getLogger(__name__)

OTHER_FILES = 1_000
"""The database, the log, programs of runs and what they print: open beside connections."""
GC_THRESHOLDS = (20_000, 20, 50)
"""An append makes hardly any cycles; looking for them every 700 objects costs a tenth of the time under load."""
SWITCH_INTERVAL_SECONDS = 0.0005
"""How long the store's writer thread waits for the interpreter; Python's 5 ms starve it beside a busy loop."""


class _Server(BoundedServer):
    """A uvicorn server that says when it is ready, and drains before it closes sockets."""

    def __init__(self, config: uvicorn.Config, engine: Engine) -> None:
        super().__init__(config, engine.services.limits)
        self._engine = engine

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        print(f"unbroken listening on {self.url}", flush=True)  # noqa: T201 - the one line on stdout

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        await self._engine.drain()
        await super().shutdown(sockets)


def build_engine(settings: Settings) -> Engine:
    """The parts of a server as `settings` say, not running."""
    limits = settings.limits
    store = open_store(settings.store, Durability(settings.durability), limits=limits, wrapping=wrapping_of(settings))
    access = build_access(settings)
    tell_if_others_may_read(settings.tls_key or settings.tls_cert, settings.token_file, settings.encryption_key_file)
    catalog = build_catalog(settings)
    services = build_services(store, access, limits=limits, catalog=catalog, worker=settings.worker)
    if settings.redact:
        services.use_redactor(Redactor(load_rules(settings.redact)))
    if settings.audit is not None:
        services.audit.write_to(settings.audit)
    if settings.checkpoints is not None and settings.checkpoint_key is not None:
        services.keeper = keeper_of(services, settings.checkpoints, settings.checkpoint_key)
    return Engine(services)


def wrapping_of(settings: Settings) -> MasterKeys | None:
    """The master keys, from wherever they were given; `ConfigurationError` where they cannot be read."""
    if settings.encryption_key_file is not None:
        return MasterKeys.read(settings.encryption_key_file)
    key = settings.encryption_key
    return None if key is None else MasterKeys.parse(key.get_secret_value())


def uvicorn_config(engine: Engine, *, cert: Path | None = None, key: Path | None = None) -> uvicorn.Config:
    """How uvicorn serves `engine`; with a certificate over TLS.

    An idle connection is kept for longer than clients and proxies keep theirs, so that it is they who close it: a request
    that meets a closing connection fails, and one that is not idempotent cannot be repeated.
    """
    limits = engine.services.limits
    return uvicorn.Config(
        build_app(engine),
        http=bounded_http(limits),
        ws=standalone_protocol(engine.services),  # type: ignore[arg-type]
        ws_per_message_deflate=False,
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        ssl_certfile=cert,
        ssl_keyfile=key,
        timeout_keep_alive=int(limits.http_idle_seconds),
        timeout_graceful_shutdown=int(limits.drain_seconds_max),
        lifespan="off",
    )


def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT, then drain; 0 after a graceful stop.

    Raises `AddressError` when the address cannot be listened on, and what the store raises when it cannot be opened.
    """
    check_certificate(settings.tls_cert, settings.tls_key)
    _allow_connections(settings.limits)
    engine = build_engine(settings)
    config = uvicorn_config(engine, cert=settings.tls_cert, key=settings.tls_key)
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    gc.freeze()  # hardly anything of it is garbage: to look for some would take a twentieth of the start
    gc.set_threshold(*GC_THRESHOLDS)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)  # uvicorn raises the signal again when it has stopped gracefully
    listening = _listen(settings.host, settings.port)
    engine.services.audit.record(configured(settings))
    with listening, asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(_serve(_Server(config, engine), engine, listening))
    logger.info("stopped")
    return 0


def _allow_connections(limits: Limits) -> None:
    """Let the process have as many sockets open as it lets connections in."""
    most = allow_open_files(limits.connections_max + limits.silent_connections_max + OTHER_FILES)
    if most < limits.connections_max:
        logger.warning(
            "only %d files and sockets may be open at once, fewer than the %d connections that are let in; see `ulimit -Hn`",
            most,
            limits.connections_max,
        )


def work(settings: Settings) -> int:
    """Execute runs, without any face, until SIGTERM or SIGINT; 0 after a graceful stop.

    Raises `ConfigurationError` when the settings name nothing to run, and what the store raises when it cannot be opened.
    """
    if build_catalog(settings) is None:
        raise ConfigurationError("there is nothing to execute; name tasks, programs or MCP servers", setting="tasks")
    engine = build_engine(settings)
    engine.services.audit.record(configured(settings))
    asyncio.run(_work(engine))
    logger.info("stopped")
    return 0


async def _work(engine: Engine) -> None:
    over = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, over.set)
    async with engine.running():
        print("unbroken worker ready", flush=True)  # noqa: T201 - the one line on stdout
        await over.wait()


async def _serve(server: _Server, engine: Engine, listening: socket.socket) -> None:
    async with engine.running():
        await server.serve(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host.strip("[]"), port), family=family, backlog=2048)
    except OSError as error:
        raise AddressError(f"cannot listen on {host}:{port}: {error.strerror}", host=host, port=port) from None
