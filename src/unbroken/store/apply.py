"""Applies operations to the tables of a store, one after the other, inside whatever transaction the store has open.

A store's writer is the only caller; it offers its rows as `Tables`. Everything that concerns more than one stream is
decided here (names, sessions, forks, what deleting takes along), so that all stores agree; no SQL and no I/O is here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Protocol, cast

import msgspec

from unbroken.errors import (
    AlreadyExistsError,
    CorruptError,
    ErasedError,
    InvalidError,
    NotFoundError,
    TransitionError,
    TrimmedError,
)
from unbroken.identity import Principal
from unbroken.messages import (
    START,
    TERMINAL_STATES,
    Epoch,
    Seq,
    SessionInfo,
    SessionState,
    StreamId,
    StreamInfo,
    StreamState,
)
from unbroken.protocol.chain import genesis, links
from unbroken.protocol.salts import NO_SALTS, Salts
from unbroken.store import decide
from unbroken.store.base import (
    Append,
    Appended,
    Created,
    CreateStream,
    DeleteSession,
    DeleteStream,
    Done,
    PutSession,
    Rejected,
    SetLease,
    SetState,
    Touch,
    Trim,
    UpdateStream,
    WriteOp,
    WriteResult,
)
from unbroken.store.entry import Entry, ProducerState
from unbroken.store.lineage import check_older
from unbroken.store.operations import EraseStream

__all__ = ["Tables", "apply"]


class Tables(Protocol):
    """The rows of a store within one transaction, as the operations before have left them."""

    def by_id(self, stream: StreamId) -> Entry | None: ...

    def by_name(self, tenant: str, owner: str, name: str) -> Entry | None: ...

    def producer(self, entry: Entry, producer_id: str) -> ProducerState | None: ...

    def identify(self) -> tuple[StreamId, Epoch]:
        """A fresh id, and an epoch greater than every one before."""
        ...

    def insert(self, entry: Entry) -> None:
        """Add a stream that is not there yet."""
        ...

    def extend(self, entry: Entry, first: Seq, messages: Sequence[bytes], before: bytes) -> None:
        """Keep messages `first` … by which the entry has already advanced; `before` is the chain in front of them.

        Their leaves are in the entry.
        """
        ...

    def changed(self, entry: Entry, producer_id: str | None) -> None:
        """Keep the entry's new facts, and those of one of its producers."""
        ...

    def hide(self, entry: Entry) -> None:
        """Keep that the entry is deleted for all but its forks."""
        ...

    def remove(self, entry: Entry) -> None:
        """Forget the stream, its producers and its messages."""
        ...

    def erase(self, entry: Entry) -> None:
        """What the stream holds is to be destroyed; the entry says already that it is erased."""
        ...

    def forks(self, stream: StreamId) -> Sequence[Entry]:
        """The streams that branch off from it directly."""
        ...

    def reclaim(self, entry: Entry, upto: Seq) -> None:
        """Messages up to `upto` are needed by nobody: their space may come back, by whole chunks."""
        ...

    def hash_at(self, entry: Entry, seq: Seq) -> bytes:
        """As `StreamingMessageRepository.hash_at`."""
        ...

    def session(self, principal: Principal, name: str) -> SessionInfo | None: ...

    def put_session(self, session: SessionInfo) -> None: ...

    def drop_session(self, principal: Principal, name: str) -> None: ...

    def session_used(self, principal: Principal, name: str) -> bool:
        """Whether a stream that is not deleted belongs to the session."""
        ...


def apply(tables: Tables, op: WriteOp) -> WriteResult:
    """Carry out one operation as a whole, or reject it as a whole, also where what it is about cannot be read."""
    try:
        return _HANDLERS[type(op)](tables, op)
    except CorruptError as error:  # whatever a handler looks up, it looks up before it changes anything
        return Rejected(error)


def _append(tables: Tables, op: Append) -> WriteResult:
    entry = decide.find(tables.by_id(op.stream), op.epoch)
    if isinstance(entry, Rejected):
        return entry if op.name_of is None else _append_by_name(tables, op, op.name_of)
    return _append_to(tables, entry, op)


def _append_by_name(tables: Tables, op: Append, known: StreamInfo) -> WriteResult:
    """The stream that was meant is gone: append to the one that has its name now."""
    entry = decide.find(tables.by_name(known.tenant, known.owner, known.name), None)
    if isinstance(entry, Rejected):
        return entry
    result = _append_to(tables, entry, op)
    if isinstance(result, Appended):
        return msgspec.structs.replace(result, moved_to=(entry.fixed.id, entry.fixed.epoch))
    return result


