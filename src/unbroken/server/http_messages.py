"""Messages over HTTP: append, and read — at once, as a long poll, or as SSE (PROTOCOL.md 2 and 3).

`http.routes` mounts the handlers. A read is built from the bytes that the store keeps; no message is decoded or encoded
again on its way to a reader.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

import msgspec
from starlette.responses import Response

from unbroken.errors import NotFoundError
from unbroken.hub import facts
from unbroken.identity import Verb
from unbroken.messages import NewMessage, Seq, StreamInfo, join_encoded
from unbroken.protocol.frames import CloseSpec, ProducerSpec
from unbroken.protocol.views import stream_view
from unbroken.requests import AppendOptions, check_producer
from unbroken.server.departure import LongResponses, unless, while_connected
from unbroken.server.http_streams import StreamBody, create
from unbroken.server.resource import Body, Call, Whole, json_response
from unbroken.server.specs import check_written, close_of, producer_of
from unbroken.server.sse import SseResponse
from unbroken.store.base import Read

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from unbroken.server.services import Services

__all__ = ["append_messages", "message_reader"]

LIVE: Final = {"long-poll": "long-poll", "sse": "sse"}
_encoder = msgspec.json.Encoder()


class AppendBody(Body, frozen=True, kw_only=True):
    messages: list[NewMessage] = msgspec.field(default_factory=list)
    producer: ProducerSpec | None = None
    expected_head: Whole | None = None
    close: CloseSpec | None = None
    create: StreamBody | None = None


async def append_messages(call: Call) -> Response:
    """Append durably; answers only when the store has it."""
    body = await call.body(AppendBody)
    limits = call.services.limits
    options = AppendOptions(
        producer=None if body.producer is None else producer_of(body.producer),
        expected_head=body.expected_head,
        close=None if body.close is None else close_of(body.close, limits),
        by=call.principal,
    )
    stream = check_written(await _stream_for(call, body.create, options))
    done = await call.services.streams.append_durably(stream, body.messages, options)
    answer = {
        "first": done.first,
        "last": done.last,
        "head": done.head,
        "state": done.state.value,
        "duplicate": done.duplicate,
        "cursor": f"{stream.epoch}:{done.head}",
    }
    return json_response(answer)


async def _stream_for(call: Call, new: StreamBody | None, options: AppendOptions) -> StreamInfo:
    """The stream to append to, created first when it is missing and the request says how it shall be."""
    try:
        return await call.services.streams.get(call.principal, call.name, may=Verb.APPEND)
    except NotFoundError:
        if new is None:
            raise
        if options.producer is not None:
            check_producer(options.producer, call.services.limits)  # before anything is created in vain
        return (await create(call.services, call.principal, call.name, new)).stream


def message_reader(services: Services, *, takeover: bool = True) -> Callable[[Call], Awaitable[ASGIApp]]:
    """The handler of `GET /v1/messages/NAME`, with its own count of open responses."""
    polls, events = LongResponses(services, "long-poll"), LongResponses(services, "sse")
    services.log.on_health(events.health_changed)

    async def read_messages(call: Call) -> ASGIApp:
        query = call.query("after", "limit", "live")
        live = query.choice("live", LIVE)
        if live is None and "text/event-stream" in call.headers.get("accept", ""):
            live = "sse"
        limit = query.whole("limit", services.limits.read_messages_max)
        after = query.text("after") or "start"
        if live == "sse":
            after = call.headers.get("last-event-id") or after
        stream = await services.streams.get(call.principal, call.name, may=Verb.READ)
        cursor = services.streams.position(stream, after)
        if live == "sse":
            if stream.state.terminal and cursor >= stream.head:
                return Response(status_code=204)
            return SseResponse(call, stream, cursor, events, takeover=takeover)
        if live == "long-poll" and not call.head_only:
            with polls.place(call.principal):
                return await while_connected(call.receive, _long_poll(call, stream, cursor, limit))
        return _page(await services.streams.read(stream, cursor, messages_max=limit), cursor)

    return read_messages


async def _long_poll(call: Call, stream: StreamInfo, cursor: Seq, limit: int) -> Response:
    """The messages behind `cursor`, waiting for the first, or for a change of the state; 204 when there is none in time.

    `UnauthorizedError` when the credential ends meanwhile.
    """
    services = call.services
    found = await services.streams.read(stream, cursor, messages_max=limit)
    if found.batches or found.stream.state.terminal:
        return _page(found, cursor)
    with services.live.present(call.principal) as presence, await services.hub.follow(found.stream, cursor) as follower:
        follower.subscription.told = facts(found.stream)
        waiting = unless(presence.gone.wait, follower.next(services.limits.long_poll_seconds))
        news = await unless(services.stopping.wait, waiting)
        if presence.error is not None:
            raise presence.error
        if news is None or news[0] is None or not news[0][0]:
            return Response(status_code=204)
    return _page(await services.streams.read(stream, cursor, messages_max=limit), cursor)


def _page(found: Read, after: Seq) -> Response:
    """What a read found, as one JSON document around the stored bytes."""
    stream = found.stream
    last = found.batches[-1].last if found.batches else after
    digest = found.batches[-1].hash if found.batches else stream.hash
    head = b'{"stream":%b,"first":%d,"last":%d,"cursor":"%d:%d","hash":"%b","salts":%b,"up_to_date":%b,"messages":[' % (
        _encoder.encode(stream_view(stream)),
        after + 1,
        last,
        stream.epoch,
        last,
        digest.hex().encode(),
        _encoder.encode(stream.salts),
        b"true" if last == stream.head else b"false",
    )
    return json_response(b"".join((head, join_encoded([batch.body for batch in found.batches]), b"]}")))
