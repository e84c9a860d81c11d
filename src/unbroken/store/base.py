"""The interface of a store, `StreamingMessageRepository`, and the results that cross it; operations are in `operations`.

The log is the only caller of `write`, hub and faces read through the log; a store never knows who watches. Every store
passes one contract suite, and `MemoryStore` is its reference.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, Protocol, TypeVar

import msgspec

from unbroken.errors import UnbrokenError
from unbroken.identity import Grant, Principal
from unbroken.messages import Epoch, Seq, SessionInfo, StreamId, StreamInfo, StreamState
from unbroken.quotas import Usage
from unbroken.store.operations import (
    Append,
    Close,
    CreateStream,
    DeleteSession,
    DeleteStream,
    Fork,
    Producer,
    PutSession,
    SetLease,
    SetState,
    Touch,
    Trim,
    UpdateStream,
    WriteOp,
    grows,
)
from unbroken.store.tokens import CredentialRepository

__all__ = [
    "AWAY",
    "RESYNC",
    "Appended",
    "Append",
    "Batch",
    "Capabilities",
    "Close",
    "CreateStream",
    "Created",
    "DeleteSession",
    "DeleteStream",
    "Done",
    "Durability",
    "Fork",
    "Page",
    "Producer",
    "PutSession",
    "Read",
    "Rejected",
    "SetLease",
    "SetState",
    "StreamFilter",
    "StreamingMessageRepository",
    "Touch",
    "Trim",
    "UpdateStream",
    "WriteOp",
    "WriteResult",
    "grows",
]


class Durability(StrEnum):
    """What an acknowledged write survives: the death of the process, or the loss of power too."""

    MEMORY = "memory"
    PROCESS = "process"
    DISK = "disk"
    QUORUM = "quorum"


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a store honestly promises."""

    name: str
    durable_on_ack: Durability
    shared: bool
    """Whether several processes may use the same store at once."""


# --- results ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Created:
    """The stream, fresh or found."""

    stream: StreamInfo
    created: bool


class Appended(msgspec.Struct, frozen=True, gc=False):
    """Messages `first` to `last` are durable (`last` = `first` - 1 for an append that only closed).

    `hash` is the chain at `last`.

    `duplicate`: the same append was accepted before. Then `first` and `last` are where it went if it was the producer's
    latest append, else 0 and 0; `producer_epoch` and `producer_seq` are the highest accepted ones. `state` and `head` are
    the stream's after this operation. `moved_to` is set when another stream than the named one took the append, because it
    has the name now.
    """

    first: Seq
    last: Seq
    hash: bytes
    head: Seq
    state: StreamState
    duplicate: bool = False
    producer_epoch: int = 0
    producer_seq: int = 0
    moved_to: tuple[StreamId, Epoch] | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """The operation took effect; `stream` or `session` is the value after it."""

    stream: StreamInfo | None = None
    session: SessionInfo | None = None
    created: bool = False


@dataclass(frozen=True, slots=True)
class Rejected:
    """The operation had no effect, for a reason that is final for this request."""

    error: UnbrokenError


WriteResult = Created | Appended | Done | Rejected


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive messages `first` to `last` of one stream as one body (see `messages.join_encoded`), at whose end is `hash`.

    With `derived` no hash is stored there: it was computed from these messages, and says nothing about them. `marks` has
    the first bytes of each message's leaf, by which a changed one is told from others; it is empty where none are known.
    """

    first: Seq
    last: Seq
    body: bytes
    hash: bytes
    derived: bool = False
    marks: bytes = b""


@dataclass(frozen=True, slots=True)
class Read:
    """What a read found: `batches` dense from `after` + 1, and the stream at the moment of reading (one snapshot).

    `trimmed` is True when messages right behind `after` are gone: then `batches` is empty and `stream.first` says where
    reading can go on. An empty result that is not trimmed means that `after` is at the head.
    """

    stream: StreamInfo
    batches: tuple[Batch, ...]
    trimmed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamFilter:
    """Which streams to list; None does not restrict.

    `active` True: not in a terminal state, False: ended. `run` True: those with something to execute, False: all others.
    `among`: those that one of the grants covers, whatever its verbs.
    """

    session: str | None = None
    prefix: str | None = None
    kind: str | None = None
    state: StreamState | None = None
    active: bool | None = None
    run: bool | None = None
    among: tuple[Grant, ...] | None = None


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a listing; `next` continues it and is None at the end."""

    items: tuple[T, ...]
    next: str | None


class _Resync:
    """The hint that any number of hints may have been lost."""

    __slots__ = ()


RESYNC = _Resync()
AWAY = _Resync()
"""As `RESYNC`, because the store could not be asked."""


