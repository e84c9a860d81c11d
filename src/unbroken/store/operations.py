"""What a store is asked to change: the write operations, as values.

Streams and their life cycle make them, the log queues them, a store applies them; each says what it does and in which
order it is checked. Nothing here does anything.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from unbroken.identity import Principal
from unbroken.messages import Epoch, Seq, SessionState, StreamId, StreamInfo, StreamState

__all__ = [
    "Append",
    "Close",
    "CreateStream",
    "DeleteSession",
    "DeleteStream",
    "EraseStream",
    "Fork",
    "Producer",
    "PutSession",
    "SetLease",
    "SetState",
    "Touch",
    "Trim",
    "UpdateStream",
    "WriteOp",
    "grows",
]


@dataclass(frozen=True, slots=True)
class Producer:
    """Who appends and how often it has: `seq` counts this producer's appends from 0 within its `epoch`.

    A repeated (epoch, seq) is a duplicate and has no effect; a lower epoch is fenced; a higher epoch begins at seq 0.
    """

    id: str
    epoch: int
    seq: int


@dataclass(frozen=True, slots=True)
class Close:
    """How a stream ends. `state` is a terminal state, `reason` a JSON object as text."""

    state: StreamState
    reason: str = "{}"


@dataclass(frozen=True, slots=True)
class Fork:
    """Where a new stream branches off: it shares the source's messages 1 to `seq`."""

    source: StreamId
    seq: Seq


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateStream:
    """Create a stream, or find the one of that name.

    Gives `Created(stream, created)`: `created` is False when the owner has one, whatever its configuration (the caller
    compares). With `messages` and `close` the new stream begins with those, in the same transaction. A fresh stream gets
    an epoch greater than that of every stream before it. A session that does not exist yet is created; in a paused one no
    stream is created (`transition`). With `lease_producer` the stream begins as running. A fork source that is gone gives
    `not_found`, one that is soft-deleted `already_exists`, a `fork.seq` beyond its head `invalid`. `run` says what the
    server executes for the stream. `salt_seed` is random and secret: with it the leaves of the chain are salted.
    """

    principal: Principal
    name: str
    now_ms: int
    kind: str = "stream"
    content_type: str = "application/json"
    session: str | None = None
    metadata: str = "{}"
    ttl_seconds: int | None = None
    expires_ms: int | None = None
    fork: Fork | None = None
    messages: tuple[bytes, ...] = ()
    close: Close | None = None
    lease_producer: str | None = None
    lease_epoch: int = 0
    lease_until_ms: int | None = None
    run: str | None = None
    salt_seed: bytes = b""


class Append(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Append encoded messages, and optionally end the stream with them.

    Checked in this order: stream and epoch exist (`not_found`, `epoch_mismatch`); duplicate (`Appended(duplicate=True)`,
    also on an ended stream); fenced; ended; producer gap; lease held by another producer (`fenced`); `expected_head`
    (`conflict`); `writer_seq` must sort after the last one (`sequence`). All or nothing. With `messages` empty and `close`
    set it only closes. Writing slides the expiry of a stream that has `ttl_seconds`. A producer gap names the
    `expected` seq and, for a producer that is known, its `epoch`.

    `beside_lease` lets it in although somebody holds the lease: for what the server itself puts beside a producer.

    With `name_of`, what is meant is a name, and `stream` only where it was last seen: when that stream is gone, the one
    that has the name of `name_of` with its owner now takes its place in all of this.
    """

    stream: StreamId
    epoch: Epoch
    messages: tuple[bytes, ...]
    now_ms: int
    producer: Producer | None = None
    expected_head: Seq | None = None
    writer_seq: str | None = None
    close: Close | None = None
    name_of: StreamInfo | None = None
    beside_lease: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SetState:
    """Go to another state of the life cycle; `transition` when the table forbids it, `ended` when it is over.

    `only_if_lease_before_ms` makes it conditional on a lease that ran out before that time (for the reaper): otherwise the
    result is `transition`. `fence` refuses (`fenced`) unless the lease is held by that producer with that epoch, or by
    nobody.
    """

    stream: StreamId
    epoch: Epoch
    state: StreamState
    now_ms: int
    reason: str = "{}"
    fence: tuple[str, int] | None = None
    only_if_lease_before_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SetLease:
    """Take, renew or (with `until_ms` None) give back the right to produce.

    Taking sets the state to running, giving back sets it to open. `fenced` when another producer holds an unexpired
    lease, or when the same producer did so with a higher epoch; `transition` when it would be taken of a paused stream;
    `ended` when the stream is over.
    """

    stream: StreamId
    epoch: Epoch
    producer: str
    producer_epoch: int
    until_ms: int | None
    now_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateStream:
    """Change facts that are not part of the life cycle; None leaves one as it is."""

    stream: StreamId
    epoch: Epoch
    now_ms: int
    metadata: str | None = None
    cancel_requested_by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Touch:
    """Slide the expiry of a stream that has `ttl_seconds` to `now_ms` + ttl."""

    stream: StreamId
    now_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Trim:
    """Drop every message before `first` (at most head + 1). Logical at once; space comes back later, by chunk."""

    stream: StreamId
    epoch: Epoch
    first: Seq


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteStream:
    """Delete a stream. With live forks it becomes `deleted` (hidden, data kept) until the last fork is gone.

    `only_if_expired_at_ms` makes it conditional on an expiry that has passed at that time (for retention): a stream that
    was touched or written meanwhile gives `transition`.
    """

    stream: StreamId
    epoch: Epoch
    only_if_expired_at_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EraseStream:
    """Erase what a stream holds: its messages, metadata, reason, specification and producers; it ends if it has not.

    From now on nobody can read it; the bytes are destroyed by `StreamingMessageRepository.scrub`. What forks share with it
    is erased in them too. `tombstone` (a JSON object) says by whom, when and why. Erasing again changes nothing.
    """

    stream: StreamId
    epoch: Epoch
    now_ms: int
    tombstone: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PutSession:
    """Create a session, or change its state or metadata (None leaves as is). Gives `Done(session=…, created=…)`."""

    principal: Principal
    name: str
    now_ms: int
    state: SessionState | None = None
    metadata: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteSession:
    """Delete a session that has no stream left; `already_exists` while it has."""

    principal: Principal
    name: str


WriteOp = (
    CreateStream
    | Append
    | SetState
    | SetLease
    | UpdateStream
    | Touch
    | Trim
    | DeleteStream
    | EraseStream
    | PutSession
    | DeleteSession
)


def grows(op: WriteOp) -> bool:
    """Whether the operation adds something that stays; what does not may use the room that a store keeps in reserve."""
    return isinstance(op, CreateStream | PutSession) or (isinstance(op, Append) and bool(op.messages))
