"""The rows of the SQLite database during one write: what operations read and change, and as few statements as that takes.

The writer owns one and calls `flush` before each commit and `forget` whenever its picture may be wrong (a failed
transaction, another process that wrote). It holds a bounded cache of streams and never commits anything itself.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast

from unbroken.identity import Principal
from unbroken.limits import Limits
from unbroken.messages import Epoch, Seq, SessionInfo, StreamId, join_encoded
from unbroken.protocol.chain import fold, leaf_marks
from unbroken.store import reading
from unbroken.store.base import Batch
from unbroken.store.chunks import SEQ_MASK, ChunkRow, chunk_key, decode_chunk, encode_chunk
from unbroken.store.entry import CHANGED, CLEAN, SLID, Entry, ProducerState
from unbroken.store.queries import load_queries
from unbroken.store.sqlite.connection import Connection, Value
from unbroken.store.sqlite.rows import (
    advance_row,
    change_row,
    entry_from_row,
    sealed_salts,
    session_from_row,
    session_row,
    slide_row,
    stream_row,
)
from unbroken.store.sqlite.stream_keys import OWN

__all__ = ["QUERIES", "SQLiteTables", "Witness", "stored_batches"]

QUERIES = load_queries("sqlite")


def stored_batches(connection: Connection, stream: StreamId, after: Seq, *, sealed: bool = False) -> Iterator[Batch]:
    """The stream's chunks that end behind `after`, checked and decoded as they are asked for; with `sealed` as they lie."""
    bounds = (chunk_key(stream, after), chunk_key(stream, Seq(SEQ_MASK)))
    for row in connection.each(QUERIES["chunk_range"], bounds):
        chunk = ChunkRow(*cast("tuple[int, int, int, int, bytes, bytes, bytes | None]", row))
        yield decode_chunk(chunk, None if sealed else connection.keys, sealed=sealed)


class _Piece:
    """Messages of one stream in one commit that become one chunk, until they reach `compact_chunk_bytes`.

    A commit may hold megabytes of one stream. As one chunk, each bounded read of it would load, check and hash all of it.
    """

    __slots__ = ("_first", "_hash", "_last", "_leaves", "_messages", "size_bytes")

    def __init__(self, first: Seq) -> None:
        self._messages: list[bytes] = []
        self._leaves: list[bytes] = []
        self._first = first
        self._last = first
        self._hash = b""
        self.size_bytes = 0

    def extend(self, messages: Sequence[bytes], leaves: Sequence[bytes], last: Seq, chain_hash: bytes) -> None:
        """Take messages up to `last`, where the chain is `chain_hash`."""
        self._messages += messages
        self._leaves += leaves
        self._last = last
        self._hash = chain_hash
        self.size_bytes += len(messages[0]) if len(messages) == 1 else sum(map(len, messages))

    def batch(self) -> Batch:
        """What is stored."""
        assert self._first + len(self._messages) - 1 == self._last, "a piece is dense"
        body = join_encoded(self._messages)
        return Batch(self._first, self._last, body, self._hash, marks=leaf_marks(self._leaves))


def _parts(messages: Sequence[bytes], bytes_max: int) -> Iterator[Sequence[bytes]]:
    """`messages` in order, cut behind every message that fills `bytes_max`."""
    if sum(map(len, messages)) <= bytes_max:
        yield messages
        return
    start, size = 0, 0
    for end, message in enumerate(messages, 1):
        size += len(message)
        if size >= bytes_max or end == len(messages):
            yield messages[start:end]
            start, size = end, 0


class Witness(NamedTuple):
    """A stream's head and its chain as a commit leaves them, and whether it makes the stream."""

    stream: StreamId
    head: Seq
    hash: bytes
    fresh: bool


