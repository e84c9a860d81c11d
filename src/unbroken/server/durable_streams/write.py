"""Creating, appending, closing and deleting: PUT, POST and DELETE.

Called by `routes`. Every answer is given after the store has made its effect durable; the order of the checks is the
protocol's, the decision about producers and sequences is the store's.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from unbroken.errors import (
    AlreadyExistsError,
    EndedError,
    FencedError,
    InvalidError,
    NotFoundError,
    ProducerGapError,
    UnbrokenError,
)
from unbroken.identity import Verb
from unbroken.messages import NewMessage, StreamInfo, StreamState
from unbroken.requests import AppendOptions, NewStream
from unbroken.server.durable_streams.content import Content, body_messages
from unbroken.server.durable_streams.exchange import Exchange, Refusal, state_headers
from unbroken.server.durable_streams.fork import Branch, branch_off, is_fork
from unbroken.server.durable_streams.headers import (
    DEFAULT_CONTENT_TYPE,
    AppendRequest,
    CreateRequest,
    append_request,
    create_request,
    media_type,
    type_header,
)
from unbroken.server.durable_streams.read import expiry_headers
from unbroken.server.specs import check_written
from unbroken.store.base import Appended, Close, Fork

__all__ = ["append", "create", "delete"]

KIND = "durable"
COMPLETED = Close(StreamState.COMPLETED)


async def create(exchange: Exchange) -> None:
    """201 for a new stream, 200 when one of the same configuration is there, 409 for another one."""
    request = create_request(exchange.headers)
    body = await exchange.body()
    existing = await _existing(exchange)
    if existing is not None and existing.deleted:
        raise AlreadyExistsError(
            f"the stream {exchange.name!r} is deleted, only its forks keep it", stream=exchange.name
        )
    branch = None if request.fork is None else await branch_off(exchange, request.fork)
    if existing is not None:
        await _answer_existing(exchange, existing, request, branch)
        return
    new = _new_stream(exchange, request, branch, body)
    try:
        created = await exchange.services.streams.create(exchange.principal, exchange.name, new)
    except AlreadyExistsError:
        created = None
    if created is not None and created.created:
        headers = await _facts(exchange, created.stream)
        await exchange.reply(201, {**headers, "location": exchange.url})
        return
    existing = await exchange.find(Verb.APPEND)  # somebody else was faster
    if existing is None or existing.deleted:
        raise AlreadyExistsError(f"the name {exchange.name!r} is taken", stream=exchange.name)
    await _answer_existing(exchange, existing, request, branch)


async def append(exchange: Exchange) -> None:
    """204, or 200 for new messages of a producer; with `Stream-Closed` the stream ends with them."""
    request = append_request(exchange.headers)
    body = await exchange.body()
    info = check_written(await exchange.stream(Verb.APPEND))
    if not body and not request.closed:
        raise InvalidError("an append has a body", field="body")
    messages = []
    if body and not info.state.terminal:
        messages = _checked_messages(exchange, info, request, body)
    close = COMPLETED if request.closed or info.state.terminal else None
    options = AppendOptions(
        producer=request.producer, writer_seq=request.writer_seq, close=close, by=exchange.principal
    )
    try:
        result = await exchange.services.streams.append_durably(info, messages, options)
    except EndedError as error:
        await _answer_ended(exchange, info, error, only_closes=not body and request.producer is None)
        return
    except UnbrokenError as error:
        raise _refused(error, request) from error
    accepted = bool(messages) and request.producer is not None and not result.duplicate
    await exchange.reply(200 if accepted else 204, await _appended(exchange, info, request, result))


async def delete(exchange: Exchange) -> None:
    """204; a stream that has forks is kept for them."""
    await exchange.services.streams.delete(await exchange.stream(Verb.MANAGE), by=exchange.principal)
    await exchange.reply(204, {})


# --- create -----------------------------------------------------------------------------------------------------------


async def _existing(exchange: Exchange) -> StreamInfo | None:
    """The stream of that name; one whose time is over is deleted first, so that its name is free."""
    try:
        info = await exchange.services.streams.get(exchange.principal, exchange.name, may=Verb.APPEND, deleted=True)
    except NotFoundError:
        return None
    if info.deleted or not exchange.expired(info):
        return info
    with suppress(NotFoundError):  # retention may be faster
        await exchange.services.streams.delete(info)
    return await exchange.find(Verb.APPEND)


def _new_stream(exchange: Exchange, request: CreateRequest, branch: Branch | None, body: bytes) -> NewStream:
    content_type = request.content_type or (branch.source.content_type if branch else DEFAULT_CONTENT_TYPE)
    bytes_max = exchange.services.limits.message_bytes_max
    _check_type(content_type, branch)
    ttl_seconds, expires_ms = _expiry(request, branch)
    messages = branch.messages(bytes_max) if branch else []
    if body:
        messages += body_messages(Content.of(content_type), body, message_bytes_max=bytes_max)
    return NewStream(
        kind=KIND,
        content_type=content_type,
        ttl_seconds=ttl_seconds,
        expires_ms=expires_ms,
        fork=None if branch is None else Fork(branch.source.id, branch.seq),
        messages=tuple(messages),
        close=COMPLETED if request.closed else None,
    )


def _check_type(content_type: str, branch: Branch | None) -> None:
    if branch is not None and media_type(content_type) != media_type(branch.source.content_type):
        raise AlreadyExistsError(f"a fork has its source's content type, {branch.source.content_type}")


def _expiry(request: CreateRequest, branch: Branch | None) -> tuple[int | None, int | None]:
    """The time to live and the expiry as asked for; a fork that asks for none has its source's."""
    if branch is None or request.ttl_seconds is not None or request.expires_ms is not None:
        return request.ttl_seconds, request.expires_ms
    source = branch.source
    return source.ttl_seconds, source.expires_ms if source.ttl_seconds is None else None


