"""Unbroken inside another application: one object with a router, a lifespan, and streams to start and follow.

An application makes one `Unbroken`, includes its router (or mounts its ASGI app and enters its lifespan), and starts runs. It
is the public face of the whole server for Python code in the same process; it adds nothing to what the server does.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar
from urllib.parse import quote

import msgspec
from starlette.responses import StreamingResponse
from starlette.routing import Router

from unbroken.auth.access import Access
from unbroken.auth.callers import Identify
from unbroken.clock import Clock
from unbroken.errors import ConfigurationError, DrainingError, InvalidError, LifespanError
from unbroken.identity import Principal, Verb
from unbroken.limits import DEFAULT_LIMITS, Limits
from unbroken.messages import Cursor, Message, Seq, StreamInfo, decode_messages, payload_bytes
from unbroken.redaction.redactor import Redactor
from unbroken.requests import NewStream
from unbroken.runs.catalog import Catalog
from unbroken.runs.items import Item
from unbroken.runs.local import LocalRuns
from unbroken.runs.spec import RunOptions, RunRequest
from unbroken.runs.task import Task, Tasks, load_tasks, task
from unbroken.server.app import build_routes, build_services, keeper_of, open_store
from unbroken.server.departure import unless
from unbroken.server.engine import Engine
from unbroken.server.middleware import ProblemMiddleware
from unbroken.server.signals import on_stop_signal
from unbroken.server.takeover import CARRIED, Carried
from unbroken.store.base import Durability, StreamingMessageRepository
from unbroken.store.keys import Wrapping

if TYPE_CHECKING:
    from fastapi import APIRouter
    from starlette.types import ASGIApp, Receive, Scope, Send

    from unbroken.server.services import Services

__all__ = ["Followed", "Item", "Unbroken"]

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Followed:
    """One message on its way to a viewer in the same process, and the cursor of who has it and everything before it."""

    seq: Seq
    message: Message
    cursor: Cursor


class _Parts:
    """Everything that lives from one start of the application to its end."""

    def __init__(self, services: Services, tasks: int) -> None:
        self.services = services
        self.tasks = tasks
        self.engine = Engine(services)
        self.runs = LocalRuns(services.streams, services.states)
        self.app: ASGIApp = ProblemMiddleware(Router(routes=build_routes(services)), services)
        self.entered = False


class Unbroken:
    """Persistent streams for an ASGI application.

    `store` is `sqlite:///FILE`, `memory:`, or a store of your own. `durability` says what an acknowledged append survives:
    `disk` (power loss too) or `process` (a crash). Browsers may call from the application's own origin and
    `allow_origins`. With `token` every request needs it; `identify` says who is asking (a function of the request's
    `HTTPConnection`, sync or async, that gives a `Principal`, or None for nobody). Its `credential` names the login and never
    comes twice (a hash of the session's cookie, not the user): what was logged out is refused for ever. Without both, whoever
    the application lets through owns everything. One instance serves one application and one event loop at a time;
    the application may be started again after it ended, as tests do.
    """

    def __init__(  # noqa: PLR0913 - one name for each thing that an application may decide
        self,
        store: str | StreamingMessageRepository = "sqlite:///unbroken.db",
        *,
        durability: Literal["disk", "process"] = "disk",
        token: str | None = None,
        identify: Identify | None = None,
        allow_origins: tuple[str, ...] = (),
        limits: Limits = DEFAULT_LIMITS,
        clock: Clock | None = None,
    ) -> None:
        self._store = store
        self._durability = Durability(durability)
        self._access = Access(
            token=token,
            identify=identify,
            allow_origins=frozenset(allow_origins),
            allow_hosts=frozenset(),
            embedded=True,
        )
        self._redactor: Redactor | None = None
        self._wrapping: Wrapping | None = None
        self._checkpoints: tuple[Path, Path] | None = None
        self._limits = limits
        self._clock = clock
        self._principal = Principal()
        self._origin = self
        self._tasks: list[Task[..., Any]] = []
        self._parts = self._build()

    def _build(self) -> _Parts:
        store = self._store
        if isinstance(store, str):
            store = open_store(store, self._durability, limits=self._limits, clock=self._clock, wrapping=self._wrapping)
        catalog = Catalog([Tasks(self._tasks)]) if self._tasks else None
        services = build_services(store, self._access, limits=self._limits, clock=self._clock, catalog=catalog)
        if self._redactor is not None:
            services.use_redactor(self._redactor)
        if self._checkpoints is not None:
            services.keeper = keeper_of(services, *self._checkpoints)
        return _Parts(services, len(self._tasks))

    # --- putting it into an application -------------------------------------------------------------------------------

    @asynccontextmanager
    async def lifespan(self, _app: object = None) -> AsyncIterator[None]:
        """Everything runs inside this; enter it from your own lifespan if you mount `asgi`.

        At the end runs are stopped and marked as interrupted, viewers are sent away to come back, and what was accepted is
        made durable. Entering it again inside changes nothing.

        In the main thread, SIGTERM and SIGINT send the viewers away before they reach whoever handled them already: servers
        end the lifespan only after the last open response.
        """
        if self.services.started:
            yield
            return
        if self._parts.entered or self._parts.tasks != len(self._tasks):
            self._parts = self._build()
        parts = self._parts
        parts.entered = True
        async with parts.engine.running(), parts.runs.running(), on_stop_signal(parts.engine.drain):
            try:
                yield
            finally:
                parts.services.log.hasten()  # runs that wait for a disk that hangs must end too

    @property
    def router(self) -> APIRouter:
        """For FastAPI: `app.include_router(unbroken.router, prefix="/streams")` brings every route, and the lifespan.

        `dependencies` of `include_router` guard every route; one that is to guard the WebSocket too takes an
        `HTTPConnection`. Raises `ConfigurationError` where FastAPI is not installed.
        """
        try:
            from unbroken.server.inclusion import fastapi_router  # noqa: PLC0415 - FastAPI is optional
        except ImportError:
            raise ConfigurationError(
                'the router is for FastAPI; use Mount("/streams", app=unbroken.asgi) and lifespan=unbroken.lifespan'
            ) from None
        return fastapi_router(self.asgi, self.lifespan)

    @property
    def asgi(self) -> ASGIApp:
        """For `Mount("/streams", app=unbroken.asgi)`; `lifespan` must be entered by the outer application.

        Served alone it is a whole application and enters its lifespan itself.
        """
        return _Face(self)

    @property
    def services(self) -> Services:
        """The parts of the running server, for diagnosis; new ones with each start of the application."""
        return self._origin._parts.services

    def acting_for(self, principal: Principal) -> Unbroken:
        """The same streams and runs in the name of `principal`, as `identify` gives it: what is started through it is theirs.

        Only what `principal` may do is done; `NotFoundError` and `ForbiddenError` else. It is for starting, following and
        cancelling; the routes and the lifespan are those of the application's one `Unbroken`.
        """
        other = copy(self)
        other._principal = principal
        return other

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
        completed; when it raises, failed; when somebody cancels, cancelled; when this process stops or dies,
        interrupted. Returns when the stream exists; cancelling the caller does not stop the run. Raises
        `AlreadyExistsError` when the name belongs to something of another kind or session.
        """
        parts = self._running()
        new = NewStream(
            kind=kind,
            session=session,
            metadata=msgspec.json.encode(metadata or {}).decode(),
            ttl_seconds=ttl_seconds,
        )
        return await parts.runs.start(self._principal, name, source, new)

    def protect(
        self,
        *,
        redactor: Redactor | None = None,
        wrapping: Wrapping | None = None,
        checkpoints: Path | None = None,
        checkpoint_key: Path | None = None,
    ) -> None:
        """Before the application starts: `redactor` takes secrets out of everything before it is stored.

        With `wrapping` (master keys, or a key management service of yours) what is in the database's file is encrypted.
        To the directory `checkpoints` signed checkpoints of streams are written, with the key in the file `checkpoint_key`
        that `unbroken keygen` has made: each process needs a directory and a key of its own. What an earlier call gave and
        this one does not stays. `ConfigurationError` for one of the two without the other, for a file that holds no key, and
        for `wrapping` where the store is an object of yours: that is given its keys by you.
        """
        if (checkpoints is None) != (checkpoint_key is None):
            raise ConfigurationError("checkpoints want both checkpoints= and checkpoint_key=", setting="checkpoints")
        if wrapping is not None and not isinstance(self._store, str):
            raise ConfigurationError("a store of your own is given its keys by yourself", setting="wrapping")
        self._redactor = self._redactor if redactor is None else redactor
        self._wrapping = self._wrapping if wrapping is None else wrapping
        if checkpoints is not None and checkpoint_key is not None:
            self._checkpoints = (checkpoints, checkpoint_key)
        self._parts = self._build()

    def include_tasks(self, *modules: str) -> None:
        """The tasks of these modules (`package.module`, or `package.module:name`) can be run; before the application starts.

        `ConfigurationError` for a module that cannot be imported or holds none.
        """
        for module in modules:
            self._tasks += load_tasks(module)

    def task(self, function: Callable[P, R]) -> Task[P, R]:
        """A decorator: as `unbroken.task`, and this application can run it."""
        made = task(function)
        self._tasks.append(made)
        return made

    async def run(
        self, work: Task[..., Any], arguments: Mapping[str, object] | None = None, options: RunOptions | None = None
    ) -> StreamInfo:
        """Start `work` as a run that survives this process, or attach to the one of the same name or key.

        The run is durable when this returns. After a crash it goes on from its last checkpoint. Raises what
        `RunDesk.start` does: `InvalidError` for arguments that do not fit, `AlreadyExistsError` for other work of that name.
        """
        desk, how = self._running().services.desk, options or RunOptions()
        request = RunRequest(
            task=work.name,
            arguments=msgspec.Raw(msgspec.json.encode(arguments or {})),
            name=how.name,
            key=how.key,
            session=how.session,
            metadata=msgspec.Raw(msgspec.json.encode(how.metadata or {})),
            ttl_seconds=how.ttl_seconds,
            idle_seconds=how.idle_seconds,
            total_seconds=how.total_seconds,
        )
        return (await desk.start(self._principal, request)).stream

    async def respond(
        self, source: AsyncIterable[Item], name: str, *, session: str | None = None, media_type: str = "text/plain"
    ) -> StreamingResponse:
        """`start`, and a response that streams the payloads from the first one on: a drop-in for a `StreamingResponse`.

        The client may go away and come again: the same call attaches, and replays from the start. The response ends when
        the stream does, however it ended; its state says how. When the application stops first, it breaks off without its
        end, so that a client can tell. The headers `Unbroken-Stream` (percent-encoded) and
        `Unbroken-Epoch` name the stream for clients that resume by cursor.
        """
        stream = await self.start(source, name, session=session)
        headers = {
            "Unbroken-Stream": quote(name),
            "Unbroken-Epoch": str(stream.epoch),
            "Cache-Control": "no-store, no-transform",
            "X-Accel-Buffering": "no",
        }
        return StreamingResponse(self._payloads(stream), media_type=media_type, headers=headers)

    async def _payloads(self, stream: StreamInfo) -> AsyncIterator[bytes]:
        async with aclosing(self._batches(stream, Seq(stream.first - 1))) as batches:
            async for _, messages in batches:
                yield b"".join(map(payload_bytes, messages))

    async def follow(self, name: str, after: str | Cursor = "start") -> AsyncIterator[Followed]:
        """The messages of a stream behind `after` (PROTOCOL.md 1.5), live, until it ends.

        Each once, in order, and none before it is durable. Raises `NotFoundError`, `EpochMismatchError`, `TrimmedError`,
        and `DrainingError` when the application stops first. Leaving the loop stops watching, never the run.
        """
        streams = self._running().services.streams
        stream = await streams.get(self._principal, name, may=Verb.READ)
        async with aclosing(self._batches(stream, streams.position(stream, str(after)))) as batches:
            async for first, messages in batches:
                for seq, message in enumerate(messages, first):
                    yield Followed(Seq(seq), message, Cursor(stream.epoch, Seq(seq)))

    async def _batches(self, stream: StreamInfo, after: Seq) -> AsyncGenerator[tuple[Seq, list[Message]], None]:
        services = self._running().services
        with await services.hub.follow(stream, after) as follower:
            while not follower.ended:
                found = await unless(services.stopping.wait, follower.next())
                if found is None:
                    raise DrainingError
                for batch in found[0].batches:
                    yield batch.first, decode_messages(batch.body)

    async def state(self, name: str) -> StreamInfo:
        """The stream as it is now; `NotFoundError` when there is none."""
        return await self._running().services.streams.get(self._principal, name, may=Verb.READ)

    async def cancel(self, name: str) -> StreamInfo:
        """Ask a run to stop; what it has yielded is kept. Idempotent, and durable when it returns."""
        services = self._running().services
        stream = await services.streams.get(self._principal, name, may=Verb.CANCEL)
        return await services.states.cancel(stream, self._principal)

    async def revoke(self, principal: Principal) -> None:
        """The credential of `principal` (as `identify` gave it) is good for nothing any more, durably and for ever.

        Who is connected with it is sent away within a second: somebody has logged out, or was locked out. Whoever logs in
        again comes with a credential of another name.
        """
        if not principal.credential:
            raise InvalidError("a principal without a credential has nothing that can be revoked", field="credential")
        await self._running().services.end_credential(principal)

    def _running(self) -> _Parts:
        if not self.services.started:
            raise LifespanError
        return self._origin._parts


class _Face:
    """The ASGI application of an `Unbroken`, over all its starts."""

    def __init__(self, unbroken: Unbroken) -> None:
        self._unbroken = unbroken

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await Router(lifespan=self._unbroken.lifespan)(scope, receive, send)
        elif scope["type"] == "websocket":
            carried: list[Carried] = []
            scope[CARRIED] = carried
            await self._unbroken._parts.app(scope, receive, send)
            del scope[CARRIED], scope, receive, send  # an idle connection keeps as little as possible
            for connection in carried:
                await connection.gone()
        else:
            await self._unbroken._parts.app(scope, receive, send)
