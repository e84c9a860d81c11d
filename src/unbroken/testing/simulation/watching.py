"""Those who watch a simulated stream: at once or late, slowly, with reloads, page by page, or as a browser's `EventSource`.

Each notes in the history where it begins, everything that it gets, and the end that it is told. They never write.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import msgspec
from msgspec import UNSET

from unbroken.client import Client, Follow
from unbroken.errors import NotFoundError, StoreError, TrimmedError, UnbrokenError
from unbroken.messages import Message
from unbroken.protocol.frames import StreamView
from unbroken.protocol.sse import ServerEvent, SseParser
from unbroken.testing.history import History
from unbroken.testing.simulation.plan import StreamKind, StreamPlan, ViewerKind, ViewerPlan
from unbroken.testing.simulation.world import World, open_context

__all__ = ["Watcher", "identify", "trim"]

PATIENCE_SECONDS = 0.5
_REST_SECONDS = {ViewerKind.READING: 0.25, ViewerKind.EVENTS: 1.0}
"""How long who asks again and again waits in between, at least."""


def identify(history: History, seq: int, message: Message) -> tuple[str, bytes]:
    """The id and the content of a message. What the server itself puts into a run's stream counts as sent when first seen."""
    if isinstance(message.text, str):
        return message.text.split()[0], message.text.encode()
    name = f"{message.kind}@{seq}"
    content = b"" if message.json is UNSET else bytes(message.json)
    history.invoke(name, name, content)
    return name, content


async def trim(world: World, plan: StreamPlan) -> None:
    """Delete the first messages once some are there; whoever has not read them is told."""
    history = world.histories[plan.name]
    async with world.client(f"{plan.name}-janitor") as client:
        while (view := await _state(client, plan.name)) is None or view.head < plan.messages // 3:
            if view is not None and view.ended is not None:
                return
            await asyncio.sleep(PATIENCE_SECONDS)
        first = plan.messages // 4
        history.trim(first)
        while True:
            try:
                await client.trim(plan.name, first)
            except StoreError:
                await asyncio.sleep(PATIENCE_SECONDS)
            else:
                return


async def _state(client: Client, stream: str) -> StreamView | None:
    """The stream as it is now; None when it is not there yet, or nobody can say."""
    try:
        return await client.state(stream)
    except NotFoundError:
        return None
    except UnbrokenError as error:
        if not error.retryable:
            raise
        return None