async def _answer_existing(
    exchange: Exchange, existing: StreamInfo, request: CreateRequest, branch: Branch | None
) -> None:
    """200 when `existing` is what was asked for; its messages stay as they are."""
    wanted = request.content_type or (branch.source.content_type if branch else DEFAULT_CONTENT_TYPE)
    ttl_seconds, expires_ms = _expiry(request, branch)
    same = (
        media_type(wanted) == media_type(existing.content_type)
        and ttl_seconds == existing.ttl_seconds
        and (ttl_seconds is not None or expires_ms == existing.expires_ms)
        and request.closed == existing.state.terminal
    )
    if branch is None:
        same = same and existing.forked_from is None
    elif request.fork is not None:
        same = same and await is_fork(exchange, existing, branch, anywhere=request.fork.offset is None)
    if not same:
        raise AlreadyExistsError(
            f"the stream {exchange.name!r} exists with another configuration", stream=exchange.name
        )
    headers = await _facts(exchange, existing)
    await exchange.reply(200, {**headers, "location": exchange.url})


async def _facts(exchange: Exchange, info: StreamInfo) -> dict[str, str]:
    offset = await exchange.offset(info, info.head)
    known = {**type_header(info.content_type), "stream-next-offset": str(offset)}
    return {**known, **expiry_headers(info), **state_headers(info)}


# --- append -----------------------------------------------------------------------------------------------------------


def _checked_messages(exchange: Exchange, info: StreamInfo, request: AppendRequest, body: bytes) -> list[NewMessage]:
    if request.content_type is None:
        raise InvalidError("an append has a Content-Type", field="Content-Type")
    if media_type(request.content_type) != media_type(info.content_type):
        raise AlreadyExistsError(f"the stream holds {info.content_type}", content_type=info.content_type)
    bytes_max = exchange.services.limits.message_bytes_max
    messages = body_messages(Content.of(info.content_type), body, message_bytes_max=bytes_max)
    if not messages:
        raise InvalidError("an append has at least one message", field="body")
    return messages


async def _appended(
    exchange: Exchange, info: StreamInfo, request: AppendRequest, result: Appended
) -> Mapping[str, str]:
    headers = {"stream-next-offset": str(await exchange.offset(info, result.head))}
    if request.producer is not None:
        headers["producer-epoch"] = str(result.producer_epoch)
        headers["producer-seq"] = str(result.producer_seq)
    if result.state.terminal:
        headers["stream-closed"] = "true"
    return headers


async def _answer_ended(exchange: Exchange, info: StreamInfo, error: EndedError, *, only_closes: bool) -> None:
    """Closing again is no error; anything else is, and says where the stream ended."""
    ended = await exchange.find(Verb.APPEND) or info
    offset = await exchange.offset(ended, ended.head)
    headers = {"stream-next-offset": str(offset), "stream-closed": "true", **state_headers(ended)}
    if only_closes:
        await exchange.touch(ended)
        await exchange.reply(204, headers)
        return
    raise Refusal(error, 409, headers)


def _refused(error: UnbrokenError, request: AppendRequest) -> Exception:
    """`error` with what the protocol tells a producer about it."""
    producer = request.producer
    if producer is None:
        return error
    if isinstance(error, FencedError):
        return Refusal(error, 403, {"producer-epoch": str(error.detail.get("epoch", 0))})
    if isinstance(error, ProducerGapError):
        expected = error.detail.get("expected")
        if expected == 0 and error.detail.get("epoch") is not None:
            return Refusal(InvalidError("a new Producer-Epoch begins at Producer-Seq 0", field="Producer-Seq"), 400)
        numbers = {"producer-expected-seq": str(expected), "producer-received-seq": str(producer.seq)}
        return Refusal(error, 409, numbers)
    return error
