"""The HTTP faces over real sockets in this process: a server, a client that speaks to it, and what tests ask of both.

The tests of the HTTP faces call it. It adds nothing to the server of tests/support/speeds.py but a client.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import httpx2
import uvicorn

from tests.support.speeds import Http, Speed, running_server
from unbroken.auth.access import Access
from unbroken.clock import SystemClock
from unbroken.limits import DEFAULT_LIMITS, Limits
from unbroken.protocol.sse import ServerEvent, SseParser
from unbroken.runs.catalog import Catalog
from unbroken.server.services import Services
from unbroken.store.base import Durability, StreamingMessageRepository
from unbroken.store.memory import MemoryStore
from unbroken.store.sqlite import SQLiteStore

__all__ = ["Carrier", "Served", "served", "serving", "store_of"]

CEILING_SECONDS = 60.0


def store_of(kind: str, directory: Path, limits: Limits = DEFAULT_LIMITS) -> StreamingMessageRepository:
    """An empty store by its name."""
    if kind == "memory":
        return MemoryStore(limits=limits)
    return SQLiteStore(directory / "http.db", durability=Durability.PROCESS, limits=limits, clock=SystemClock())


class Carrier(StrEnum):
    """How the body of a long response travels: through ASGI, or past it, with either of uvicorn's parsers."""

    ASGI = "asgi"
    HTTPTOOLS = "httptools"
    H11 = "h11"


@dataclass(frozen=True)
class Served:
    """A running server and a client of it; paths are relative to its root."""

    services: Services
    client: httpx2.AsyncClient
    port: int

    async def create(self, name: str, **fields: Any) -> Any:
        """A stream that is not there yet; its view."""
        return await self.answer(201, "PUT", f"/v1/streams/{name}", json=fields)

    async def append(self, name: str, *texts: str, **fields: Any) -> Any:
        """Append texts; the answer."""
        body = {"messages": [{"text": text} for text in texts], **fields}
        return await self.answer(200, "POST", f"/v1/messages/{name}", json=body)

    async def answer(self, status: int, method: str, path: str, **options: Any) -> Any:
        """The JSON of an answer that must have `status`."""
        response = await self.client.request(method, path, **options)
        assert response.status_code == status, response.text
        return response.json() if response.content else None

    async def problem(self, status: int, code: str, method: str, path: str, **options: Any) -> Any:
        """The problem document of an answer that must be one."""
        response = await self.client.request(method, path, **options)
        assert response.headers["content-type"] == "application/problem+json", response.text
        document = response.json()
        assert (response.status_code, document["code"]) == (status, code), response.text
        assert document["status"] == status
        assert set(document) == {"status", "title", "code", "detail", "cure", "retryable", "facts"}
        return document

    async def viewers(self, count: int) -> None:
        """Wait until so many subscriptions are there."""
        async with asyncio.timeout(CEILING_SECONDS):
            while self.services.hub.subscriptions != count:
                await asyncio.sleep(0.005)

    @asynccontextmanager
    async def events(self, path: str, headers: Mapping[str, str] | None = None) -> AsyncIterator[Events]:
        """An SSE response while it is open."""
        async with (
            asyncio.timeout(CEILING_SECONDS * 3),
            self.client.stream("GET", path, headers={"Accept": "text/event-stream", **(headers or {})}) as response,
        ):
            yield Events(response)


class Events:
    """What arrives on an SSE response, event by event; `raw` keeps every byte."""

    def __init__(self, response: httpx2.Response) -> None:
        self.response = response
        self.raw = b""
        self._parser = SseParser()
        self._chunks = response.aiter_raw()
        self._waiting: list[ServerEvent] = []

    async def next(self) -> ServerEvent | None:
        """The next event, None at the end of the response."""
        async with asyncio.timeout(CEILING_SECONDS):
            while not self._waiting:
                chunk = await anext(self._chunks, None)
                if chunk is None:
                    return None
                self.raw += chunk
                self._waiting += self._parser.feed(chunk)
        return self._waiting.pop(0)

    async def rest(self) -> list[ServerEvent]:
        """Every event up to the end of the response."""
        found: list[ServerEvent] = []
        while (event := await self.next()) is not None:
            found.append(event)
        return found

    async def take(self, count: int) -> list[ServerEvent]:
        """The next `count` message events; others are passed over."""
        found: list[ServerEvent] = []
        while len(found) < count:
            event = await self.next()
            assert event is not None, "the response ended"
            if event.event == "message":
                found.append(event)
        return found


@asynccontextmanager
async def served(
    *,
    store: StreamingMessageRepository | None = None,
    limits: Limits = DEFAULT_LIMITS,
    access: Access | None = None,
    carrier: Carrier = Carrier.ASGI,
    catalog: Catalog | None = None,
) -> AsyncIterator[Served]:
    """The whole server on a free port, and a client without any credentials."""
    speed = Speed.ASGI if carrier is Carrier.ASGI else Speed.TAKEOVER
    http: Http = "h11" if carrier is Carrier.H11 else "httptools"
    async with (
        running_server(speed, store=store, limits=limits, access=access, http=http, catalog=catalog) as running,
        _client(running.url) as client,
    ):
        yield Served(running.services, client, running.port)


@asynccontextmanager
async def serving(app: Any, **options: Any) -> AsyncIterator[httpx2.AsyncClient]:
    """Any ASGI application on a free port; `options` are uvicorn's."""
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, access_log=False, lifespan="off", **options)
    server = uvicorn.Server(config)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(server._serve())
        async with asyncio.timeout(CEILING_SECONDS):
            while not server.started:
                await asyncio.sleep(0.005)
        port = server.servers[0].sockets[0].getsockname()[1]
        try:
            async with _client(f"http://127.0.0.1:{port}") as client:
                yield client
        finally:
            server.should_exit = True


def _client(url: str) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(base_url=url, timeout=httpx2.Timeout(CEILING_SECONDS), trust_env=False)
