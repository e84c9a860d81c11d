"""`SyncClient`: the client for programs without an event loop.

Scripts and threads use it. It owns one thread with one loop, in which a `Client` does all the work; it never does any
itself.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from unbroken.client.client import Client
from unbroken.client.follow import Follow
from unbroken.client.sync_runs import SyncRuns
from unbroken.client.sync_tokens import SyncTokens
from unbroken.client.transport import TokenSource
from unbroken.client.values import Appended, Json, Payload, Received, StreamPage, StreamRead
from unbroken.limits import DEFAULT_LIMITS, Limits
from unbroken.messages import Cursor
from unbroken.protocol.client_chain import Verify
from unbroken.protocol.frames import StreamView

__all__ = ["SyncClient"]

T = TypeVar("T")


class SyncClient:
    """Blocking calls with the promises of `Client`; may be shared between threads.

    Use it as a context manager. A call waits as long as it takes: through every lost connection.
    """

    def __init__(self, url: str, *, token: TokenSource = None, limits: Limits = DEFAULT_LIMITS) -> None:
        self._url = url
        self._token = token
        self._limits = limits
        self._started: threading.Event = threading.Event()
        self._failure: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: Client | None = None
        self._leave: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="unbroken-client", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.wait()
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._loop is not None
        assert self._leave is not None
        self._loop.call_soon_threadsafe(self._leave.set)
        self._thread.join()

    def create(
        self, stream: str, *, session: str | None = None, metadata: Mapping[str, Json] | None = None
    ) -> StreamView:
        """Create a stream, or find it; see `Client.create`."""
        return self._call(self._inner.create(stream, session=session, metadata=metadata))

    def append(self, stream: str, payload: Payload | Iterable[Payload], *, kind: str = "message") -> Appended:
        """Append and wait until it is durable; see `Client.append`."""
        return self._call(self._inner.append(stream, payload, kind=kind))

    def follow(self, stream: str, after: str | Cursor = "start", *, verify: Verify = False) -> Iterator[Received]:
        """The messages of a stream until it ends; leaving the loop leaves the stream. See `Client.follow`."""

        async def begin() -> Follow:
            return self._inner.follow(stream, after, verify=verify)

        async def next_batch() -> list[Received]:
            try:
                return await follow.batch()
            except StopAsyncIteration:
                return []

        follow = self._call(begin())
        try:
            while batch := self._call(next_batch()):
                yield from batch
        finally:
            self._call(follow.aclose())

    def read(self, stream: str, after: str | Cursor = "start", *, limit: int | None = None) -> StreamRead:
        """One bounded read; see `Client.read`."""
        return self._call(self._inner.read(stream, after, limit=limit))

    def download(self, stream: str, target: str | Path) -> int:
        """Save a file that a run has stored; see `Client.download`."""
        return self._call(self._inner.download(stream, target))

    def state(self, stream: str) -> StreamView:
        return self._call(self._inner.state(stream))

    def list(
        self,
        *,
        session: str | None = None,
        prefix: str | None = None,
        active: bool | None = None,
        run: bool | None = None,
        limit: int | None = None,
        page: str | None = None,
    ) -> StreamPage:
        """A page of streams; see `Client.list`."""
        return self._call(
            self._inner.list(session=session, prefix=prefix, active=active, run=run, limit=limit, page=page)
        )

    def cancel(self, stream: str) -> StreamView:
        """Ask the stream's producer to stop; see `Client.cancel`."""
        return self._call(self._inner.cancel(stream))

    def close(self, stream: str, state: str = "completed", reason: Mapping[str, Json] | None = None) -> StreamView:
        """End a stream in a terminal state."""
        return self._call(self._inner.close(stream, state, reason))

    @property
    def runs(self) -> SyncRuns:
        """Runs: what there is to run, starting it, trying it again, answering its questions."""
        return SyncRuns(self._call, self._inner.runs)

    @property
    def tokens(self) -> SyncTokens:
        """Tokens: handing on a part of what this client may do, and taking it back."""
        return SyncTokens(self._call, self._inner.tokens)

    @property
    def _inner(self) -> Client:
        assert self._client is not None, "use `with`"
        return self._client

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001 - the thread's top: handed to the caller
            self._failure = error
        finally:
            self._started.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._leave = asyncio.Event()
        async with Client(self._url, token=self._token, limits=self._limits) as client:
            self._client = client
            self._started.set()
            await self._leave.wait()
