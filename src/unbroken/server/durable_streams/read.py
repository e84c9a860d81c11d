"""Reading what is there: GET without waiting, and HEAD.

Called by `routes`. It never waits for messages and never changes a stream, except for sliding its expiry.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from unbroken.errors import InvalidError, TrimmedError
from unbroken.identity import Principal
from unbroken.messages import Seq, StreamInfo
from unbroken.server.durable_streams.content import Content, page_body
from unbroken.server.durable_streams.exchange import NO_STORE, Exchange, state_headers
from unbroken.server.durable_streams.headers import expiry_text, matches_etag, type_header
from unbroken.server.durable_streams.offsets import BEGINNING, FROM_START, NOW, Offset
from unbroken.store.erasing import check_erased

__all__ = ["UP_TO_DATE", "caching", "catch_up", "etag_of", "expiry_headers", "head", "position"]

CACHED: Final = "max-age=60, stale-while-revalidate=300"
UP_TO_DATE: Final = {"stream-up-to-date": "true"}


async def position(exchange: Exchange, info: StreamInfo, offset: str | None) -> Seq:
    """The seq that `offset` means in `info`; no offset is the start.

    Raises `InvalidError` for bad syntax and places beyond the tail, `TrimmedError` and `EpochMismatchError` (both 410) for
    what is no longer there.
    """
    check_erased(info)
    if offset is None or offset == FROM_START:
        return Seq(info.first - 1)
    if offset == NOW:
        return info.head
    wanted = Offset.parse(offset)
    if wanted == BEGINNING:
        return Seq(info.first - 1)
    own = wanted.epoch == info.epoch
    seq = Seq(wanted.seq) if own else (await exchange.lineage(info)).seq(wanted)
    if seq > info.head:
        raise InvalidError("the offset is beyond the tail", field="offset", head=info.head)
    if seq < info.first - 1:
        raise TrimmedError(first=info.first, stream=info.name)
    return seq


async def catch_up(exchange: Exchange, info: StreamInfo, query: Mapping[str, str]) -> None:
    """Everything behind the offset, up to the size of a page. May be cached: what lies between two offsets never changes."""
    wanted = query.get("offset")
    content = Content.of(info.content_type)
    after = await position(exchange, info, wanted)
    await exchange.touch(info)
    headers = type_header(info.content_type)
    if wanted == NOW:
        headers |= {"stream-next-offset": str(await exchange.offset(info, after)), **UP_TO_DATE, **NO_STORE}
        await exchange.reply(200, {**headers, **state_headers(info)}, page_body(content, ()))
        return
    found = await exchange.services.streams.read(info, after)
    info = found.stream
    last = found.batches[-1].last if found.batches else after
    headers["stream-next-offset"] = str(await exchange.offset(info, last))
    headers["cache-control"] = caching(exchange)
    headers["etag"] = etag = etag_of(info, after, last)
    if last == info.head:
        headers |= {**UP_TO_DATE, **state_headers(info)}
    if matches_etag(exchange.headers.get("if-none-match"), etag):
        await exchange.reply(304, headers)
        return
    await exchange.reply(200, headers, page_body(content, [batch.body for batch in found.batches]))


async def head(exchange: Exchange, info: StreamInfo) -> None:
    """What is known of the stream; does not slide its expiry."""
    offset = await exchange.offset(info, info.head)
    known = {**type_header(info.content_type), "stream-next-offset": str(offset), **NO_STORE}
    await exchange.reply(200, {**known, **expiry_headers(info), **state_headers(info)})


def expiry_headers(info: StreamInfo) -> dict[str, str]:
    """When the stream expires, as it was asked for."""
    if info.ttl_seconds is not None:
        return {"stream-ttl": str(info.ttl_seconds)}
    if info.expires_ms is not None:
        return {"stream-expires-at": expiry_text(info.expires_ms)}
    return {}


def etag_of(info: StreamInfo, after: Seq, last: Seq) -> str:
    """The tag of the messages behind `after` up to `last`; another one once the stream is known to end there."""
    ended = f"-{info.state.value}" if info.state.terminal and last == info.head else ""
    return f'"{info.epoch}-{after}-{last}{ended}"'


def caching(exchange: Exchange) -> str:
    """Who may keep the answer: caches that many share where anybody may read it, nobody where it depends on who is asking.

    An application may have let in whoever owns everything by a cookie, or guard the route itself.
    """
    access = exchange.services.access
    open_to_all = access.unguarded and not access.embedded
    anybody = open_to_all and exchange.principal == Principal() and "authorization" not in exchange.headers
    return f"public, {CACHED}" if anybody else "no-store"