class Watcher:
    """One viewer of one stream, from its first look to the end of the stream."""

    def __init__(self, world: World, stream: StreamPlan, plan: ViewerPlan) -> None:
        self._world = world
        self._stream = stream
        self._plan = plan
        self._history = world.histories[stream.name]
        self._observer = plan.name
        self._lives = 0
        self._last = 0
        self._cursor = ""
        self._after = plan.after
        self._standing = False
        self.waiting_most = 0
        """The most messages that ever waited in the client."""

    async def run(self) -> None:
        """Watch until the end is told."""
        if self._plan.kind is ViewerKind.LATE:
            await self._world.progress.reach(self._stream.messages // 2)
        over = False
        while not over:
            async with self._world.client(self._plan.name) as client:
                match self._plan.kind:
                    case ViewerKind.READING:
                        over = await self._read(client)
                    case ViewerKind.EVENTS:
                        over = await self._listen(client)
                    case _:
                        over = await self._follow(client)
            if not over:
                await asyncio.sleep(max(self._plan.seconds, _REST_SECONDS.get(self._plan.kind, 0.0)))

    # --- what is written down ----------------------------------------------------------------------------------------

    def _begin(self, cursor: str) -> None:
        """A connection begins behind `cursor`."""
        self._cursor = cursor
        self._last = int(cursor.partition(":")[2] or 0)
        self._history.open(self._observer, self._last)

    def _take(self, seq: int, epoch: int, message: Message) -> None:
        name, content = identify(self._history, seq, message)
        self._history.deliver(self._observer, seq, name, content)
        self._last, self._cursor = seq, f"{epoch}:{seq}"

    def _missed(self) -> None:
        """What should have come was trimmed: somebody new begins where there is something."""
        self._history.leave(self._observer)
        self._lives += 1
        self._observer = f"{self._plan.name}#{self._lives}"
        self._cursor, self._after = "", "start"

    # --- three ways to watch -----------------------------------------------------------------------------------------

    async def _follow(self, client: Client) -> bool:
        follow = client.follow(self._stream.name, self._cursor or self._after)
        try:
            await follow.ready()
            assert follow.cursor is not None
            self._begin(self._cursor or str(follow.cursor))
            return await self._take_all(follow)
        except NotFoundError:
            await asyncio.sleep(PATIENCE_SECONDS)
            return self._gone()
        except TrimmedError:
            self._missed()
            return False

    def _gone(self) -> bool:
        if self._stream.kind is not StreamKind.RUN or self._last:
            self._world.violated(f"{self._observer} was told that there is no stream {self._stream.name}")
            return True
        return False

    async def _take_all(self, follow: Follow) -> bool:
        """Everything up to the end; False when this viewer leaves before."""
        plan = self._plan
        number = 0
        async for received in follow:
            self._take(received.seq, received.epoch, received.message)
            number += 1
            self.waiting_most = max(self.waiting_most, follow.waiting)
            if plan.kind is ViewerKind.SLOW:
                await asyncio.sleep(plan.seconds / plan.every)
            if plan.kind is ViewerKind.RETURNING and number == plan.every:
                return False
        assert follow.state is not None
        self._history.end(self._observer, follow.state.state)
        return True

    async def _read(self, client: Client) -> bool:
        told = self._history.read(self._observer)
        try:
            page = await client.read(self._stream.name, self._cursor or "start", limit=self._plan.every)
        except NotFoundError:
            return self._gone()
        except TrimmedError:
            self._missed()
            return False
        except UnbrokenError as error:
            if not error.retryable:
                raise
            return False
        self._begin(self._cursor or f"{page.stream.epoch}:{page.first - 1 if page.messages else page.stream.head}")
        for received in page.received():
            self._take(received.seq, received.epoch, received.message)
        self._cursor = page.cursor
        if page.up_to_date:
            told(self._last)
        if page.up_to_date and page.stream.ended is not None:
            self._history.end(self._observer, page.stream.state)
            return True
        return False

    async def _listen(self, client: Client) -> bool:
        """One SSE response, with what it brings; the server ends it now and then."""
        self._standing = False
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": self._cursor} if self._cursor else {})
        try:
            async with _response(self._world.url(self._plan.name), self._stream.name, headers) as response:
                if response.status_code == 404:
                    return self._gone()
                if response.status_code == 410:
                    self._missed()
                    return False
                if response.status_code == 204:
                    self._history.end(self._observer, (await client.state(self._stream.name)).state)
                    return True
                if response.status_code != 200:
                    return False
                async for event in _events(response):
                    if self._hear(event):
                        return True
        except httpx2.TransportError:
            return False
        return False

    def _hear(self, event: ServerEvent) -> bool:
        """Take one event; whether it is the last."""
        match event.event:
            case "message":
                epoch, _, seq = event.id.partition(":")
                if not self._standing:
                    self._standing = True
                    self._begin(self._cursor or f"{epoch}:{int(seq) - 1}")
                message = msgspec.json.decode(event.data, type=Message)
                self._take(int(seq), int(epoch), message)
            case "state":
                view = msgspec.json.decode(event.data, type=StreamView)
                if view.ended is not None:
                    self._history.end(self._observer, view.state)
                    return True
            case "error":
                self._missed()
            case _:
                pass
        return False


@asynccontextmanager
async def _response(url: str, stream: str, headers: dict[str, str]) -> AsyncIterator[httpx2.Response]:
    async with (
        httpx2.AsyncClient(base_url=url, timeout=60, trust_env=False, verify=open_context()) as client,
        client.stream("GET", f"/v1/messages/{stream}", headers=headers) as response,
    ):
        yield response


async def _events(response: httpx2.Response) -> AsyncIterator[ServerEvent]:
    parser = SseParser()
    async for piece in response.aiter_raw():
        for event in parser.feed(piece):
            yield event
