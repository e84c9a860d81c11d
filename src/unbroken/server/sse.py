"""The SSE face: one stream as server-sent events, resumable by `Last-Event-ID` (PROTOCOL.md 3).

`http_messages` makes an `SseResponse` for a viewer whose place is checked. What a batch looks like as events is worked out
once and shared by all viewers; a slow viewer costs one page of memory and delays nobody.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from unbroken.errors import NotFoundError, StoreError, TrimmedError, UnauthorizedError, UnbrokenError
from unbroken.hub import Follower, LiveBatch
from unbroken.messages import Seq, StreamInfo, split_encoded
from unbroken.protocol import sse
from unbroken.protocol.views import stream_view
from unbroken.server.attendance import Attendance
from unbroken.server.departure import LongResponses
from unbroken.server.direct import Direct, begin_body, piece
from unbroken.server.headers import LIVE_CACHING
from unbroken.server.manager import notice_of
from unbroken.server.problems import error_view

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

    from unbroken.server.resource import Call
    from unbroken.server.services import Services

__all__ = ["HEADERS", "SseResponse", "batch_events"]

logger = logging.getLogger(__name__)

HEADERS: Final = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", LIVE_CACHING.encode()),
    (b"x-accel-buffering", b"no"),
)
RETRY_MILLISECONDS: Final = 1000
_encoder = msgspec.json.Encoder()


class SseResponse:
    """An ASGI response that follows `stream` behind `cursor` until it ends, the time is over or the viewer leaves.

    Messages come densely and once each; the state the viewer finds comes behind the first of them, a terminal one as
    the last event. When the credential ends, an error event says so and is the last. The server's draining ends it after
    what is on its way. With `takeover`, live batches are written past ASGI where that is possible.
    """

    def __init__(
        self, call: Call, stream: StreamInfo, cursor: Seq, places: LongResponses, *, takeover: bool = True
    ) -> None:
        self._services = call.services
        self._principal = call.principal
        self._stream = stream
        self._cursor = cursor
        self._places = places
        self._takeover = takeover

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "HEAD":
            await send(_head())
            await send({"type": "http.response.body", "body": b""})
            return
        services = self._services
        with (
            self._places.place(self._principal),
            services.live.present(self._principal) as presence,
            await services.hub.follow(self._stream, self._cursor) as follower,
        ):
            seconds = services.limits.sse_seconds_max
            attendance = Attendance(services, receive, follower, seconds_max=seconds, presence=presence)
            transmission = _Transmission(services, follower, attendance, send)
            with self._places.woken(attendance.wake):
                await attendance.run(transmission.run(scope, receive if self._takeover else None))


class _Transmission:
    """One response on its way."""

    def __init__(self, services: Services, follower: Follower, attendance: Attendance, send: Send) -> None:
        self._services = services
        self._follower = follower
        self._attendance = attendance
        self._send = send
        self._told_degraded = False

    async def run(self, scope: Scope, receive: Receive | None) -> None:
        """Send everything; returns when the response is complete. With `receive`, past ASGI where that is possible."""
        await self._send(_head())
        retry = sse.retry(RETRY_MILLISECONDS)
        if receive is None:
            await self._write(retry)
        elif (direct := await begin_body(scope, receive, self._send, retry)) is not None:
            self._follower.push = partial(_push, direct)
        try:
            last = await self._follow()
        except (TrimmedError, NotFoundError, UnauthorizedError) as error:
            self._follower.push = None
            last = _error_event(error)
        except StoreError as error:
            logger.warning("%s while following %r: %s", error.code, self._follower.info.name, error)
            self._services.metrics.refused(error)
            last = sse.comment(error.code) if error.retryable else _error_event(error)
        await self._write(last, more=False)

    async def _follow(self) -> bytes:
        """Write until the response shall end; gives what is to be written last."""
        while True:
            over = self._attendance.over
            degraded = self._services.log.degraded is not None
            seconds = self._services.limits.heartbeat_seconds if degraded == self._told_degraded else 0
            delta = await self._attendance.next(seconds)
            if self._attendance.refusal is not None:
                raise self._attendance.refusal
            payload = b"".join(map(batch_events, delta.batches))
            delta.batches = ()  # a viewer that reads slowly holds what is on its way to it, and no copy
            payload += self._notice()
            if delta.info is not None:
                payload += sse.event("state", _encoder.encode(stream_view(delta.info)))
            if self._follower.ended and delta.info is not None:
                return payload
            if self._services.draining:
                return payload + sse.comment("draining")
            if over:
                return payload + sse.comment("reconnect")
            await self._write(payload or sse.HEARTBEAT)

    def _notice(self) -> bytes:
        """What the viewer has not been told of the store's being away, or back."""
        error = self._services.log.degraded
        if (error is not None) == self._told_degraded:
            return b""
        self._told_degraded = error is not None
        notice = notice_of(error)
        return sse.event("notice", _encoder.encode({"code": notice.code, "message": notice.message}))

    async def _write(self, data: bytes, *, more: bool = True) -> None:
        """Hand `data` to the server, waiting while the socket takes no more."""
        await self._send({"type": "http.response.body", "body": data, "more_body": more})


def _head() -> Message:
    return {"type": "http.response.start", "status": 200, "headers": list(HEADERS)}


def _push(direct: Direct, batch: LiveBatch) -> bool:
    """Write a live batch at once; it is the same bytes for every viewer."""
    if batch.piece is None:
        batch.piece = piece(batch_events(batch))
    return direct.write(batch.piece)


def _error_event(error: UnbrokenError) -> bytes:
    return sse.event("error", _encoder.encode(error_view(error)))


def batch_events(batch: LiveBatch) -> bytes:
    """A batch as SSE events; the same bytes for every viewer."""
    if batch.sse is None:
        encoded = split_encoded(batch.body)
        batch.sse = b"".join(
            [sse.message_event(batch.epoch, seq, message) for seq, message in enumerate(encoded, batch.first)]
        )
    return batch.sse
