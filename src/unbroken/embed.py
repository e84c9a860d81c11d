"""Unbroken inside another application: one object with a router, a lifespan, and streams to start and follow.

An application makes one `Unbroken`, includes its router (or mounts its ASGI app and enters its lifespan), and starts runs. It
is the public face of the whole server for Python code in the same process.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import msgspec
from starlette.responses import StreamingResponse
from starlette.routing import Mount, Router

from unbroken.auth.access import Access
from unbroken.clock import Clock
from unbroken.errors import LifespanError
from unbroken.limits import DEFAULT_LIMITS, Limits
from unbroken.messages import Message, Principal, Seq, StreamInfo, decode_messages, payload_bytes
from unbroken.runs.local import Item, LocalRuns
from unbroken.server.app import build_routes, build_services, open_store
from unbroken.server.engine import Engine
from unbroken.server.problems import ProblemMiddleware
from unbroken.store.base import Durability, StreamingMessageRepository
from unbroken.streams import NewStream

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from unbroken.server.services import Services

__all__ = ["Followed", "Unbroken"]


@dataclass(frozen=True, slots=True)
class Followed:
    """One message on its way to a viewer in the same process."""

    seq: Seq
    message: Message


class Unbroken:
    """Persistent streams for an ASGI application.

    `store` is `sqlite:///FILE`, `memory:`, or a store of your own. `durability` says what an acknowledged append survives: `disk`
    (power loss too) or `process` (a crash). Browsers may call from the application's own origin and `allow_origins`; with `token`
    every request needs it. One instance serves one application and one event loop.
    """

    def __init__(
        self,
        store: str | StreamingMessageRepository = "sqlite:///unbroken.db",
        *,
        durability: Literal["disk", "process"] = "disk",
        token: str | None = None,
        allow_origins: tuple[str, ...] = (),
        limits: Limits = DEFAULT_LIMITS,
        clock: Clock | None = None,
    ) -> None:
        opened = open_store(store, Durability(durability), limits=limits) if isinstance(store, str) else store
        access = Access(token=token, allow_origins=frozenset(allow_origins), allow_hosts=frozenset(), embedded=True)
        self._engine = Engine(build_services(opened, access, limits=limits, clock=clock))
        services = self._engine.services
        self.services = services
        self._runs = LocalRuns(services.streams, services.states)
        self._principal = Principal()

    # --- putting it into an application -------------------------------------------------------------------------------

    @asynccontextmanager
    async def lifespan(self, _app: object = None) -> AsyncIterator[None]:
        """Everything runs inside this; enter it from your own lifespan if you mount `asgi`."""
        async with self._engine.running(), self._runs.running():
            yield

    @property
    def router(self) -> Router:
        """For `app.include_router(unbroken.router, prefix="/streams")`: all routes, and the lifespan with them.

        A FastAPI `APIRouter` where FastAPI is installed, else a Starlette `Router`.
        """
        routes = [Mount("/", app=self.asgi)]
        try:
            from fastapi import APIRouter  # noqa: PLC0415 - optional, and slow to import
        except ImportError:
            return Router(routes=routes, lifespan=self._router_lifespan)
        return APIRouter(routes=routes, lifespan=self._router_lifespan)

    def _router_lifespan(self, app: object) -> AbstractAsyncContextManager[None]:
        return self.lifespan(app)

    @property
    def asgi(self) -> ASGIApp:
        """For `Mount("/streams", app=unbroken.asgi)`; `lifespan` must be entered by the outer application."""
        return ProblemMiddleware(Router(routes=build_routes(self.services)), self.services)

    # --- streams ------------------------------------------------------------------------------------------------------

    async def start(
        self,
        source: AsyncIterable[Item],
        name: str,
        *,
        kind: str = "text",
        session: str | None = None,
        metadata: Mapping[str, object] | None = None,
        ttl_seconds: int | None = None,
    ) -> StreamInfo:
        """Run `source` into the stream `name`, detached from every request; with a taken name attach to what is there.

        What it yields (text, bytes, JSON values, `NewMessage`) is durable before anybody sees it. When it ends the stream is
        completed; when it raises, failed; when somebody cancels, cancelled; when this process dies, interrupted. Raises
        `AlreadyExistsError` when the name belongs to something of another kind or session.
        """
        new = NewStream(
            kind=kind,
            session=session,
            metadata=msgspec.json.encode(metadata or {}).decode(),
            ttl_seconds=ttl_seconds,
        )
        return await self._runs.start(self._principal, name, source, new)

    async def respond(
        self, source: AsyncIterable[Item], name: str, *, session: str | None = None, media_type: str = "text/plain"
    ) -> StreamingResponse:
        """`start`, and a response that streams the payloads from the first one on: a drop-in for a `StreamingResponse`.

        The client may go away and come again: the same call attaches, and replays from the start. Headers `Unbroken-Stream`
        and `Unbroken-Epoch` name the stream for clients that resume by cursor.
        """
        stream = await self.start(source, name, session=session)
        headers = {
            "Unbroken-Stream": name.encode("ascii", "xmlcharrefreplace").decode(),
            "Unbroken-Epoch": str(stream.epoch),
            "Cache-Control": "no-store, no-transform",
            "X-Accel-Buffering": "no",
        }
        return StreamingResponse(self._payloads(name), media_type=media_type, headers=headers)

    async def _payloads(self, name: str) -> AsyncIterator[bytes]:
        async for followed in self.follow(name):
            yield payload_bytes(followed.message)

    async def follow(self, name: str, after: str = "start") -> AsyncIterator[Followed]:
        """The messages of a stream behind `after` (PROTOCOL.md 1.5), live, until it ends.

        Raises `NotFoundError`, `EpochMismatchError` and `TrimmedError`; leaving the loop stops watching, never the run.
        """
        services = self._running()
        stream = await services.streams.get(self._principal, name)
        cursor = services.streams.position(stream, after)
        with await services.hub.follow(stream, cursor) as follower:
            while True:
                delta = await follower.next()
                for batch in delta.batches:
                    for seq, message in enumerate(decode_messages(batch.body), batch.first):
                        yield Followed(Seq(seq), message)
                if follower.ended:
                    return

    async def state(self, name: str) -> StreamInfo:
        """The stream as it is now; `NotFoundError` when there is none."""
        return await self._running().streams.get(self._principal, name)

    async def cancel(self, name: str) -> StreamInfo:
        """Ask a run to stop; what it has yielded is kept. Idempotent."""
        services = self._running()
        return await services.states.cancel(await services.streams.get(self._principal, name), self._principal)

    def _running(self) -> Services:
        if not self.services.started:
            raise LifespanError
        return self.services
