"""`Client`: the asynchronous client of Unbroken; one object for one server.

Applications use it directly, `SyncClient` and the command line through it. It never imports the server, and never
raises for a lost connection.
"""

from __future__ import annotations

import asyncio
import ssl as tls
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from unbroken.client.appends import Appends
from unbroken.client.download import download
from unbroken.client.follow import Follow
from unbroken.client.http import HttpFace, place
from unbroken.client.link import Link
from unbroken.client.producer import Producer
from unbroken.client.runs import ClientRuns
from unbroken.client.tokens import ClientTokens
from unbroken.client.transport import Address, Connector, TokenSource
from unbroken.client.values import (
    Appended,
    ConnectionStatus,
    Erasure,
    Json,
    Payload,
    SessionPage,
    SessionView,
    StatusEvent,
    StreamPage,
    StreamRead,
    Verification,
    as_messages,
    raw_json,
)
from unbroken.clock import Clock, SystemClock
from unbroken.errors import DrainingError, OverloadedError
from unbroken.limits import DEFAULT_LIMITS, Limits
from unbroken.messages import Cursor
from unbroken.protocol.client_chain import Verify
from unbroken.protocol.frames import AppendFrame, CancelFrame, CloseSpec, CreateFrame, ProducerSpec, StreamView

__all__ = ["Client"]