class StreamingMessageRepository(CredentialRepository, Protocol):
    """Saves messages and gives them back, in order, exactly once.

    Every method may raise `StoreUnavailableError` (bounded wait is over), `StoreFullError` (no room; reads go on),
    `UnknownOutcomeError` (only `write`) and `CorruptError` (a checksum does not match; never served as good data).
    Cancelling an awaiting caller never leaves a half-done write: the write either happens as a whole or not at all.

    A stream whose sealed facts cannot be opened harms no other: an operation on it is `Rejected` as corrupt; `heads` and
    `all_streams` tell it without those facts; `active_runs`, `leased` and `expired` leave it out.
    """

    @property
    def capabilities(self) -> Capabilities: ...

    async def open(self) -> None:
        """Open the store and bring its schema up to date; idempotent."""
        ...

    async def close(self) -> None:
        """Finish what was begun and release everything; idempotent."""
        ...

    async def write(self, ops: Sequence[WriteOp]) -> list[WriteResult]:
        """Apply `ops` in order in one group commit; the results are theirs, in order.

        When this returns, everything that was not `Rejected` is as durable as `capabilities.durable_on_ack` says. An op
        sees the effects of those before it. A raised error means that none of them took effect (for
        `UnknownOutcomeError`: that all or none did).
        """
        ...

    async def probe(self) -> None:
        """Make something small durable that changes nothing: whether writing works again after it had failed."""
        ...

    async def get(self, principal: Principal, name: str) -> StreamInfo | None:
        """The stream that has this name with the principal's owner (soft-deleted ones included, with `deleted` set)."""
        ...

    async def get_by_id(self, stream: StreamId) -> StreamInfo | None:
        """The stream with that id; for the server's own use, after access was granted."""
        ...

    async def heads(self, streams: Sequence[StreamId]) -> dict[StreamId, StreamInfo]:
        """Many streams in one round trip; those that are gone are left out."""
        ...

    async def read(self, stream: StreamId, after: Seq, *, messages_max: int, bytes_max: int) -> Read:
        """Messages behind `after`, in order; at least one if there is one, even when it is larger than `bytes_max`.

        Of a fork it reads through to its sources. Raises `NotFoundError` when the stream is gone, `InvalidError` when
        `after` is beyond the head.
        """
        ...

    async def hash_at(self, stream: StreamId, seq: Seq) -> bytes:
        """The chain's value at `seq` (`genesis` at 0); `TrimmedError` when it can no longer be computed."""
        ...

    async def list_streams(
        self, principal: Principal, where: StreamFilter, *, limit: int, after: str | None
    ) -> Page[StreamInfo]:
        """The principal's streams, newest first, in pages; soft-deleted ones are left out."""
        ...

    async def usage(self, tenant: str, owner: str | None) -> Usage:
        """What is stored for the owner, or (None) for the whole tenant, at the size of what is stored of texts.

        The cost grows with the number of their streams and sessions.
        """
        ...

    async def get_session(self, principal: Principal, name: str) -> SessionInfo | None: ...

    async def list_sessions(
        self, principal: Principal, *, limit: int, after: str | None, among: tuple[Grant, ...] | None = None
    ) -> Page[SessionInfo]:
        """The principal's sessions, newest first, in pages; with `among` those that a grant of a prefix covers."""
        ...

    async def read_session(
        self, principal: Principal, where: StreamFilter, *, limit: int, after: str | None
    ) -> Page[tuple[StreamInfo, Batch]]:
        """All messages of all streams of `where.session` and `where.among`, by creation, in pages of about `limit`."""
        ...

    async def active_runs(self, after: StreamId, *, limit: int) -> list[StreamInfo]:
        """Streams with a `run` that have not ended, oldest first, behind the id `after`; for the server's own use."""
        ...

    async def all_streams(self, after: StreamId, *, limit: int) -> list[StreamInfo]:
        """Everybody's streams that are not deleted, oldest first, behind the id `after`; for the server's own use."""
        ...

    async def leased(self, before_ms: int, *, limit: int) -> list[StreamInfo]:
        """Running streams whose lease ran out before `before_ms`."""
        ...

    async def expired(self, now_ms: int, *, limit: int) -> list[StreamInfo]:
        """Streams whose `expires_ms` has passed."""
        ...

    async def renew_leases(self, now_ms: int, at_least_ms: int) -> int:
        """Begin every lease anew at `now_ms`, for as long as it was last given and `at_least_ms` at least; how many.

        For this server after it was away, or after its clock was set, in either direction.
        """
        ...

    async def scrub(self, *, everything: bool = False) -> bool:
        """Destroy one bounded part of what was erased, and with `everything` of what was deleted; whether there is more."""
        ...

    async def compact(self, stream: StreamId) -> bool:
        """Merge a run of small chunks of the stream into larger ones; whether there was anything to do.

        Readers see no difference. One step is bounded in bytes and takes one transaction.
        """
        ...

    def hints(self) -> AsyncIterator[StreamId | _Resync]:
        """Streams that may have changed through another process: lossy, may repeat, may be wrong.

        `RESYNC` when unsure, `AWAY` again and again while the store cannot be asked.
        """
        ...
