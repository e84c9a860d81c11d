"""What an operation does to one stream: the checks in their documented order, then the change.

Both the reference store and the SQL stores call these functions, so that they cannot disagree. They change the entry in
memory only when the operation is accepted, and never do I/O or read a clock.
"""

from __future__ import annotations

from dataclasses import replace

from unbroken.errors import (
    ConflictError,
    EndedError,
    EpochMismatchError,
    FencedError,
    InvalidError,
    NotFoundError,
    ProducerGapError,
    SequenceError,
    StoreFullError,
    TransitionError,
    UnbrokenError,
)
from unbroken.messages import TERMINAL_STATES, Epoch, Seq, StreamInfo, StreamState, can_transition
from unbroken.protocol.chain import links
from unbroken.store.base import (
    Append,
    Appended,
    Close,
    DeleteStream,
    Done,
    Producer,
    Rejected,
    SetLease,
    SetState,
    Touch,
    Trim,
    UpdateStream,
)
from unbroken.store.entry import Entry, ProducerState
from unbroken.store.operations import EraseStream

__all__ = [
    "ERASED_REASON",
    "SEQ_MAX",
    "append",
    "delete_refusal",
    "end",
    "erase",
    "find",
    "set_lease",
    "set_state",
    "touch",
    "trim",
    "update",
]

ERASED_REASON = '{"cause":"erased"}'
"""Why a stream has ended that was erased before it ended otherwise, and all that is left of its reason."""
SEQ_MAX = 2**32 - 1
"""The last seq that a stored chunk's key has room for."""


def find(entry: Entry | None, epoch: Epoch | None) -> Entry | Rejected:
    """The entry, or why it is not there: `not_found` (also when only its forks keep it) or `epoch_mismatch`."""
    if entry is None or entry.fixed.deleted:
        return Rejected(NotFoundError())
    if epoch is not None and entry.fixed.epoch != epoch:
        return Rejected(EpochMismatchError(epoch=entry.fixed.epoch))
    return entry


def append(entry: Entry, known: ProducerState | None, op: Append) -> Appended | Rejected:
    """Append to a stream that `find` found; `known` is what its producer sent last."""
    producer = op.producer
    if producer is not None and known is not None and _is_repeat(producer, known):
        return _duplicate(entry, producer, known)
    refusal = _append_refusal(entry, known, op)
    if refusal is not None:
        return Rejected(refusal)
    first = Seq(entry.head + 1)
    messages = op.messages
    head = Seq(entry.head + len(messages))
    entry.writer_seq = entry.writer_seq if op.writer_seq is None else op.writer_seq
    value, entry.leaves = links(entry.hash, first, messages, entry.salts)
    entry.advance(head, value, sum(map(len, messages)), op.now_ms)
    if op.close is not None:
        entry.put(end(entry.info, op.close, op.now_ms))
    if producer is None:
        return Appended(first, head, entry.hash, head, entry.fixed.state)
    entry.producers[producer.id] = ProducerState(producer.epoch, producer.seq, first, head)
    return Appended(
        first, head, entry.hash, head, entry.fixed.state, producer_epoch=producer.epoch, producer_seq=producer.seq
    )


def _is_repeat(producer: Producer, known: ProducerState) -> bool:
    return producer.epoch == known.epoch and producer.seq <= known.seq


def _duplicate(entry: Entry, producer: Producer, known: ProducerState) -> Appended:
    latest = producer.seq == known.seq
    first, last = (known.first, known.last) if latest else (Seq(0), Seq(0))
    return Appended(
        first=first,
        last=last,
        hash=entry.hash if last == entry.head else b"",
        head=entry.head,
        state=entry.fixed.state,
        duplicate=True,
        producer_epoch=known.epoch,
        producer_seq=known.seq,
    )


def _append_refusal(entry: Entry, known: ProducerState | None, op: Append) -> UnbrokenError | None:
    producer = op.producer
    if producer is not None and known is not None and producer.epoch < known.epoch:
        return FencedError(epoch=known.epoch)
    if entry.fixed.state in TERMINAL_STATES:
        return _ended(entry)
    if producer is not None:
        expected = known.seq + 1 if known is not None and producer.epoch == known.epoch else 0
        if producer.seq != expected:
            return ProducerGapError(expected=expected, epoch=None if known is None else known.epoch)
    if not op.beside_lease and _held_against(entry.fixed, producer, op.now_ms):
        return FencedError(epoch=entry.fixed.lease_epoch)
    if op.expected_head is not None and op.expected_head != entry.head:
        return ConflictError(head=entry.head)
    if op.writer_seq is not None and entry.writer_seq is not None and op.writer_seq <= entry.writer_seq:
        return SequenceError()
    if op.close is not None and op.close.state not in TERMINAL_STATES:
        return TransitionError(f"a stream does not end as {op.close.state}")
    if entry.head + len(op.messages) > SEQ_MAX:
        return StoreFullError("the stream holds as many messages as a stream can; go on in a new one", head=entry.head)
    return None


def _held_against(info: StreamInfo, producer: Producer | None, now_ms: int) -> bool:
    """Whether a lease that has not run out belongs to somebody else, or to a later epoch of this producer."""
    if info.lease_producer is None or info.lease_until_ms is None or info.lease_until_ms <= now_ms:
        return False
    return producer is None or producer.id != info.lease_producer or producer.epoch < info.lease_epoch


