"""How messages are found: through forks, in whole batches where possible, within the caller's bounds, and never with a hole.

Stores offer their rows as a `Source`, one consistent snapshot, and call `read` and `hash_at`. What does not fit together
(a missing chunk, a count that is off) raises `CorruptError`; nothing here writes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from unbroken.errors import CorruptError, InvalidError, TrimmedError
from unbroken.messages import SEPARATOR, Seq, StreamId, join_encoded, split_encoded
from unbroken.protocol.chain import LEAF_MARK_BYTES, chain
from unbroken.store.base import Batch, Read
from unbroken.store.chunks import slice_batch
from unbroken.store.entry import Entry
from unbroken.store.lineage import check_older

__all__ = ["Source", "hash_at", "read"]


class Source(Protocol):
    """The rows of a store at one moment."""

    def by_id(self, stream: StreamId) -> Entry | None: ...

    def stored(self, stream: StreamId, after: Seq) -> Iterator[Batch]:
        """The stream's own stored batches that end behind `after`, in order; the first may begin before it."""
        ...


def read(source: Source, entry: Entry, after: Seq, *, messages_max: int, bytes_max: int) -> Read:
    """As `StreamingMessageRepository.read`, of an entry that was found in `source`."""
    if not 0 <= after <= entry.head:
        raise InvalidError(f"message {after} is beyond the head {entry.head}", field="after", head=entry.head)
    if after < entry.fixed.first - 1:
        return Read(entry.info, (), trimmed=True)
    batches: list[Batch] = []
    messages_left, bytes_left = messages_max, bytes_max
    for batch in _through(source, entry, after):
        fitting = _fitting(batch, messages_left, bytes_left, must=not batches)
        if fitting < 1:
            break
        kept = batch if fitting > batch.last - batch.first else _cut(source, entry, batch, fitting)
        batches.append(kept)
        messages_left -= fitting
        bytes_left -= len(kept.body)
        if kept is not batch or messages_left < 1:
            break
    return Read(entry.info, tuple(batches))


def _fitting(batch: Batch, messages_left: int, bytes_left: int, *, must: bool) -> int:
    """How many messages of `batch` fit: a batch is cut by count, by bytes only where nothing else was found."""
    n = batch.last - batch.first + 1
    if len(batch.body) > bytes_left:
        if not must:
            return 0
        n = _fitting_bytes(batch.body, bytes_left)
    return max(min(n, messages_left), 1 if must else 0)


def _fitting_bytes(body: bytes, bytes_max: int) -> int:
    """How many messages at the start of `body` have at most `bytes_max` bytes together; one at least."""
    end = body.rfind(SEPARATOR, 0, max(bytes_max, 0) + len(SEPARATOR))
    return 1 if end < 0 else body.count(SEPARATOR, 0, end) + 1


def _cut(source: Source, entry: Entry, batch: Batch, count: int) -> Batch:
    last = Seq(batch.first + count - 1)
    body = join_encoded(split_encoded(batch.body)[:count])
    found, derived = _hash_at(source, entry, last)
    return Batch(batch.first, last, body, found, derived, batch.marks[: count * LEAF_MARK_BYTES])


def _through(source: Source, entry: Entry, after: Seq) -> Iterator[Batch]:
    """Everything behind `after`, dense, from the streams that hold it; each batch is of one of them."""
    for part, start, end in _parts(source, entry, after):
        at = start
        for found in source.stored(part.fixed.id, start) if start < end else ():
            batch = found if found.first > at else slice_batch(found, at)
            if batch.first != at + 1:
                break
            if batch.last > end:
                batch = _cut(source, entry, batch, end - at)
            at = batch.last
            yield batch
            if at == end:
                break
        if at < end:
            raise _hole(part, Seq(at + 1))


def _hole(part: Entry, seq: Seq) -> CorruptError:
    stream = part.fixed.id
    return CorruptError(f"message {seq} of stream {stream} should be there and is not", stream=stream, seq=seq)


def _parts(source: Source, entry: Entry, after: Seq) -> list[tuple[Entry, Seq, Seq]]:
    """Which stream holds which messages behind `after`: (its entry, after, last), oldest first."""
    parts: list[tuple[Entry, Seq, Seq]] = []
    end = entry.head
    while entry.fixed.forked_from is not None and after < entry.fixed.fork_seq:
        parts.append((entry, entry.fixed.fork_seq, end))
        end = min(end, entry.fixed.fork_seq)
        entry = _origin(source, entry)
    parts.append((entry, after, end))
    parts.reverse()
    return parts


def _origin(source: Source, entry: Entry) -> Entry:
    assert entry.fixed.forked_from is not None
    origin = source.by_id(entry.fixed.forked_from)
    if origin is None:
        stream = entry.fixed.id
        raise CorruptError(f"the source of the fork {stream} is gone", stream=stream, seq=entry.fixed.fork_seq)
    check_older(origin.fixed, entry.fixed)
    return origin


def hash_at(source: Source, entry: Entry, seq: Seq) -> bytes:
    """As `StreamingMessageRepository.hash_at`, of an entry that was found in `source`."""
    if not 0 <= seq <= entry.head:
        raise InvalidError(f"message {seq} is beyond the head {entry.head}", field="seq", head=entry.head)
    return _hash_at(source, entry, seq)[0]


def _hash_at(source: Source, entry: Entry, seq: Seq) -> tuple[bytes, bool]:
    """The chain's value at `seq`, and whether it had to be computed from messages because it is not stored."""
    if seq == entry.head:
        return entry.hash, False
    while entry.fixed.forked_from is not None and seq < entry.fixed.fork_seq:
        entry = _origin(source, entry)
    if seq == entry.fixed.fork_seq:
        return entry.fixed.genesis, False
    if seq < entry.base_seq:
        raise TrimmedError(first=entry.fixed.first)
    if seq == entry.base_seq:
        return entry.base_hash, False
    batch = _holding(source, entry, seq)
    if batch.last == seq:
        return batch.hash, False
    at_base = batch.first == entry.base_seq + 1
    before = entry.base_hash if at_base else _holding(source, entry, Seq(batch.first - 1)).hash
    return chain(before, batch.first, split_encoded(batch.body)[: seq - batch.first + 1], entry.salts), True


def _holding(source: Source, entry: Entry, seq: Seq) -> Batch:
    """The stored batch that holds message `seq`."""
    batch = next(iter(source.stored(entry.fixed.id, Seq(seq - 1))), None)
    if batch is None or batch.first > seq:
        raise _hole(entry, seq)
    return batch
