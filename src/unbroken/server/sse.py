"""The SSE face: one stream as server-sent events, resumable by `Last-Event-ID` (PROTOCOL.md 3).

`http_messages` makes an `SseResponse` for a viewer whose place is checked. What a batch looks like as events is worked out
once and shared by all viewers; a slow viewer costs one page of memory and delays nobody.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

import msgspec

from unbroken.errors import NotFoundError, StoreError, TrimmedError, UnbrokenError
from unbroken.hub import Delta, Follower, LiveBatch
from unbroken.messages import Seq, StreamInfo, split_encoded
from unbroken.protocol import sse
from unbroken.protocol.views import stream_view
from unbroken.server.departure import LongResponses, departed
from unbroken.server.problems import error_view

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from unbroken.server.services import Services

__all__ = ["HEADERS", "SseResponse", "batch_events"]

logger = logging.getLogger(__name__)

HEADERS: Final = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
)
RETRY_MILLISECONDS: Final = 1000
_encoder = msgspec.json.Encoder()


class SseResponse:
    """An ASGI response that follows `stream` behind `cursor` until it ends, the time is over or the viewer leaves.

    Messages come densely and once each; the state the viewer finds comes behind the first of them, a terminal one as
    the last event. The server's draining ends it after what is on its way.
    """

    def __init__(self, services: Services, stream: StreamInfo, cursor: Seq, places: LongResponses) -> None:
        self._services = services
        self._stream = stream
        self._cursor = cursor
        self._places = places

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "HEAD":
            await send({"type": "http.response.start", "status": 200, "headers": list(HEADERS)})
            await send({"type": "http.response.body", "body": b""})
            return
        hub = self._services.hub
        with self._places.place(), await hub.follow(self._stream, self._cursor) as follower:
            await _Transmission(self._services, follower, send).run(receive)


class _Transmission:
    """One response on its way."""

    def __init__(self, services: Services, follower: Follower, send: Send) -> None:
        limits = services.limits
        self._services = services
        self._follower = follower
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._deadline = self._loop.time() + limits.sse_seconds_max
        self._life = asyncio.timeout_at(self._deadline + limits.heartbeat_seconds)
        """Cuts off a viewer that takes nothing at all, and one that has left."""
        self._waiting: asyncio.Timeout | None = None

    async def run(self, receive: Receive) -> None:
        """Send everything; returns when the response is complete or nobody reads it any more."""
        try:
            async with asyncio.TaskGroup() as tasks:
                watchers = [tasks.create_task(self._leave(receive)), tasks.create_task(self._stop())]
                try:
                    async with self._life:
                        await self._transmit()
                finally:
                    for watcher in watchers:
                        watcher.cancel()
        except ExceptionGroup as group:
            error = group.exceptions[0]
            if not (isinstance(error, TimeoutError) and self._life.expired()):
                raise error from None
            logger.debug("a viewer of %r has left or takes nothing", self._follower.info.name)

    async def _leave(self, receive: Receive) -> None:
        await departed(receive)
        _hasten(self._life, self._loop.time())

    async def _stop(self) -> None:
        """When the server drains, end the wait for news; a viewer that takes nothing is given half of the time."""
        services = self._services
        await services.stopping.wait()
        now = self._loop.time()
        if self._waiting is not None:
            _hasten(self._waiting, now)
        _hasten(self._life, now + services.limits.drain_seconds_max / 2)

    async def _transmit(self) -> None:
        await self._send({"type": "http.response.start", "status": 200, "headers": list(HEADERS)})
        await self._write(sse.retry(RETRY_MILLISECONDS))
        try:
            last = await self._follow()
        except (TrimmedError, NotFoundError) as error:
            last = _error_event(error)
        except StoreError as error:
            logger.warning("%s while following %r: %s", error.code, self._follower.info.name, error)
            self._services.metrics.errors.labels(error.code).inc()
            last = sse.comment(error.code) if error.retryable else _error_event(error)
        await self._write(last, more=False)

    async def _follow(self) -> bytes:
        """Write until the response shall end; gives what is to be written last."""
        while True:
            remaining = self._deadline - self._loop.time()
            delta = await self._next(max(0.0, min(remaining, self._services.limits.heartbeat_seconds)))
            payload = b"".join(map(batch_events, delta.batches))
            if delta.info is not None:
                payload += sse.event("state", _encoder.encode(stream_view(delta.info)))
            if self._follower.ended and delta.info is not None:
                return payload
            if self._services.draining:
                return payload + sse.comment("draining")
            if remaining <= 0:
                return payload + sse.comment("reconnect")
            await self._write(payload or sse.HEARTBEAT)

    async def _next(self, seconds: float) -> Delta:
        """The next news, an empty delta when there are none in `seconds` or until the server drains."""
        if self._services.draining:
            return await self._follower.next(0)
        self._waiting = asyncio.timeout(None)
        try:
            async with self._waiting:
                return await self._follower.next(seconds)
        except TimeoutError:
            return Delta((), None)
        finally:
            self._waiting = None

    async def _write(self, data: bytes, *, more: bool = True) -> None:
        """Hand `data` to the server, waiting while the socket takes no more."""
        await self._send({"type": "http.response.body", "body": data, "more_body": more})


def _error_event(error: UnbrokenError) -> bytes:
    return sse.event("error", _encoder.encode(error_view(error)))


def _hasten(scope: asyncio.Timeout, when: float) -> None:
    """Let `scope` end at `when`, unless it ends before."""
    ends = scope.when()
    if not scope.expired() and (ends is None or when < ends):
        scope.reschedule(when)


def batch_events(batch: LiveBatch) -> bytes:
    """A batch as SSE events; the same bytes for every viewer."""
    if batch.sse is None:
        encoded = split_encoded(batch.body)
        batch.sse = b"".join(
            [sse.message_event(batch.epoch, seq, message) for seq, message in enumerate(encoded, batch.first)]
        )
    return batch.sse