def _append_to(tables: Tables, entry: Entry, op: Append) -> Appended | Rejected:
    producer_id = None if op.producer is None else op.producer.id
    known = None if producer_id is None else tables.producer(entry, producer_id)
    before = entry.hash
    result = decide.append(entry, known, op)
    if isinstance(result, Rejected):
        return result
    if result.duplicate:
        return _with_hash(tables, entry, result)
    if op.messages:
        tables.extend(entry, result.first, op.messages, before)
    tables.changed(entry, producer_id)
    return result


def _with_hash(tables: Tables, entry: Entry, result: Appended) -> Appended:
    """A duplicate with the chain at its last message, where that can still be told."""
    if result.hash or result.last == 0:
        return result
    try:
        return msgspec.structs.replace(result, hash=tables.hash_at(entry, result.last))
    except (TrimmedError, CorruptError):  # the append took effect long ago; the damage is its readers' to learn of
        return result


def _set_state(tables: Tables, op: SetState) -> WriteResult:
    entry = decide.find(tables.by_id(op.stream), op.epoch)
    return entry if isinstance(entry, Rejected) else _keep(tables, entry, decide.set_state(entry, op))


def _set_lease(tables: Tables, op: SetLease) -> WriteResult:
    entry = decide.find(tables.by_id(op.stream), op.epoch)
    return entry if isinstance(entry, Rejected) else _keep(tables, entry, decide.set_lease(entry, op))


def _update(tables: Tables, op: UpdateStream) -> WriteResult:
    entry = decide.find(tables.by_id(op.stream), op.epoch)
    return entry if isinstance(entry, Rejected) else _keep(tables, entry, decide.update(entry, op))


def _touch(tables: Tables, op: Touch) -> WriteResult:
    entry = decide.find(tables.by_id(op.stream), None)
    return entry if isinstance(entry, Rejected) else _keep(tables, entry, decide.touch(entry, op))


def _keep(tables: Tables, entry: Entry, result: Done | Rejected) -> WriteResult:
    if isinstance(result, Done) and entry.dirty:
        tables.changed(entry, None)
    return result


def _trim(tables: Tables, op: Trim) -> WriteResult:
    entry = decide.find(tables.by_id(op.stream), op.epoch)
    if isinstance(entry, Rejected):
        return entry
    result = _keep(tables, entry, decide.trim(entry, op))
    if isinstance(result, Done):
        _reclaim_lineage(tables, entry)
    return result


def _create(tables: Tables, op: CreateStream) -> WriteResult:
    found = tables.by_name(op.principal.tenant, op.principal.subject, op.name)
    if found is not None:
        return Created(found.info, created=False)
    source = _fork_source(tables, op)
    if isinstance(source, Rejected):
        return source
    refused = _refusal(tables, op)
    if refused is not None:
        return refused
    entry = _fresh(tables, op, source)
    tables.insert(entry)
    if op.messages:
        tables.extend(entry, Seq(entry.base_seq + 1), op.messages, entry.base_hash)
    return Created(entry.info, created=True)


def _fork_source(tables: Tables, op: CreateStream) -> tuple[Entry, bytes] | Rejected | None:
    """The entry to branch off from and the chain's value at the fork."""
    if op.fork is None:
        return None
    source = tables.by_id(op.fork.source)
    mine = (op.principal.tenant, op.principal.subject)
    if source is None or (source.fixed.tenant, source.fixed.owner) != mine:
        return Rejected(NotFoundError("there is no such stream to fork from"))
    if source.fixed.erased is not None:
        return Rejected(ErasedError(stream=source.fixed.name))
    if source.fixed.deleted:
        return Rejected(AlreadyExistsError("the stream to fork from is deleted, only its forks keep it"))
    if not 0 <= op.fork.seq <= source.head:
        return Rejected(InvalidError("a fork begins at a message that its source has", field="fork", head=source.head))
    try:
        return source, tables.hash_at(source, op.fork.seq)
    except (TrimmedError, CorruptError) as error:
        return Rejected(error)


def _refusal(tables: Tables, op: CreateStream) -> Rejected | None:
    """The last checks of a new stream; what they leave behind is the session that it belongs to."""
    if op.close is not None and op.close.state not in TERMINAL_STATES:
        return Rejected(TransitionError(f"a stream does not end as {op.close.state}"))
    if op.session is None:
        return None
    session = tables.session(op.principal, op.session)
    if session is None:
        tables.put_session(_fresh_session(op.principal, op.session, op.now_ms))
    elif session.state is SessionState.PAUSED:
        return Rejected(TransitionError("the session is paused and takes no new stream", session=op.session))
    return None