class SQLiteTables:
    """`Tables` and `Source` over one connection that has a write transaction open."""

    def __init__(self, connection: Connection, limits: Limits) -> None:
        self._db = connection
        self._limits = limits
        self._entries: OrderedDict[StreamId, Entry] = OrderedDict()
        self._dirty: dict[StreamId, Entry] = {}
        self._producers: dict[tuple[StreamId, str], ProducerState] = {}
        self._pieces: dict[StreamId, list[_Piece]] = {}
        self._fresh: set[StreamId] = set()
        self.garbage = False

    def forget(self) -> None:
        """Drop everything that was read or changed."""
        self._entries.clear()
        self._dirty.clear()
        self._producers.clear()
        self._pieces.clear()
        self._fresh.clear()
        self.garbage = False

    def forget_stream(self, stream: StreamId) -> None:
        """Drop what was read of one stream."""
        assert stream not in self._dirty
        self._entries.pop(stream, None)

    def by_id(self, stream: StreamId) -> Entry | None:
        entry = self._entries.get(stream)
        if entry is None:
            row = self._db.one(QUERIES["stream_by_id"], (stream,))
            if row is None:
                return None
            entry = self._entries[stream] = entry_from_row(row, self._db.keys)
        return entry

    def by_name(self, tenant: str, owner: str, name: str) -> Entry | None:
        row = self._db.one(QUERIES["stream_by_name"], (tenant, owner, name))
        if row is None:
            return None
        stream = StreamId(cast("int", row[0]))
        entry = self._entries.get(stream)
        if entry is None:
            entry = self._entries[stream] = entry_from_row(row, self._db.keys)
        return entry

    def producer(self, entry: Entry, producer_id: str) -> ProducerState | None:
        known = entry.producers
        if producer_id in known:
            return known[producer_id]
        if len(known) >= self._limits.store_cached_producers_max:
            known.clear()
        stream = entry.fixed.id
        found = self._producers.get((stream, producer_id))
        if found is None:
            row = self._db.one(QUERIES["producer_get"], (stream, producer_id))
            found = None if row is None else ProducerState(*cast("tuple[int, int, Seq, Seq]", row))
        known[producer_id] = found
        return found

    def identify(self) -> tuple[StreamId, Epoch]:
        return StreamId(self._count("stream")), Epoch(self._count("epoch"))

    def _count(self, name: str) -> int:
        row = self._db.one(QUERIES["counter_next"], (name,))
        assert row is not None
        return cast("int", row[0])

    def insert(self, entry: Entry) -> None:
        key = self._db.keys.writing(entry.fixed.id, entry.fixed.epoch)
        self._db.run(QUERIES["stream_insert"], stream_row(entry, key))
        self._entries[entry.fixed.id] = entry
        self._fresh.add(entry.fixed.id)

    def extend(self, entry: Entry, first: Seq, messages: Sequence[bytes], before: bytes) -> None:
        done = 0
        for part in _parts(messages, self._limits.compact_chunk_bytes):
            leaves = entry.leaves[done : done + len(part)]
            done += len(part)
            last = Seq(first + len(part) - 1)
            before = entry.hash if last == entry.head else fold(before, leaves)
            self._piece(entry.fixed.id, first).extend(part, leaves, last, before)
            first = Seq(last + 1)

    def _piece(self, stream: StreamId, first: Seq) -> _Piece:
        """The piece of the stream that takes message `first`."""
        pieces = self._pieces.setdefault(stream, [])
        if not pieces or pieces[-1].size_bytes >= self._limits.compact_chunk_bytes:
            pieces.append(_Piece(first))
        return pieces[-1]

    def changed(self, entry: Entry, producer_id: str | None) -> None:
        stream = entry.fixed.id
        self._dirty[stream] = entry
        if producer_id is not None:
            state = entry.producers[producer_id]
            assert state is not None
            self._producers[stream, producer_id] = state

    def hide(self, entry: Entry) -> None:
        self.changed(entry, None)
        self._db.run(QUERIES["stream_hide"], (entry.fixed.id,))

    def remove(self, entry: Entry) -> None:
        stream = entry.fixed.id
        self._pieces.pop(stream, None)
        self._dirty.pop(stream, None)
        self._entries.pop(stream, None)
        for key in [key for key in self._producers if key[0] == stream]:
            del self._producers[key]
        self._db.run(QUERIES["stream_delete"], (stream,))
        self._db.keys.destroy(stream)
        self._throw_away(stream, SEQ_MASK)

    def erase(self, entry: Entry) -> None:
        stream = entry.fixed.id
        self._db.run(QUERIES["stream_erase"], (stream, entry.fixed.erased))
        self._db.run(QUERIES["producers_delete"], (stream,))
        self._db.run(QUERIES["erasure_put"], (stream, 0))
        entry.producers.clear()
        for key in [key for key in self._producers if key[0] == stream]:
            del self._producers[key]

    def keep_salts(self, entry: Entry, salts: bytes) -> None:
        """Of the stream's salts only these stay."""
        stream = entry.fixed.id
        self._db.run(QUERIES["stream_salts"], (stream, sealed_salts(salts, self._db.keys.writing(stream))))
        self.forget_stream(stream)

    def forks(self, stream: StreamId) -> Sequence[Entry]:
        found = [self.by_id(StreamId(cast("int", row[0]))) for row in self._db.all(QUERIES["stream_forks"], (stream,))]
        return [fork for fork in found if fork is not None]

    def reclaim(self, entry: Entry, upto: Seq) -> None:
        self._throw_away(entry.fixed.id, upto)

    def _throw_away(self, stream: StreamId, upto: int) -> None:
        self._db.run(QUERIES["garbage_put"], (stream, upto))
        self.garbage = True

    def hash_at(self, entry: Entry, seq: Seq) -> bytes:
        return reading.hash_at(self, entry, seq)

    def session(self, principal: Principal, name: str) -> SessionInfo | None:
        row = self._db.one(QUERIES["session_by_name"], (principal.tenant, principal.subject, name))
        return None if row is None else session_from_row(row, self._db.keys)[1]

    def put_session(self, session: SessionInfo) -> None:
        self._db.run(QUERIES["session_put"], session_row(session, self._db.keys.writing(OWN)))

    def drop_session(self, principal: Principal, name: str) -> None:
        self._db.run(QUERIES["session_delete"], (principal.tenant, principal.subject, name))

    def session_used(self, principal: Principal, name: str) -> bool:
        return self._db.one(QUERIES["session_used"], (principal.tenant, principal.subject, name)) is not None

    def stored(self, stream: StreamId, after: Seq) -> Iterator[Batch]:
        for row in self._take_chunks(stream):
            self._db.run(QUERIES["chunk_insert"], row)
        return stored_batches(self._db, stream, after)

    def _take_chunks(self, stream: StreamId) -> list[ChunkRow]:
        """The chunks of this stream in this commit: one, unless it is large or something had to read before the end."""
        pieces = self._pieces.pop(stream, ())
        key = self._db.keys.writing(stream) if pieces else None
        return [encode_chunk(stream, piece.batch(), key=key) for piece in pieces]

    def witness(self) -> Witness | None:
        """Something by which this commit can be told from one that never was; None when it appends nothing."""
        for stream in self._pieces:
            entry = self._entries[stream]
            return Witness(stream, entry.head, entry.hash, fresh=stream in self._fresh)
        return None

    def flush(self) -> None:
        """Put everything that changed into the tables, with a statement for each kind of row."""
        if self._pieces:
            rows = [row for stream in list(self._pieces) for row in self._take_chunks(stream)]
            self._db.many(QUERIES["chunk_insert"], rows)
        if self._dirty:
            self._flush_streams()
        if self._producers:
            producers = [(stream, name, *state) for (stream, name), state in self._producers.items()]
            self._db.many(QUERIES["producer_put"], producers)
            self._producers.clear()

    def _flush_streams(self) -> None:
        advanced: list[tuple[Value, ...]] = []
        slid: list[tuple[Value, ...]] = []
        changed: list[tuple[Value, ...]] = []
        for entry in self._dirty.values():
            if entry.dirty & CHANGED:
                changed.append(change_row(entry, self._db.keys.writing(entry.fixed.id)))
            elif entry.dirty & SLID:
                slid.append(slide_row(entry))
            else:
                advanced.append(advance_row(entry))
            entry.dirty = CLEAN
        self._dirty.clear()
        for name, rows in (("stream_advance", advanced), ("stream_slide", slid), ("stream_change", changed)):
            if rows:
                self._db.many(QUERIES[name], rows)

    def shrink(self) -> None:
        """Keep the cache within its bound; called when nothing is waiting to be flushed."""
        assert not self._dirty
        self._fresh.clear()
        while len(self._entries) > self._limits.store_cached_streams_max:
            self._entries.popitem(last=False)
