"""The composition root: the one place that names concrete stores and puts the parts together.

`build_services` makes the parts from settings, `build_app` the ASGI application around them. Nothing is opened or started
here: that is the engine's lifespan.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from starlette.routing import BaseRoute, Router, WebSocketRoute

from unbroken.auth.access import Access
from unbroken.auth.callers import Callers
from unbroken.auth.live import LiveViewers
from unbroken.auth.stored import StoredTokens
from unbroken.auth.tickets import Tickets
from unbroken.checkpoints.book import Book
from unbroken.checkpoints.keeper import CheckpointKeeper
from unbroken.checkpoints.notes import load_signer
from unbroken.clock import Clock, SystemClock
from unbroken.erasure import Eraser
from unbroken.errors import InvalidError
from unbroken.hub import Hub
from unbroken.limits import DEFAULT_LIMITS, Limits
from unbroken.log import Log
from unbroken.observe.audit import Audit
from unbroken.observe.metrics import Metrics
from unbroken.runs.catalog import Catalog
from unbroken.runs.desk import RunDesk
from unbroken.runs.supervisor import RunSupervisor
from unbroken.server import durable_streams, health, http, page
from unbroken.server.auditing import connect_audit
from unbroken.server.bodies import Bodies
from unbroken.server.engine import Engine
from unbroken.server.manager import WebSocketConnectionManager
from unbroken.server.middleware import ProblemMiddleware
from unbroken.server.proxied import ProxiedMiddleware
from unbroken.server.services import Services
from unbroken.server.websocket import UnknownEndpoint, WebSocketEndpoint
from unbroken.states import StreamStateManager
from unbroken.store.base import Durability, StreamingMessageRepository
from unbroken.store.keys import Wrapping
from unbroken.store.memory import MemoryStore
from unbroken.store.sqlite import SQLiteStore
from unbroken.streams import Streams

if TYPE_CHECKING:
    from starlette.types import ASGIApp

__all__ = ["build_app", "build_routes", "build_services", "keeper_of", "open_store"]


def open_store(
    url: str,
    durability: Durability = Durability.DISK,
    *,
    limits: Limits = DEFAULT_LIMITS,
    clock: Clock | None = None,
    wrapping: Wrapping | None = None,
) -> StreamingMessageRepository:
    """The store that `url` names: `sqlite:///FILE` (relative), `sqlite:////FILE` (absolute) or `memory:`.

    With `wrapping` what is in a file is encrypted. Opens nothing yet. `InvalidError` for any other URL.
    """
    if url == "memory:":
        return MemoryStore(limits=limits)
    if url.startswith("sqlite:///") and len(url) > len("sqlite:///"):
        path = Path(unquote(url.removeprefix("sqlite:///")))
        store = SQLiteStore(path, durability=durability, limits=limits, clock=clock or SystemClock())
        if wrapping is not None:
            store.encrypt_with(wrapping)
        return store
    raise InvalidError(f"a store is sqlite:///FILE or memory:, not {url.partition('@')[2] or url!r}", field="store")


def keeper_of(services: Services, directory: Path, key: Path) -> CheckpointKeeper:
    """What writes checkpoints to `directory`, signed with the key in the file `key`.

    `ConfigurationError` for a file that holds none. What is in the directory is looked at when the server starts.
    """
    book = Book(directory, load_signer(key))
    return CheckpointKeeper(services.store, services.log, book, limits=services.limits, clock=services.clock)


def build_services(
    store: StreamingMessageRepository,
    access: Access,
    *,
    limits: Limits = DEFAULT_LIMITS,
    clock: Clock | None = None,
    catalog: Catalog | None = None,
    worker: bool = True,
) -> Services:
    """The parts of one server around `store`, connected but not running.

    With `catalog` it offers what is in it, and executes it unless `worker` is False.
    """
    clock = clock or SystemClock()
    metrics = Metrics(limits)
    log = Log(store, limits=limits, metrics=metrics)
    streams = Streams(log, store, limits=limits, clock=clock)
    states = StreamStateManager(streams)
    hub = Hub(store, limits=limits, metrics=metrics)
    tickets = Tickets(limits=limits, clock=clock)
    credentials = StoredTokens(store, limits=limits, clock=clock)
    supervisor = RunSupervisor(streams, states, hub, catalog) if catalog is not None and worker else None
    audit = Audit(clock, limits)
    live = LiveViewers(credentials, limits=limits, clock=clock)
    connect_audit(audit, streams, live)
    return Services(
        store=store,
        log=log,
        streams=streams,
        states=states,
        hub=hub,
        metrics=metrics,
        audit=audit,
        eraser=Eraser(streams, audit),
        limits=limits,
        clock=clock,
        access=access,
        tickets=tickets,
        tokens=credentials,
        callers=Callers(access, credentials, tickets, limits=limits, clock=clock),
        live=live,
        connections=WebSocketConnectionManager(limits=limits, metrics=metrics),
        bodies=Bodies(streams.quotas, live, limits),
        desk=RunDesk(streams, catalog or Catalog()),
        supervisor=supervisor,
    )


def build_routes(services: Services, *, takeover: bool = True) -> list[BaseRoute]:
    """Every route of every face, the page last; paths are relative to where they are mounted."""
    return [
        WebSocketRoute("/v1/ws", WebSocketEndpoint(services, takeover=takeover)),
        *durable_streams.routes(services),
        *http.routes(services, takeover=takeover),
        *health.routes(services),
        WebSocketRoute("/{path:path}", UnknownEndpoint()),
        *page.routes(services),
    ]


def build_app(engine: Engine, *, takeover: bool = True) -> ASGIApp:
    """The whole server as one ASGI application, whose lifespan runs `engine`."""

    @asynccontextmanager
    async def lifespan(_app: object) -> AsyncIterator[None]:
        async with engine.running():
            yield

    # a bare router: a Starlette would answer errors itself before the middleware sees them
    router = Router(routes=build_routes(engine.services, takeover=takeover), lifespan=lifespan)
    app = ProblemMiddleware(router, engine.services)
    proxies = engine.services.access.proxies
    return app if proxies is None else ProxiedMiddleware(app, proxies)