def _ended(entry: Entry) -> EndedError:
    return EndedError(state=entry.fixed.state.value, head=entry.head)


def end(info: StreamInfo, close: Close, now_ms: int) -> StreamInfo:
    """`info` ended as `close` says; nobody holds a lease on it any more."""
    return replace(
        info,
        state=close.state,
        reason=close.reason,
        ended_ms=now_ms,
        updated_ms=now_ms,
        lease_producer=None,
        lease_until_ms=None,
    )


def erase(info: StreamInfo, op: EraseStream) -> StreamInfo:
    """`info` without what it says of anybody, ended; its name and numbers stay."""
    ended = info if info.state.terminal else end(info, Close(StreamState.CANCELLED), op.now_ms)
    return replace(
        ended,
        metadata="{}",
        reason=ERASED_REASON,
        run=None,
        erased=op.tombstone,
        cancel_requested_by=None,
        writer_seq=None,
        updated_ms=op.now_ms,
    )


def set_state(entry: Entry, op: SetState) -> Done | Rejected:
    """Go to another state; only `running` keeps a lease."""
    info = entry.info
    if info.state in TERMINAL_STATES:
        return Rejected(_ended(entry))
    before = op.only_if_lease_before_ms
    if before is not None and (info.lease_until_ms is None or info.lease_until_ms >= before):
        return Rejected(TransitionError("the lease has not run out"))
    if op.fence is not None and info.lease_producer is not None and op.fence != (info.lease_producer, info.lease_epoch):
        return Rejected(FencedError(epoch=info.lease_epoch))
    if not can_transition(info.state, op.state):
        return Rejected(TransitionError(f"a stream does not go from {info.state} to {op.state}"))
    if op.state in TERMINAL_STATES:
        info = end(info, Close(op.state, op.reason), op.now_ms)
    elif op.state is StreamState.RUNNING:
        info = replace(info, state=op.state, reason=op.reason, updated_ms=op.now_ms)
    else:
        info = replace(
            info, state=op.state, reason=op.reason, updated_ms=op.now_ms, lease_producer=None, lease_until_ms=None
        )
    entry.put(info)
    return Done(stream=info)


def set_lease(entry: Entry, op: SetLease) -> Done | Rejected:
    """Take, renew or give back the right to produce. Giving back what nobody holds changes nothing.

    Epochs order the leases of one producer id. Whoever takes a lease that another id held, or that was given back, begins
    with an epoch of its own, which may be lower: `lease_epoch` is that of the present or last holder and no count of leases.
    A paused stream has to be resumed first: otherwise the next renewal of whoever produced would end the pause.
    """
    info = entry.info
    if info.state in TERMINAL_STATES:
        return Rejected(_ended(entry))
    own = info.lease_producer == op.producer
    if own and op.producer_epoch < info.lease_epoch:
        return Rejected(FencedError(epoch=info.lease_epoch))
    held = info.lease_producer is not None and (info.lease_until_ms or 0) > op.now_ms
    if not own and (held or (op.until_ms is None and info.lease_producer is not None)):
        return Rejected(FencedError(epoch=info.lease_epoch))
    if op.until_ms is not None:
        if info.state is StreamState.PAUSED:
            return Rejected(TransitionError("the stream is paused; resume it before taking its lease"))
        info = replace(
            info,
            state=StreamState.RUNNING,
            updated_ms=op.now_ms,
            lease_producer=op.producer,
            lease_epoch=op.producer_epoch,
            lease_until_ms=op.until_ms,
            lease_ms=op.until_ms - op.now_ms,
        )
    elif own:
        info = replace(info, state=StreamState.OPEN, updated_ms=op.now_ms, lease_producer=None, lease_until_ms=None)
    else:
        return Done(stream=info)
    entry.put(info)
    return Done(stream=info)


def update(entry: Entry, op: UpdateStream) -> Done:
    """Change metadata, or note that somebody asked for an end; the first to ask is kept."""
    info = entry.info
    if op.metadata is not None:
        info = replace(info, metadata=op.metadata, updated_ms=op.now_ms)
    if op.cancel_requested_by is not None and info.cancel_requested_ms is None:
        info = replace(
            info,
            cancel_requested_ms=op.now_ms,
            cancel_requested_by=op.cancel_requested_by,
            updated_ms=op.now_ms,
        )
    if info is not entry.fixed:
        entry.put(info)
    return Done(stream=info)


def touch(entry: Entry, op: Touch) -> Done:
    """Slide the expiry."""
    entry.slide(op.now_ms)
    return Done(stream=entry.info)


def delete_refusal(entry: Entry, op: DeleteStream) -> Rejected | None:
    """Why the stream stays: its expiry has moved on since somebody saw that it had passed."""
    at = op.only_if_expired_at_ms
    if at is not None and (entry.expires_ms is None or entry.expires_ms > at):
        return Rejected(TransitionError("the stream has not expired"))
    return None


def trim(entry: Entry, op: Trim) -> Done | Rejected:
    """Move `first` forward; a `first` that is reached already changes nothing."""
    if not 1 <= op.first <= entry.head + 1:
        return Rejected(
            InvalidError("a stream is trimmed to one behind its head at most", field="first", head=entry.head)
        )
    info = entry.info
    if op.first > info.first:
        info = replace(info, first=op.first)
        entry.put(info)
    return Done(stream=info)
