"""Streams over HTTP: create, look, end, lease, pause, trim, verify — the rows of PROTOCOL.md 2 without messages.

`http.routes` mounts the handlers. Nothing is decided here: `Streams` and `StreamStateManager` do.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import UNSET, UnsetType
from starlette.responses import Response

from unbroken.identity import Principal, Verb
from unbroken.messages import StreamInfo
from unbroken.protocol.frames import CloseSpec, ProducerSpec
from unbroken.protocol.views import answer_view, stream_view
from unbroken.requests import NewStream
from unbroken.server.departure import while_connected
from unbroken.server.resource import Body, Call, Whole, json_response
from unbroken.server.services import Services
from unbroken.server.specs import STATES, check_written, close_of, object_text, producer_of
from unbroken.store.base import Created, StreamFilter

__all__ = [
    "StreamBody",
    "cancel_stream",
    "close_stream",
    "create",
    "delete_stream",
    "get_stream",
    "lease_stream",
    "list_streams",
    "pause_stream",
    "put_stream",
    "resume_stream",
    "trim_stream",
    "verify_stream",
]

PAGE_ITEMS = 100
FLAGS: Final = {"true": True, "false": False}


class StreamBody(Body, frozen=True, kw_only=True):
    """What a stream shall be (PROTOCOL.md 2, `PUT /v1/streams/NAME`)."""

    kind: str = "stream"
    content_type: str = "application/json"
    session: str | None = None
    metadata: msgspec.Raw | UnsetType = UNSET
    ttl_seconds: Whole | None = None
    lease: ProducerSpec | None = None
    lease_seconds: float | None = None


class LeaseBody(Body, frozen=True, kw_only=True):
    producer: ProducerSpec
    seconds: float | None = None


class TrimBody(Body, frozen=True, kw_only=True):
    first: Whole


async def list_streams(call: Call) -> Response:
    query = call.query("session", "prefix", "kind", "state", "active", "run", "limit", "page")
    where = StreamFilter(
        session=query.text("session"),
        prefix=query.text("prefix"),
        kind=query.text("kind"),
        state=query.choice("state", STATES),
        active=query.choice("active", FLAGS),
        run=query.choice("run", FLAGS),
    )
    limit = query.whole("limit", PAGE_ITEMS)
    page = await call.services.streams.list(call.principal, where, limit=limit, page=query.text("page"))
    return json_response({"streams": [stream_view(info) for info in page.items], "next": page.next})


async def put_stream(call: Call) -> Response:
    created = await create(call.services, call.principal, call.name, await call.body(StreamBody))
    return json_response(answer_view(created.stream, call.principal), 201 if created.created else 200)


async def create(services: Services, principal: Principal, name: str, body: StreamBody) -> Created:
    """Create the stream as `body` says, or find it; raises as `Streams.create` does."""
    new = NewStream(
        kind=body.kind,
        content_type=body.content_type,
        session=body.session,
        metadata=object_text(body.metadata) or "{}",
        ttl_seconds=body.ttl_seconds,
        lease=None if body.lease is None else producer_of(body.lease),
        lease_seconds=body.lease_seconds,
    )
    return await services.streams.create(principal, name, new)


async def get_stream(call: Call) -> Response:
    call.query()
    return json_response(stream_view(await _stream(call, Verb.READ)))


async def delete_stream(call: Call) -> Response:
    await call.services.streams.delete(await _stream(call, Verb.MANAGE), by=call.principal)
    return Response(status_code=204)


async def close_stream(call: Call) -> Response:
    close = close_of(await call.body(CloseSpec), call.services.limits)
    stream = check_written(await _stream(call, Verb.APPEND))
    return _answer(call, await call.services.states.close(stream, close.state, close.reason))


async def cancel_stream(call: Call) -> Response:
    await call.body(Body)
    info = await call.services.states.cancel(await _stream(call, Verb.CANCEL), call.principal)
    return json_response(answer_view(info, call.principal), 202)


async def lease_stream(call: Call) -> Response:
    body = await call.body(LeaseBody)
    stream, producer = check_written(await _stream(call, Verb.APPEND)), body.producer
    return _answer(call, await call.services.states.lease(stream, producer.id, producer.epoch, body.seconds))


async def pause_stream(call: Call) -> Response:
    await call.body(Body)
    stream = await _stream(call, Verb.MANAGE)
    return _answer(call, await call.services.states.pause(stream, by=call.principal))


async def resume_stream(call: Call) -> Response:
    await call.body(Body)
    stream = await _stream(call, Verb.MANAGE)
    return _answer(call, await call.services.states.resume(stream, by=call.principal))


async def trim_stream(call: Call) -> Response:
    body = await call.body(TrimBody)
    stream = check_written(await _stream(call, Verb.MANAGE))
    return _answer(call, await call.services.streams.trim(stream, body.first, by=call.principal))


class ErasureBody(Body, frozen=True, kw_only=True):
    stream: str | None = None
    reason: str = ""


async def erase(call: Call) -> Response:
    """Erase what one stream held, or with none named all streams of whoever asks."""
    body = await call.body(ErasureBody)
    eraser, streams = call.services.eraser, call.services.streams
    if body.stream is None:
        erased = await eraser.owner(call.principal, body.reason)
    else:
        found = await streams.get(call.principal, body.stream, may=Verb.MANAGE)
        erased = await eraser.stream(call.principal, found, body.reason)
    return json_response({"streams": erased.streams, "sessions": erased.sessions})


async def verify_stream(call: Call) -> Response:
    """Recompute the chain; stops when the client leaves."""
    call.query()
    stream = await _stream(call, Verb.READ)
    found = await while_connected(call.receive, call.services.streams.verify(stream))
    answer = {
        "ok": found.bad is None,
        "checked": found.checked,
        "first": found.first,
        "last": found.last,
        "bad": found.bad,
        "bad_last": found.bad_last,
        "erased": found.erased,
        "hash": found.hash.hex(),
    }
    return json_response(answer)


async def _stream(call: Call, may: Verb) -> StreamInfo:
    return await call.services.streams.get(call.principal, call.name, may=may)


def _answer(call: Call, info: StreamInfo) -> Response:
    return json_response(answer_view(info, call.principal))
