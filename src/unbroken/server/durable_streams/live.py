"""Waiting for what is appended with one answer: long-poll.

Called by `routes`. A reader that leaves stops the work at once; nothing that it does is noticed by a producer.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf

from unbroken.hub import Delta, Follower
from unbroken.messages import Seq, StreamInfo
from unbroken.server.attendance import Attendance
from unbroken.server.durable_streams.content import Content, page_body
from unbroken.server.durable_streams.cursors import cache_cursor
from unbroken.server.durable_streams.exchange import NO_STORE, Exchange, state_headers
from unbroken.server.durable_streams.headers import type_header
from unbroken.server.durable_streams.read import UP_TO_DATE, caching, etag_of, position

__all__ = ["long_poll"]


async def long_poll(exchange: Exchange, info: StreamInfo, query: Mapping[str, str]) -> None:
    """Messages behind the offset, waiting for one when there is none; 204 when none came or none can come."""
    after = await position(exchange, info, query.get("offset"))
    await exchange.touch(info)
    services = exchange.services
    with services.live.present(exchange.principal) as presence, await services.hub.follow(info, after) as follower:
        seconds = services.limits.long_poll_seconds
        attendance = Attendance(services, exchange.receive, follower, seconds_max=seconds, presence=presence)
        delta = await attendance.run(_first_batches(attendance, follower))
        if attendance.refusal is not None:
            raise attendance.refusal
        await _answer(exchange, follower, delta, cursor=query.get("cursor"), after=after)


async def _first_batches(attendance: Attendance, follower: Follower) -> Delta:
    """The first delta with messages; one without any when the time is over or the stream."""
    while True:
        delta = await attendance.next(inf)
        if delta.batches or follower.ended or attendance.over:
            return delta


async def _answer(exchange: Exchange, follower: Follower, delta: Delta, *, cursor: str | None, after: Seq) -> None:
    info = follower.info
    services = exchange.services
    headers = {"stream-next-offset": str(await exchange.offset(info, follower.cursor))}
    closed = state_headers(info) if follower.ended else {}
    if not closed:
        headers["stream-cursor"] = cache_cursor(services.clock.now_ms(), cursor, services.clock.random)
    if not follower.subscription.behind:
        headers |= UP_TO_DATE
    headers |= closed
    if not delta.batches:
        await exchange.reply(204, {**headers, **NO_STORE})
        return
    headers |= type_header(info.content_type)
    headers["cache-control"] = caching(exchange)
    headers["etag"] = etag_of(info, after, follower.cursor)
    body = page_body(Content.of(info.content_type), [batch.body for batch in delta.batches])
    await exchange.reply(200, headers, body)
