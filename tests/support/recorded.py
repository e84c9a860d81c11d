"""Owns producers and observers that record everything they are told into a `History`.

Fault tests run them against a real server through a fault proxy, and let the history be judged. They never judge
themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable

import httpx2

from unbroken.client import Client, ConnectionStatus, Producer, StatusEvent
from unbroken.errors import UnbrokenError, UnknownOutcomeError
from unbroken.limits import Limits
from unbroken.messages import StreamState
from unbroken.protocol.sse import ServerEvent, SseParser
from unbroken.testing import History

__all__ = ["Observer", "SseViewer", "complete", "produce"]

WINDOW = 40
SSE_SECONDS_MAX = 5.0
SSE_SILENCE_SECONDS_MAX = 20.0
"""Longer than a heartbeat; as short as a browser behind a dead network never has it."""


async def produce(
    client: Client, history: History, stream: str, name: str, go_on: Callable[[int], Awaitable[bool]]
) -> int:
    """Append messages through one pipelined producer while `go_on`; every outcome is recorded. Gives how many there were.

    `go_on` gets the number of the next message, and may wait: so faults meet live traffic.
    """
    window = asyncio.Semaphore(WINDOW)

    async def append(producer: Producer, message: str) -> None:
        try:
            acknowledged = await producer.append(message)
        except UnknownOutcomeError:
            history.unknown(message)
            raise
        except UnbrokenError:
            history.fail(message)
            raise
        else:
            history.ack(message, acknowledged.first)
        finally:
            window.release()

    async with client.producer(stream, id=name) as producer, asyncio.TaskGroup() as group:
        number = 0
        while await go_on(number):
            await window.acquire()
            message = f"{name}-{number}"
            history.invoke(name, message, message)
            group.create_task(append(producer, message))
            number += 1
    return number


class Observer:
    """A client of its own that follows one stream to its end, over whatever happens."""

    def __init__(self, url: str, history: History, stream: str, name: str, *, limits: Limits) -> None:
        self.name = name
        self.seen = 0
        self.connections = 0
        self.failures = 0
        """How often it was told that there is no connection."""
        self.on_message: Callable[[int], None] = lambda seen: None
        self.reconnecting = asyncio.Event()
        self._history = history
        self._stream = stream
        self._client = Client(url, limits=limits, on_status=self._on_status)

    async def run(self) -> None:
        async with self._client as client, client.follow(self._stream, verify=True) as follow:
            async for message in follow:
                text = message.text or ""
                self._history.deliver(self.name, message.seq, text, text)
                self.seen = message.seq
                self.on_message(self.seen)
            assert follow.state is not None
            self._history.end(self.name, follow.state.state)

    def _on_status(self, event: StatusEvent) -> None:
        match event.status:
            case ConnectionStatus.LIVE:
                self.connections += 1
                self._history.open(self.name, self.seen)
            case ConnectionStatus.RECONNECTING:
                self.failures += 1
                self.reconnecting.set()
            case _:
                return


class SseViewer:
    """A viewer over SSE, as any `EventSource` is one: it comes back with the id of the last event, and drops nothing."""

    def __init__(self, url: str, history: History, stream: str, name: str) -> None:
        self.name = name
        self.seen = 0
        self.connections = 0
        self._url = f"{url}/v1/messages/{stream}?live=sse"
        self._history = history
        self._last_id = ""
        self._over = False

    async def run(self) -> None:
        timeout = httpx2.Timeout(SSE_SECONDS_MAX, read=SSE_SILENCE_SECONDS_MAX)
        async with httpx2.AsyncClient(timeout=timeout, trust_env=False) as client:
            while not self._over:
                with contextlib.suppress(httpx2.HTTPError):
                    await self._connection(client)
                await asyncio.sleep(0.05)

    async def _connection(self, client: httpx2.AsyncClient) -> None:
        headers = {"Last-Event-ID": self._last_id} if self._last_id else {}
        parser = SseParser()
        async with client.stream("GET", self._url, headers=headers) as response:
            response.raise_for_status()
            self.connections += 1
            self._history.open(self.name, self.seen)
            async for data in response.aiter_raw():
                for event in parser.feed(data):
                    self._take(event)

    def _take(self, event: ServerEvent) -> None:
        if event.event == "message":
            message = json.loads(event.data)
            self._history.deliver(self.name, message["seq"], message["text"], message["text"])
            self.seen = message["seq"]
            self._last_id = event.id
        elif event.event == "state" and StreamState(json.loads(event.data)["state"]).terminal:
            self._history.end(self.name, json.loads(event.data)["state"])
            self._over = True


async def complete(url: str, history: History, stream: str) -> None:
    """Record what a fresh reader finds: the truth at the end."""
    async with Client(url) as client:
        items: list[tuple[int, str, str]] = []
        cursor = "start"
        while True:
            page = await client.read(stream, cursor, limit=1000)
            items += [(each.seq, each.text or "", each.text or "") for each in page.received()]
            cursor = page.cursor
            if page.up_to_date:
                break
        history.final(items, state=page.stream.state)
