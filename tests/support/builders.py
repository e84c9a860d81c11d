"""Builds test data in a store: single streams by hand, or a whole generated world of them.

Called by the tests of the store and of everything above it. Nothing is checked in and nothing is random: the same call
gives the same data, and every state that a stream or session can be in has an example.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from unbroken.errors import UnbrokenError
from unbroken.identity import Grant, Principal, Verb
from unbroken.limits import DEFAULT_LIMITS
from unbroken.messages import (
    NewMessage,
    Seq,
    SessionInfo,
    SessionState,
    StreamId,
    StreamInfo,
    StreamState,
    decode_messages,
    encode_message,
)
from unbroken.store.base import (
    Append,
    Appended,
    Batch,
    Close,
    Created,
    CreateStream,
    DeleteStream,
    Done,
    Fork,
    Producer,
    PutSession,
    Read,
    Rejected,
    SetState,
    StreamingMessageRepository,
    Trim,
    WriteOp,
    WriteResult,
)
from unbroken.store.tokens import StoredToken, TokenKind

ALICE = Principal("acme", "alice")
BOB = Principal("acme", "bob")
EVE = Principal("other", "alice")
NOW_MS = 1_764_000_000_000
GRANTS = (
    Grant("a'b\"%", frozenset({Verb.READ, Verb.APPEND})),
    Grant("", frozenset({Verb.START}), prefix=True),
    Grant("é/日", frozenset(Verb), epoch=7),
)


def encoded(text: str, kind: str = "token") -> bytes:
    """One message as the log would hand it to the store."""
    return encode_message(NewMessage(kind=kind, text=text), time_ms=NOW_MS, producer=None, limits=DEFAULT_LIMITS)


def numbered(first: int, last: int) -> tuple[bytes, ...]:
    """Messages whose texts are their own numbers."""
    return tuple(encoded(str(n)) for n in range(first, last + 1))


def texts(batches: Iterable[Batch]) -> list[str]:
    """The texts of all messages, after checking that the batches are dense and hold as many as they say."""
    found: list[str] = []
    last: int | None = None
    for batch in batches:
        assert last is None or batch.first == last + 1, f"a hole before {batch.first}"
        messages = decode_messages(batch.body)
        assert len(messages) == batch.last - batch.first + 1
        found += [str(message.text) for message in messages]
        last = batch.last
    return found


async def write(store: StreamingMessageRepository, op: WriteOp) -> WriteResult:
    """The result of a single operation."""
    (result,) = await store.write([op])
    return result


async def rejected(store: StreamingMessageRepository, op: WriteOp) -> UnbrokenError:
    """The error that the operation is rejected with."""
    result = await write(store, op)
    assert isinstance(result, Rejected), result
    return result.error


async def create(
    store: StreamingMessageRepository, name: str, principal: Principal = ALICE, **facts: object
) -> StreamInfo:
    """A fresh stream."""
    op = CreateStream(principal=principal, name=name, **{"now_ms": NOW_MS, **facts})  # type: ignore[arg-type]
    result = await write(store, op)
    assert isinstance(result, Created), result
    assert result.created, f"{name} is there already"
    return result.stream


async def append(
    store: StreamingMessageRepository, stream: StreamInfo, messages: Sequence[bytes], **facts: object
) -> Appended:
    """Append, and insist on it."""
    result = await write(store, appending(stream, messages, **facts))
    assert isinstance(result, Appended), result
    return result


def appending(stream: StreamInfo, messages: Sequence[bytes] = (), **facts: object) -> Append:
    """The operation that appends."""
    given = {"stream": stream.id, "epoch": stream.epoch, "messages": tuple(messages), "now_ms": NOW_MS, **facts}
    return Append(**given)  # type: ignore[arg-type]


async def done(store: StreamingMessageRepository, op: WriteOp) -> Done:
    """Carry out an operation, and insist on it."""
    result = await write(store, op)
    assert isinstance(result, Done), result
    return result


async def read_all(store: StreamingMessageRepository, stream: StreamId, after: int = 0, step: int = 1_000) -> list[str]:
    """All texts behind `after`, in steps of at most `step` messages."""
    found: list[str] = []
    while True:
        page: Read = await store.read(stream, Seq(after), messages_max=step, bytes_max=DEFAULT_LIMITS.read_bytes_max)
        assert not page.trimmed
        if not page.batches:
            assert after == page.stream.head
            return found
        assert page.batches[0].first == after + 1
        assert page.batches[-1].last <= after + step
        found += texts(page.batches)
        after = page.batches[-1].last


@dataclass(frozen=True, slots=True)
class World:
    """What `build_world` made: an example of everything."""

    active: SessionInfo
    paused: SessionInfo
    by_state: dict[StreamState, StreamInfo]
    long: tuple[StreamInfo, ...]
    messages: int
    """How many messages the streams in `long` have together; all belong to the active session."""
    trimmed: StreamInfo
    source: StreamInfo
    """Deleted, and kept by `fork` alone."""
    fork: StreamInfo
    expired: StreamInfo
    foreign: StreamInfo
    """Belongs to somebody else."""


async def build_world(store: StreamingMessageRepository, *, messages: int = 12_000, streams: int = 6) -> World:
    """Fill an empty store: two sessions, a stream in each state, and `messages` messages in `streams` long streams."""
    by_state = {state: await _stream_in(store, state) for state in StreamState}
    long = [await create(store, f"long/{n}", session="active") for n in range(streams)]
    share = messages // streams
    for start in range(1, share + 1, 500):
        batch = numbered(start, min(start + 499, share))
        for result in await store.write([appending(stream, batch) for stream in long]):
            assert isinstance(result, Appended)
    await create(store, "resting/1", session="paused", messages=numbered(1, 3))
    trimmed = await create(store, "trimmed", messages=numbered(1, 20))
    trimmed = _stream(await done(store, Trim(stream=trimmed.id, epoch=trimmed.epoch, first=Seq(8))))
    source = await create(store, "source", messages=numbered(1, 10))
    fork = await create(store, "fork", fork=Fork(source.id, Seq(7)), messages=numbered(8, 9))
    source = _stream(await done(store, DeleteStream(stream=source.id, epoch=source.epoch)))
    return World(
        active=_session(await done(store, PutSession(principal=ALICE, name="active", now_ms=NOW_MS))),
        paused=_session(
            await done(store, PutSession(principal=ALICE, name="paused", now_ms=NOW_MS, state=SessionState.PAUSED))
        ),
        by_state=by_state,
        long=tuple([_known(await store.get_by_id(stream.id)) for stream in long]),
        messages=share * streams,
        trimmed=trimmed,
        source=source,
        fork=fork,
        expired=await create(store, "expired", expires_ms=NOW_MS - 1),
        foreign=await create(store, "foreign", principal=BOB, session="active", messages=numbered(1, 2)),
    )


async def _stream_in(store: StreamingMessageRepository, state: StreamState) -> StreamInfo:
    """A stream with five messages in that state, reached as an application would."""
    stream = await create(store, f"state/{state}", lease_producer="run-1", lease_epoch=1, lease_until_ms=NOW_MS + 6_000)
    await append(store, stream, numbered(1, 5), producer=Producer("run-1", 1, 0))
    if state is StreamState.RUNNING:
        return _known(await store.get_by_id(stream.id))
    if state is StreamState.COMPLETED:
        closing = Close(state, '{"exit_code":0}')
        await append(store, stream, (), producer=Producer("run-1", 1, 1), close=closing)
        return _known(await store.get_by_id(stream.id))
    reason = f'{{"why":"{state}"}}'
    change = SetState(stream=stream.id, epoch=stream.epoch, state=state, now_ms=NOW_MS + 1, reason=reason)
    return _stream(await done(store, change))


def _stream(result: Done) -> StreamInfo:
    return _known(result.stream)


def _known(stream: StreamInfo | None) -> StreamInfo:
    assert stream is not None
    return stream


def _session(result: Done) -> SessionInfo:
    assert result.session is not None
    return result.session


def digest(name: str) -> bytes:
    """What a token whose secret is `name` is found by."""
    return hashlib.sha256(name.encode()).digest()


def token(name: str, owner: Principal = ALICE, **facts: object) -> StoredToken:
    """A token with some grants that are awkward to write down."""
    plain = StoredToken(
        id=name,
        hash=digest(name),
        kind=TokenKind.KEY,
        tenant=owner.tenant,
        owner=owner.subject,
        actor=f"actor of {name}",
        grants=GRANTS,
        created_ms=NOW_MS,
    )
    return replace(plain, **facts)  # type: ignore[arg-type]