def _fresh(tables: Tables, op: CreateStream, source: tuple[Entry, bytes] | None) -> Entry:
    stream, epoch = tables.identify()
    first, base_seq = Seq(1), START
    base_hash = genesis(op.principal.tenant, op.name, epoch)
    if source is not None and op.fork is not None:
        base_seq, base_hash = op.fork.seq, source[1]
        first = Seq(min(source[0].fixed.first, base_seq + 1))
    salts = _salts(op, source)
    value, leaves = links(base_hash, base_seq + 1, op.messages, salts)
    ttl = op.ttl_seconds
    expires_ms = op.now_ms + ttl * 1000 if ttl is not None and op.expires_ms is None else op.expires_ms
    info = StreamInfo(
        id=stream,
        epoch=epoch,
        tenant=op.principal.tenant,
        owner=op.principal.subject,
        name=op.name,
        kind=op.kind,
        content_type=op.content_type,
        session=op.session,
        metadata=op.metadata,
        state=StreamState.OPEN if op.lease_producer is None else StreamState.RUNNING,
        first=first,
        head=Seq(base_seq + len(op.messages)),
        size_bytes=sum(map(len, op.messages)),
        hash=value,
        genesis=base_hash,
        salts=salts.encoded,
        created_ms=op.now_ms,
        updated_ms=op.now_ms,
        ttl_seconds=ttl,
        expires_ms=expires_ms,
        run=op.run,
        lease_producer=op.lease_producer,
        lease_epoch=op.lease_epoch,
        lease_until_ms=op.lease_until_ms if op.lease_producer is not None else None,
        lease_ms=op.lease_until_ms - op.now_ms if op.lease_producer and op.lease_until_ms is not None else None,
        forked_from=None if op.fork is None else op.fork.source,
        fork_seq=base_seq,
    )
    if op.close is not None:
        info = decide.end(info, op.close, op.now_ms)
    entry = Entry(info, base_seq, base_hash)
    entry.leaves = leaves
    return entry


def _salts(op: CreateStream, source: tuple[Entry, bytes] | None) -> Salts:
    """Salts of a new stream's own; a fork also has those of what it shares, and no others of its source."""
    if source is None or op.fork is None:
        return Salts.fresh(op.salt_seed) if op.salt_seed else NO_SALTS
    shared = source[0].salts.upto(op.fork.seq)
    return shared.and_then(Salts.fresh(op.salt_seed, op.fork.seq + 1)) if op.salt_seed else shared


def _erase(tables: Tables, op: EraseStream) -> WriteResult:
    entry = tables.by_id(op.stream)
    if entry is None or entry.fixed.epoch != op.epoch:
        return Rejected(NotFoundError())
    if entry.fixed.erased is None:
        gone = [entry, *_kept_for(tables, entry)]
        _check_forks(tables, gone[-1])
        for one in gone:
            one.put(decide.erase(one.info, op))
            tables.changed(one, None)
            tables.erase(one)
    return Done(stream=entry.info)


def _kept_for(tables: Tables, entry: Entry) -> list[Entry]:
    """Deleted sources, not erased yet, none of whose messages anybody can read any more once `entry` is erased."""
    kept: list[Entry] = []
    source = _source(tables, entry)
    while source is not None and (source.fixed.deleted or source.fixed.erased):
        if _readable(tables, source, without=entry):
            break
        if source.fixed.erased is None:
            kept.append(source)
        source = _source(tables, source)
    return kept


def _readable(tables: Tables, entry: Entry, *, without: Entry) -> bool:
    """Whether another stream than `without`, neither deleted nor erased, shows messages of the entry's own."""
    waiting = [(entry, entry.head)]
    while waiting:
        current, reach = waiting.pop()
        shows = not current.fixed.deleted and current.fixed.erased is None and current.fixed.first <= reach
        if shows and current.fixed.id != without.fixed.id:
            return True
        forks = [(fork, min(reach, fork.fixed.fork_seq)) for fork in _forks(tables, current)]
        waiting += [(fork, upto) for fork, upto in forks if upto > entry.fixed.fork_seq]
    return False


def _source(tables: Tables, entry: Entry) -> Entry | None:
    """What the entry branches off from, if that is there; `CorruptError` where it is no older, so that a walk ends."""
    source = None if entry.fixed.forked_from is None else tables.by_id(entry.fixed.forked_from)
    if source is not None:
        check_older(source.fixed, entry.fixed)
    return source