class Client:
    """A connection to one Unbroken server that outlives every network failure.

    Use it as `async with Client("http://127.0.0.1:8000") as client`. One WebSocket carries every append and every
    follow (a second one opens only when one stream is followed twice); the rest goes over HTTP. It connects in the
    background and comes back by itself with exponential backoff; calls wait meanwhile, so bound them with
    `asyncio.timeout` where that matters. A refusal that would only repeat (credentials, origin, version) fails what
    waits and everything later until `reconnect`. `on_status` hears of every change and must not block.

    `token` may be a function, sync or async, that gives the present one: it is asked for each connection and request,
    before the credential of a live connection ends, and once more when a token was refused.
    """

    def __init__(
        self,
        url: str,
        *,
        token: TokenSource = None,
        limits: Limits = DEFAULT_LIMITS,
        clock: Clock | None = None,
        ssl: tls.SSLContext | None = None,
        on_status: Callable[[StatusEvent], None] | None = None,
    ) -> None:
        self.limits = limits
        self._connector = Connector(Address.parse(url), limits, clock or SystemClock(), token, ssl)
        self._on_status = on_status
        self._status_changed = asyncio.Event()
        self._http: HttpFace | None = None
        self._group = asyncio.TaskGroup()
        self._links: list[Link] = []
        self._link_tasks: list[asyncio.Task[None]] = []
        self._producers: list[Producer] = []
        self._appends: Appends | None = None

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        self._http = HttpFace(self._connector)
        link = self._open_link(self._changed)
        self._appends = Appends(link, self.limits, self._connector.clock.random)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            for producer in self._producers:
                await producer.stop()
            await self._close_links()
            await self._face.aclose()
        finally:
            # The body's own error stays as it is; a cancellation may be the group's, which then tells why.
            cancelled = isinstance(error, asyncio.CancelledError)
            await self._group.__aexit__(kind if cancelled else None, error if cancelled else None, None)

    # --- the connection ----------------------------------------------------------------------------------------------

    @property
    def status(self) -> ConnectionStatus:
        """How the connection is now."""
        return self._link.status

    async def wait_status(self, *wanted: ConnectionStatus) -> ConnectionStatus:
        """Wait until the connection is in one of these states."""
        while self.status not in wanted:
            self._status_changed.clear()
            await self._status_changed.wait()
        return self.status

    def wake(self) -> None:
        """The network may be back: connect now instead of waiting on."""
        for link in self._links:
            link.wake()

    def reconnect(self) -> None:
        """Try again after `refused`."""
        for link in self._links:
            if link.refusal is not None:
                link.restart()

    # --- streams -----------------------------------------------------------------------------------------------------

    async def create(
        self,
        stream: str,
        *,
        kind: str = "stream",
        content_type: str = "application/json",
        session: str | None = None,
        metadata: Mapping[str, Json] | None = None,
        ttl_seconds: int | None = None,
    ) -> StreamView:
        """Create a stream, or find it when it exists with the same kind, content type and session.

        Idempotent and durable; raises `AlreadyExistsError` when the name is taken by another kind of stream.
        """
        frame = CreateFrame(
            id=0,
            stream=stream,
            kind=kind,
            content_type=content_type,
            session=session,
            metadata=raw_json(metadata),
            ttl_seconds=ttl_seconds,
        )
        outcome = await self._link.request(frame)
        assert isinstance(outcome, tuple)
        return outcome[0]

    async def append(
        self,
        stream: str,
        payload: Payload | Iterable[Payload],
        *,
        kind: str = "message",
        expected_head: int | None = None,
        producer: ProducerSpec | None = None,
    ) -> Appended:
        """Append messages atomically and wait until they are durable; takes effect once, whatever happens on the way.

        Calls that follow one another are stored in that order; concurrent ones in any. Cancelling leaves the outcome
        unknown. Raises the server's refusal, after the retries of one that could have passed.
        """
        assert self._appends is not None, "use `async with`"
        messages = as_messages(payload, self.limits, kind=kind)
        frame = AppendFrame(id=0, stream=stream, messages=messages, producer=producer, expected_head=expected_head)
        return await self._appends.append(frame)

    def producer(
        self, stream: str, *, id: str, epoch: int = 0, seq: int = 0, lease_seconds: float | None = None
    ) -> Producer:
        """A pipelined producer, to be used as a context manager; see `Producer`.

        `epoch` fences: a higher one shuts out every producer of the same id with a lower one. `seq` is the number of
        its first append, 0 unless it continues an earlier one's. `lease_seconds` None takes no lease.
        """
        producer = Producer(
            self._free_link(stream),
            stream,
            ProducerSpec(id=id, epoch=epoch, seq=seq),
            lease_seconds=lease_seconds,
            limits=self.limits,
        )
        self._producers = [known for known in self._producers if known.error is None]
        self._producers.append(producer)
        producer.start(self._group)
        return producer

    def follow(self, stream: str, after: str | Cursor = "start", *, verify: Verify = False) -> Follow:
        """The messages behind `after` (`start`, `now`, `last:N` or a cursor) and everything that comes; see `Follow`.

        The subscription begins with the call. With `verify` the hash chain is recomputed over everything that arrives; heads
        that you trust, `{seq: hex}` from a checkpoint or an earlier visit, are compared too.
        """
        return Follow(self._free_link(stream), stream, str(after), verify=verify, limits=self.limits)

    async def cancel(self, stream: str) -> StreamView:
        """Ask the stream's producer to stop; idempotent. Without a producer the stream ends as `cancelled` at once."""
        outcome = await self._link.request(CancelFrame(id=0, stream=stream))
        assert isinstance(outcome, tuple)
        return outcome[0]

    async def close(
        self, stream: str, state: str = "completed", reason: Mapping[str, Json] | None = None
    ) -> StreamView:
        """End a stream in a terminal state."""
        assert self._appends is not None, "use `async with`"
        spec = CloseSpec(state=state, reason=raw_json(reason))
        await self._appends.append(AppendFrame(id=0, stream=stream, close=spec))
        return await self.state(stream)

    async def state(self, stream: str) -> StreamView:
        """The stream as it is now; raises `NotFoundError`."""
        return await self._face.get(place("streams", stream), StreamView)

    async def list(
        self,
        *,
        session: str | None = None,
        prefix: str | None = None,
        active: bool | None = None,
        run: bool | None = None,
        limit: int | None = None,
        page: str | None = None,
    ) -> StreamPage:
        """A page of streams, newest first; pass its `next` as `page` for the following one.

        `active` True: not ended, False: ended. `run` True: those that the server executes, False: all others.
        """
        query = {"session": session, "prefix": prefix, "active": active, "run": run, "limit": limit, "page": page}
        return await self._face.get("/v1/streams", StreamPage, query)

    async def read(self, stream: str, after: str | Cursor = "start", *, limit: int | None = None) -> StreamRead:
        """One bounded read; go on with its `cursor` until `up_to_date`."""
        return await self._face.get(place("messages", stream), StreamRead, {"after": str(after), "limit": limit})

    async def download(self, stream: str, target: str | Path) -> int:
        """Save the payloads of a stream, joined, as the file `target`; how many bytes there are.

        What a run's message of the kind `file` refers to is saved with this. `target` appears, or is replaced, when it is
        whole and its digest is that of the file. Begins anew after a lost connection. Raises `NotFoundError`,
        `TransitionError` for a file that is not whole yet, `CorruptError` for bytes that are not what was stored, `OSError`
        for a target that cannot be written.
        """
        return await download(self._face, self._connector, stream, Path(target))

    async def pause(self, stream: str) -> StreamView:
        return await self._face.send("POST", place("pause", stream), StreamView)

    async def resume(self, stream: str) -> StreamView:
        return await self._face.send("POST", place("resume", stream), StreamView)

    async def trim(self, stream: str, first: int) -> StreamView:
        """Delete the messages before `first`."""
        return await self._face.send("POST", place("trim", stream), StreamView, {"first": first})

    async def delete(self, stream: str) -> None:
        """Delete the stream; its name may be used again and then has a greater epoch."""
        await self._face.delete(place("streams", stream))

    async def erase(self, stream: str | None, reason: str = "") -> Erasure:
        """Destroy what the stream held, or with None what all streams of this token's owner held, for good."""
        body = {"reason": reason} if stream is None else {"stream": stream, "reason": reason}
        return await self._face.send("POST", "/v1/erasures", Erasure, body)

    async def verify(self, stream: str) -> Verification:
        """Let the server recompute the hash chain."""
        return await self._face.get(place("verify", stream), Verification)

    async def sessions(self, *, page: str | None = None) -> SessionPage:
        return await self._face.get("/v1/sessions", SessionPage, {"page": page})

    async def session(self, name: str) -> SessionView:
        return await self._face.get(place("sessions", name), SessionView)

    async def put_session(
        self, name: str, *, state: str = "active", metadata: Mapping[str, Json] | None = None
    ) -> SessionView:
        """Create a session or change it."""
        body: dict[str, object] = {"state": state} if metadata is None else {"state": state, "metadata": metadata}
        return await self._face.send("PUT", place("sessions", name), SessionView, body)

    async def delete_session(self, name: str) -> None:
        await self._face.delete(place("sessions", name))

    async def session_streams(self, name: str, *, page: str | None = None) -> StreamPage:
        """A session's streams, oldest first."""
        return await self._face.get(place("session-streams", name), StreamPage, {"page": page})

    @property
    def runs(self) -> ClientRuns:
        """Runs: what there is to run, starting it, trying it again, answering its questions."""
        return ClientRuns(self._face)

    @property
    def tokens(self) -> ClientTokens:
        """Tokens: handing on a part of what this client may do, and taking it back."""
        return ClientTokens(self._face)

    # --- inside ------------------------------------------------------------------------------------------------------

    @property
    def _link(self) -> Link:
        assert self._links, "use `async with`"
        return self._links[0]

    @property
    def _face(self) -> HttpFace:
        assert self._http is not None, "use `async with`"
        return self._http

    def _open_link(self, on_status: Callable[[StatusEvent], None]) -> Link:
        link = Link(self._connector, on_status)
        self._links.append(link)
        self._link_tasks.append(self._group.create_task(link.run()))
        return link

    def _free_link(self, stream: str) -> Link:
        """A link that does not follow the stream yet; a connection has one subscription for each stream."""
        if self._link.status is ConnectionStatus.CLOSED:
            raise DrainingError("the client is closed")
        for link in self._links:
            if not link.follows(stream):
                return link
        if len(self._links) >= self.limits.client_links_max:
            raise OverloadedError(
                f"{stream} is followed {len(self._links)} times by this client", limit="client_links_max"
            )
        return self._open_link(_ignore)

    async def _close_links(self) -> None:
        """Leave in order where there is a connection; no longer than a close handshake may take."""
        for link, task in zip(self._links, self._link_tasks, strict=True):
            connected = link.session.connected
            link.stop()
            if not connected:
                task.cancel()
        _, late = await asyncio.wait(self._link_tasks, timeout=2 * self.limits.client_close_seconds_max)
        for task in late:
            task.cancel()

    def _changed(self, event: StatusEvent) -> None:
        self._status_changed.set()
        if self._on_status is not None:
            self._on_status(event)


def _ignore(event: StatusEvent) -> None:
    """Only the first link's status is told: the others reach the same server."""
