"""All WebSocket connections of one server: admission, counting, heartbeats, draining.

`WebSocketConnectionManager` is the one place that knows how many connections there are. Each face that carries a socket
registers its connection here and removes it when the socket is gone; the manager never touches messages.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Coroutine, Iterator
from typing import TYPE_CHECKING

from unbroken.errors import DrainingError, OverloadedError, StoreError, UnbrokenError
from unbroken.limits import Limits
from unbroken.protocol.codec import encode_server
from unbroken.protocol.frames import Heartbeat, Notice
from unbroken.server.refusal import CLOSE_SERVICE_RESTART, CLOSE_SILENT
from unbroken.server.unfinished import Unfinished

if TYPE_CHECKING:
    from unbroken.observe.metrics import Metrics
    from unbroken.server.connection import Connection

__all__ = ["RETRY_AFTER_SECONDS", "WebSocketConnectionManager", "notice_of"]

logger = logging.getLogger(__name__)

RETRY_AFTER_SECONDS = 0.2
HEARTBEAT = encode_server(Heartbeat())


class WebSocketConnectionManager:
    """Registers, watches and drains connections. `run` must be running; everything belongs to one event loop."""

    def __init__(self, *, limits: Limits, metrics: Metrics) -> None:
        self._limits = limits
        self._metrics = metrics
        self._connections: dict[str, Connection] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._empty = asyncio.Event()
        self._empty.set()
        self._draining = False
        self._degraded: StoreError | None = None
        self.unfinished = Unfinished(limits, now=time.monotonic)
        """The frames that have not arrived as a whole."""

    def __len__(self) -> int:
        return len(self._connections)

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self._connections.values()))

    def check_room(self) -> None:
        """Raise `OverloadedError` when `connections_max` is reached, `DrainingError` while draining."""
        if self._draining:
            raise DrainingError
        if len(self._connections) >= self._limits.connections_max:
            raise OverloadedError("too many connections", limit="connections_max", retry_after_seconds=5)

    def new_id(self) -> str:
        """An id for a connection, for logs and the peer; it grants nothing."""
        return secrets.token_hex(6)

    def add(self, connection: Connection) -> None:
        """Count a connection whose handshake is done."""
        self._connections[connection.id] = connection
        self._empty.clear()
        self._metrics.connections.labels("websocket").set(len(self._connections))

    def remove(self, connection: Connection) -> None:
        """Forget a connection whose socket is gone; idempotent."""
        self._connections.pop(connection.id, None)
        self._metrics.connections.labels("websocket").set(len(self._connections))
        if not self._connections:
            self._empty.set()

    def spawn(self, work: Coroutine[object, object, None], connection: Connection) -> None:
        """Run a connection's work as a child of this manager; what it raises ends that connection, not the server."""
        if self._tasks is None:
            work.close()
            raise DrainingError
        self._tasks.create_task(self._guard(work, connection))

    def begin(self, work: Coroutine[object, object, None]) -> None:
        """Run the work of a handshake, which raises nothing, as a child of this manager; `DrainingError` when it is over."""
        if self._tasks is None:
            work.close()
            raise DrainingError
        self._tasks.create_task(work)

    async def _guard(self, work: Coroutine[object, object, None], connection: Connection) -> None:
        try:
            await work
        except UnbrokenError as error:
            connection.fail(error)
        except Exception:  # the top of a task: a defect in one connection's work must not end the others
            logger.exception("connection %s failed", connection.id)
            self._metrics.errors.labels(UnbrokenError.code).inc()
            connection.fail(UnbrokenError("internal error"))

    def health_changed(self, error: StoreError | None) -> None:
        """Tell every viewer that the store is away, or back."""
        self._degraded = error
        payload = encode_server(notice_of(error))
        for connection in self:
            connection.send(payload)

    def greet(self, connection: Connection) -> None:
        """Tell a connection that has just begun what it cannot know: that the store is away."""
        if self._degraded is not None:
            connection.send(encode_server(notice_of(self._degraded)))

    async def run(self) -> None:
        """Watch over the connections for ever: heartbeats out, silent peers off."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                await self._watch()
        finally:
            self._tasks = None

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        limits = self._limits
        step = min(1.0, limits.heartbeat_seconds / 4)
        before = loop.time()
        while True:
            await asyncio.sleep(step)
            now = loop.time()
            if now - before > limits.silence_seconds_max / 2:
                for connection in self._connections.values():
                    connection.heard_at = now  # this process stood still: nobody could be heard
                self.unfinished.check(excused=True)
            before = now
            self.unfinished.check()
            for connection in self:
                if connection.heard or not connection.reading:
                    connection.heard = False
                    connection.heard_at = now
                if now - connection.heard_at > limits.silence_seconds_max:
                    connection.abort(CLOSE_SILENT, "nothing heard for too long")
                elif now - connection.beat_at >= limits.heartbeat_seconds:
                    connection.beat_at = now
                    connection.beat(HEARTBEAT)

    async def drain(self, retry_after_seconds: float = RETRY_AFTER_SECONDS) -> None:
        """Tell every client to come back, close with 1012, and wait until all are gone or `drain_seconds_max` is over."""
        self._draining = True
        for connection in self:
            connection.dismiss(retry_after_seconds)
        try:
            async with asyncio.timeout(self._limits.drain_seconds_max):
                await self._empty.wait()
        except TimeoutError:
            logger.warning("%d connections did not close in time", len(self._connections))
            for connection in self:
                connection.abort(CLOSE_SERVICE_RESTART, "restarting")


def notice_of(error: StoreError | None) -> Notice:
    """What viewers are told when the store is away because of `error`, or back."""
    return Notice(code="recovered") if error is None else Notice(code="degraded", message=error.message)