def _check_forks(tables: Tables, entry: Entry) -> None:
    """`CorruptError` unless all that branches off from the entry, also from its forks, is younger."""
    waiting = [entry]
    while waiting:
        waiting += _forks(tables, waiting.pop())


def _forks(tables: Tables, entry: Entry) -> Sequence[Entry]:
    """As `Tables.forks`; `CorruptError` where one of them is no younger than the entry, so that a walk ends."""
    forks = tables.forks(entry.fixed.id)
    for fork in forks:
        check_older(entry.fixed, fork.fixed)
    return forks


def _delete(tables: Tables, op: DeleteStream) -> WriteResult:
    entry = decide.find(tables.by_id(op.stream), op.epoch)
    if isinstance(entry, Rejected):
        return entry
    refused = decide.delete_refusal(entry, op)
    if refused is not None:
        return refused
    if tables.forks(op.stream):
        entry.put(
            replace(entry.info, deleted=True, session=None, expires_ms=None, lease_producer=None, lease_until_ms=None)
        )
        tables.hide(entry)
        _reclaim_lineage(tables, entry)
        return Done(stream=entry.info)
    tables.remove(entry)
    _release(tables, entry.fixed.forked_from)
    return Done()


def _release(tables: Tables, source: StreamId | None) -> None:
    """After a fork is gone: remove sources that only it kept, then give back what it alone still read."""
    with suppress(CorruptError):  # a source that cannot be read keeps its space
        while source is not None:
            entry = tables.by_id(source)
            assert entry is not None, "a fork's source stays as long as the fork"
            if not entry.fixed.deleted or tables.forks(source):
                _reclaim_lineage(tables, entry)
                return
            tables.remove(entry)
            source = entry.fixed.forked_from


def _reclaim_lineage(tables: Tables, entry: Entry) -> None:
    """Give back what nobody reads any more, in this stream and in those that it branches off from."""
    current: Entry | None = entry
    with suppress(CorruptError):  # nobody knows what a fork still needs that cannot be read
        while current is not None:
            upto = Seq(_oldest_needed(tables, current) - 1)
            if upto > current.base_seq:
                tables.reclaim(current, upto)
            current = _source(tables, current)


def _oldest_needed(tables: Tables, entry: Entry) -> Seq:
    """The first of the entry's messages that it or any stream branching off from it still shows."""
    oldest = Seq(entry.head + 1)
    waiting = [(entry, entry.head + 1)]
    while waiting:
        current, reach = waiting.pop()
        if not current.fixed.deleted and current.fixed.first <= reach:
            oldest = min(oldest, current.fixed.first)
        waiting += [(fork, min(reach, fork.fixed.fork_seq)) for fork in _forks(tables, current)]
    return oldest


def _fresh_session(principal: Principal, name: str, now_ms: int) -> SessionInfo:
    return SessionInfo(
        tenant=principal.tenant,
        owner=principal.subject,
        name=name,
        state=SessionState.ACTIVE,
        created_ms=now_ms,
        updated_ms=now_ms,
    )


def _put_session(tables: Tables, op: PutSession) -> WriteResult:
    found = tables.session(op.principal, op.name)
    session = found or _fresh_session(op.principal, op.name, op.now_ms)
    changed = replace(
        session,
        state=session.state if op.state is None else op.state,
        metadata=session.metadata if op.metadata is None else op.metadata,
    )
    if found is None or changed != found:
        changed = replace(changed, updated_ms=op.now_ms)
        tables.put_session(changed)
    return Done(session=changed, created=found is None)


def _delete_session(tables: Tables, op: DeleteSession) -> WriteResult:
    session = tables.session(op.principal, op.name)
    if session is None:
        return Rejected(NotFoundError())
    if tables.session_used(op.principal, op.name):
        return Rejected(AlreadyExistsError("the session still has streams", session=op.name))
    tables.drop_session(op.principal, op.name)
    return Done(session=session)


_Handler = Callable[[Tables, WriteOp], WriteResult]
_HANDLERS: dict[type, _Handler] = {
    Append: cast("_Handler", _append),
    CreateStream: cast("_Handler", _create),
    SetState: cast("_Handler", _set_state),
    SetLease: cast("_Handler", _set_lease),
    UpdateStream: cast("_Handler", _update),
    Touch: cast("_Handler", _touch),
    Trim: cast("_Handler", _trim),
    DeleteStream: cast("_Handler", _delete),
    EraseStream: cast("_Handler", _erase),
    PutSession: cast("_Handler", _put_session),
    DeleteSession: cast("_Handler", _delete_session),
}
