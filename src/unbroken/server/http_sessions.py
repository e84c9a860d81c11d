"""Sessions over HTTP: the rows of PROTOCOL.md 2 that group streams.

`http.routes` mounts the handlers. Nothing is decided here: `Streams` does.
"""

from __future__ import annotations

from collections import deque

import msgspec
from msgspec import UNSET, UnsetType
from starlette.responses import Response

from unbroken.errors import InvalidError
from unbroken.identity import Verb
from unbroken.messages import SessionState, StreamInfo
from unbroken.protocol.views import session_view, stream_view
from unbroken.server.resource import Body, Call, json_response
from unbroken.server.specs import object_text
from unbroken.store.base import Page, StreamFilter

__all__ = [
    "delete_session",
    "get_session",
    "list_sessions",
    "put_session",
    "session_messages",
    "session_streams",
]

PAGE_ITEMS = 100
_encoder = msgspec.json.Encoder()


class SessionBody(Body, frozen=True, kw_only=True):
    state: SessionState | None = None
    metadata: msgspec.Raw | UnsetType = UNSET


async def list_sessions(call: Call) -> Response:
    query = call.query("limit", "page")
    limit = query.whole("limit", PAGE_ITEMS)
    page = await call.services.streams.list_sessions(call.principal, limit=limit, page=query.text("page"))
    return json_response({"sessions": [session_view(info) for info in page.items], "next": page.next})


async def put_session(call: Call) -> Response:
    body = await call.body(SessionBody)
    metadata = object_text(body.metadata)
    done = await call.services.streams.put_session(call.principal, call.name, state=body.state, metadata=metadata)
    assert done.session is not None
    return json_response(session_view(done.session), 201 if done.created else 200)


async def get_session(call: Call) -> Response:
    call.query()
    return json_response(
        session_view(await call.services.streams.get_session(call.principal, call.name, may=Verb.READ))
    )


async def delete_session(call: Call) -> Response:
    await call.services.streams.delete_session(call.principal, call.name)
    return Response(status_code=204)


async def session_streams(call: Call) -> Response:
    """The streams of a session, oldest first."""
    query = call.query("limit", "page")
    limit = min(query.whole("limit", PAGE_ITEMS), call.services.limits.page_items_max)
    await call.services.streams.get_session(call.principal, call.name, may=Verb.READ)
    page = await _oldest_first(call, limit, query.text("page"))
    return json_response({"streams": [stream_view(info) for info in page.items], "next": page.next})


async def _oldest_first(call: Call, limit: int, page: str | None) -> Page[StreamInfo]:
    """The `limit` oldest streams of the session that are newer than the one that `page` names.

    The store lists newest first, so this walks from there; it never holds more than two pages.
    """
    if page is not None and not (page.isascii() and page.isdecimal() and len(page) <= 16):
        raise InvalidError("page is what `next` of the page before it said", field="page")
    newer_than = -1 if page is None else int(page)
    oldest: deque[StreamInfo] = deque(maxlen=limit + 1)
    streams, where = call.services.streams, StreamFilter(session=call.name)
    after: str | None = None
    while True:
        found = await streams.list(call.principal, where, limit=call.services.limits.page_items_max, page=after)
        fresh = [info for info in found.items if info.id > newer_than]
        oldest.extend(fresh)
        after = found.next
        if after is None or len(fresh) < len(found.items):
            break
    items = tuple(reversed(oldest))
    return Page(items[:limit], str(items[limit - 1].id) if len(items) > limit else None)


async def session_messages(call: Call) -> Response:
    """Every message of every stream of a session, in order; bodies are taken over as they are stored."""
    query = call.query("limit", "page")
    limit = query.whole("limit", call.services.limits.page_items_max)
    page = await call.services.streams.read_session(call.principal, call.name, limit=limit, page=query.text("page"))
    batches = [
        b'{"stream":%b,"epoch":%d,"first":%d,"messages":[%b]}'
        % (_encoder.encode(info.name), info.epoch, batch.first, batch.body)
        for info, batch in page.items
    ]
    return json_response(b'{"batches":[%b],"next":%b}' % (b",".join(batches), _encoder.encode(page.next)))
