"""Waiting for what is appended as Server-Sent Events, framed as the protocol demands it.

Called by `routes`. A reader that reads slowly costs the page that it was last sent; one that leaves costs nothing.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from typing import Final

import msgspec

from unbroken.errors import InvalidError, UnbrokenError
from unbroken.hub import Follower, LiveBatch
from unbroken.messages import StreamInfo, StreamState
from unbroken.protocol.sse import HEARTBEAT
from unbroken.server.attendance import Attendance
from unbroken.server.durable_streams.content import Content, page_body
from unbroken.server.durable_streams.cursors import cache_cursor
from unbroken.server.durable_streams.exchange import Exchange
from unbroken.server.durable_streams.offsets import Lineage, Offset
from unbroken.server.durable_streams.read import position
from unbroken.server.headers import LIVE_CACHING

__all__ = ["Control", "control_event", "data_event", "follow_events"]

STREAM_HEADERS: Final = {
    "content-type": "text/event-stream",
    "cache-control": LIVE_CACHING,
    "x-accel-buffering": "no",
}
BASE64: Final = {"stream-sse-data-encoding": "base64"}
_encoder: Final = msgspec.json.Encoder()


class Control(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel", gc=False):
    """What follows every data event: where its reader is now."""

    stream_next_offset: str
    stream_cursor: str | None = None
    up_to_date: bool = False
    stream_closed: bool = False
    stream_state: str | None = None


def data_event(content: Content, body: bytes, offset: str) -> bytes:
    """One batch as a `data` event; its id is the offset behind it, so that a plain `EventSource` resumes there."""
    payload = page_body(content, (body,))
    if content is Content.BYTES:
        payload = b64encode(payload)
    return b"id: %b\nevent: data\n%b\n" % (offset.encode(), _data_lines(payload))


def control_event(control: Control) -> bytes:
    """The `control` event that follows."""
    return b"event: control\ndata:%b\n\n" % _encoder.encode(control)


def _data_lines(payload: bytes) -> bytes:
    """Each line of `payload`, whatever ends it, as a field of its own; a receiver drops one space behind the colon."""
    lines = payload.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    return b"".join([b"data: %b\n" % line if line.startswith(b" ") else b"data:%b\n" % line for line in lines])


async def follow_events(exchange: Exchange, info: StreamInfo, query: Mapping[str, str]) -> None:
    """Everything behind the offset and then what comes, until the stream ends or the response has lasted its time.

    A `Last-Event-ID` that is an offset goes before the query's.
    """
    after = await position(exchange, info, _resumed(exchange) or query.get("offset"))
    await exchange.touch(info)
    lineage = await exchange.lineage(info)
    live = exchange.services.live
    with live.present(exchange.principal) as presence, await exchange.services.hub.follow(info, after) as follower:
        encoding = BASE64 if Content.of(info.content_type) is Content.BYTES else {}
        await exchange.begin({**STREAM_HEADERS, **encoding})
        attendance = Attendance(
            exchange.services,
            exchange.receive,
            follower,
            seconds_max=exchange.services.limits.sse_seconds_max,
            presence=presence,
        )
        viewer = _Viewer(exchange, attendance, follower, lineage, cursor=query.get("cursor"))
        await viewer.attendance.run(viewer.transmit())


def _resumed(exchange: Exchange) -> str | None:
    given = exchange.headers.get("last-event-id")
    if given is None:
        return None
    try:
        return str(Offset.parse(given))
    except InvalidError:
        return None


class _Viewer:
    """One SSE response."""

    def __init__(
        self, exchange: Exchange, attendance: Attendance, follower: Follower, lineage: Lineage, *, cursor: str | None
    ) -> None:
        self.attendance = attendance
        self._exchange = exchange
        self._follower = follower
        self._lineage = lineage
        self._cursor = cursor
        self._content = Content.of(follower.info.content_type)
        self._told = False
        """Whether the last control event said that the stream is closed."""

    async def transmit(self) -> None:
        """Send until the end of the stream, of the response's time, or of the server."""
        services = self._exchange.services
        try:
            while not self._told and not self.attendance.over:
                delta = await self.attendance.next(services.limits.heartbeat_seconds)
                if delta.batches:
                    last = delta.batches[-1]
                    await self._send(b"".join([self._events(batch, at_end=batch is last) for batch in delta.batches]))
                elif delta.info is not None:
                    await self._send(self._control(self._lineage.offset(self._follower.cursor), at_end=True))
                else:
                    await self._send(HEARTBEAT)
        except UnbrokenError as error:  # deleted or trimmed under the reader, or the store is away: it asks again
            services.metrics.refused(error)
        await self._exchange.send({"type": "http.response.body", "body": b"", "more_body": False})

    def _events(self, batch: LiveBatch, *, at_end: bool) -> bytes:
        offset = self._lineage.offset(batch.last)
        if batch.durable is None:
            batch.durable = data_event(self._content, batch.body, str(offset))
        return batch.durable + self._control(offset, at_end=at_end)

    def _control(self, offset: Offset, *, at_end: bool) -> bytes:
        """Where the reader is; only the last event of one write may say that nothing is missing, or that all is over."""
        follower, services = self._follower, self._exchange.services
        if at_end and follower.ended:
            self._told = True
            state = follower.info.state
            completed = state is StreamState.COMPLETED
            return control_event(
                Control(
                    str(offset), up_to_date=True, stream_closed=True, stream_state=None if completed else state.value
                )
            )
        cursor = cache_cursor(services.clock.now_ms(), self._cursor, services.clock.random)
        return control_event(Control(str(offset), cursor, up_to_date=at_end and not follower.subscription.behind))

    async def _send(self, data: bytes) -> None:
        await self._exchange.send({"type": "http.response.body", "body": data, "more_body": True})
