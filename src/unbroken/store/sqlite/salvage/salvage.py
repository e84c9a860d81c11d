"""`salvage`: from a damaged database file a new one, with everything that verifies, and a list of what was lost.

The command line calls it; the damaged file is only read. Messages keep their seqs: in the place of one that is lost stands a
message of kind `lost`, so that cursors stay true and no reader takes a hole for the whole.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, cast

import msgspec

from unbroken.errors import CorruptError, InUseError, NotFoundError, StoreUnsupportedError
from unbroken.identity import Principal
from unbroken.limits import DEFAULT_LIMITS, Limits
from unbroken.messages import (
    Epoch,
    NewMessage,
    Seq,
    SessionInfo,
    SessionState,
    StreamId,
    StreamInfo,
    StreamState,
    encode_message,
    join_encoded,
    split_encoded,
)
from unbroken.protocol.chain import chain, genesis, leaf_marks, links
from unbroken.store.base import Batch
from unbroken.store.chunks import encode_chunk
from unbroken.store.entry import Entry
from unbroken.store.migrate import load_migrations, migrate
from unbroken.store.sealing import Keyring
from unbroken.store.sqlite.backup import Progress, alone, check_target, finish, in_use, partial, verified
from unbroken.store.sqlite.connection import Connection, Value
from unbroken.store.sqlite.rows import session_from_row, session_row, stream_row
from unbroken.store.sqlite.salvage.pages import PageFile
from unbroken.store.sqlite.salvage.rows import Found, Place, read_rows
from unbroken.store.sqlite.schema import SQLiteTarget
from unbroken.store.sqlite.stream_keys import OWN, begin_sealing, check_keys
from unbroken.store.sqlite.tables import QUERIES

__all__ = ["Lost", "Means", "Salvage", "salvage"]

LOST = "lost"
LOST_CHUNK_MESSAGES = 1_000


@dataclass(frozen=True, slots=True)
class Lost:
    """What could not be brought back: messages `first` to `last` of a stream, or facts, where those are None."""

    reason: str
    stream: str | None = None
    first: int | None = None
    last: int | None = None


@dataclass(frozen=True, slots=True)
class Salvage:
    """What the new database holds, and what it does not."""

    streams: int
    messages: int
    lost: tuple[Lost, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """How to read the damaged file: with the keys of an encrypted one.

    With `believe_pages` pages need no valid checksum, because another program has written them; messages always do.
    """

    believe_pages: bool = False
    ring: Keyring | None = None


PLAIN: Final = Means()


def _quiet(_what: str, _done: int, _of: int) -> None:
    """Progress that nobody wants."""


def salvage(
    source: Path,
    target: Path,
    limits: Limits,
    *,
    replace_target: bool = False,
    means: Means = PLAIN,
    progress: Progress = _quiet,
) -> Salvage:
    """Make `target` from whatever of the database `source` verifies.

    Where a key is given, `target` is encrypted, also where `source` is not. `ConfigurationError` when one is needed and
    missing or wrong.
    Raises `StoreUnsupportedError` when nothing in `source` is of a database of ours, `InUseError` while a server has it open,
    `AlreadyExistsError` when there is a `target`.
    """
    if not source.is_file():
        raise NotFoundError(f"there is no database {source}")
    if in_use(source):
        raise InUseError(f"a server or worker has {source} open")
    check_target(source, target, replace=replace_target)
    pages = PageFile(source, believed=means.believe_pages)
    try:
        with partial(target) as unfinished, tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            progress("reading", 0, 0)
            found = read_rows(pages, Path(scratch) / "empty.db", means.ring)
            if not found.recognised:
                raise StoreUnsupportedError(f"nothing in {source} is known to be of one of Unbroken's databases")
            check_keys(found, encrypted=bool(found.keys), named=OWN in found.keys)
            connection = Connection(unfinished, limits, full=False, ring=means.ring)
            try:
                migrate(SQLiteTarget(connection), load_migrations("sqlite"), 0)
                begin_sealing(connection)
                rebuilt = _Rebuilding(found, connection, progress)
                rebuilt.run()
            finally:
                connection.close()
            examination = verified(unfinished, limits, progress, means.ring)
            with alone(target):
                finish(unfinished, target)
    finally:
        pages.close()
    return Salvage(examination.streams, examination.messages - rebuilt.placeholders, tuple(rebuilt.lost))


class _Rebuilding:
    """Writes the new database, stream after stream, sources before their forks."""

    def __init__(self, found: Found, connection: Connection, progress: Progress) -> None:
        self._found = found
        self._db = connection
        self._progress = progress
        self._branches: dict[tuple[StreamId, Seq], bytes] = {}
        """The new chain's value where a fork branches off."""
        self._orphaned: set[StreamId] = set()
        self.lost: list[Lost] = []
        self.placeholders = 0

    def run(self) -> None:
        self._tell_of_facts()
        streams = sorted([*self._found.streams.values(), *self._orphans()], key=lambda entry: entry.fixed.id)
        self._branches = {
            (entry.fixed.forked_from, entry.fixed.fork_seq): b""
            for entry in streams
            if entry.fixed.forked_from is not None
        }
        with self._db.transaction():
            self._write_counters(streams)
            self._write_sessions(streams)
        for number, entry in enumerate(streams):
            self._progress("rebuilding", number, len(streams))
            with self._db.transaction():
                self._stream(entry)
        with self._db.transaction():
            known = {entry.fixed.id for entry in streams}
            self._db.many(QUERIES["producer_put"], [row for row in self._found.producers if row[0] in known])
            self._write_credentials()

    def _tell_of_facts(self) -> None:
        """What is damaged besides messages."""
        meanings = {
            "session": "sessions may be missing: a page of their table does not verify",
            "token": "tokens may be missing: a page of their table does not verify",
            "revocation": "revocations may be missing, so that what was revoked is good again: make them again",
            "stream": "names, owners and states of streams may be missing: a page of their table does not verify",
            "map": "something that was deleted may have come back: a page of the map of pages does not verify",
            "producer": "what producers sent last may be missing, so a retry could be stored twice",
        }
        for table, meaning in meanings.items():
            self.lost += [Lost(f"{meaning} (page {page})") for page in self._found.damaged.get(table, ())]

    # --- streams whose row is lost ------------------------------------------------------------------------------------

    def _orphans(self) -> Iterator[Entry]:
        """Streams of which only messages are left; there are such only where rows of streams are lost."""
        damaged = self._found.damaged
        if not (damaged.get("stream") or damaged.get("") or damaged.get("map")):
            return
        known = self._found.streams.keys() | self._found.garbage
        for stream in sorted(self._found.chunks.keys() - known):
            places = self._found.chunks[stream]
            head, first = max(place.last for place in places), min(place.first for place in places)
            name = f"salvaged/{stream}"
            base = self._found.batch(min(places))
            everything = first == 1
            value = genesis(Principal().tenant, name, 0) if everything else base.hash
            start = Seq(0) if everything else base.last
            self.lost.append(Lost("its name, owner and state are lost; its messages are kept under this name", name))
            if not everything:
                self.lost.append(Lost("nobody knows whether there were more before", name, 1, start))
            info = StreamInfo(
                id=stream,
                epoch=Epoch(0),
                tenant=Principal().tenant,
                owner=Principal().subject,
                name=name,
                kind="stream",
                content_type="application/json",
                session=None,
                metadata='{"salvaged":true}',
                state=StreamState.INTERRUPTED,
                reason='{"cause":"salvaged"}',
                first=Seq(start + 1),
                head=head,
                size_bytes=0,
                hash=b"",
                genesis=value,
                created_ms=0,
                updated_ms=0,
            )
            self._orphaned.add(stream)
            yield Entry(info, start, value)

    # --- rows ---------------------------------------------------------------------------------------------------------

    def _write_counters(self, streams: list[Entry]) -> None:
        ids = max([0, *(entry.fixed.id for entry in streams), *self._found.chunks, *self._found.garbage])
        epochs = max([0, *(entry.fixed.epoch for entry in streams)])
        counters = self._found.counters
        whole = "stream" in counters and "epoch" in counters
        margin = 0 if whole else 1_000_000  # epochs of streams that are gone must not come again
        for name, least in (("stream", ids), ("epoch", epochs + margin)):
            self._db.run(QUERIES["counter_set"], (name, max(least, counters.get(name, 0))))

    def _write_sessions(self, streams: list[Entry]) -> None:
        there: set[tuple[Value, ...]] = set()
        key = self._db.keys.writing(OWN)
        for row in sorted(self._found.sessions, key=lambda row: cast("int", row[0])):
            row_id, tenant, owner, name, state, created, updated, metadata = row
            try:
                found = session_from_row((row_id, tenant, owner, name, state, metadata, created, updated), self._found)[
                    1
                ]
            except CorruptError:
                found = session_from_row((row_id, tenant, owner, name, state, "{}", created, updated), self._found)[1]
                self.lost.append(Lost(f"the metadata of session {found.name}"))
            self._db.run(QUERIES["session_put"], session_row(found, key))
            there.add((tenant, owner, name))
        for info in [entry.fixed for entry in streams if entry.fixed.session is not None]:
            place = (info.tenant, info.owner, info.session)
            if place not in there:
                there.add(place)
                session = SessionInfo(
                    tenant=info.tenant, owner=info.owner, name=info.session or "", state=SessionState.ACTIVE
                )
                self._db.run(QUERIES["session_put"], session_row(session, key))
                self.lost.append(Lost(f"the state and metadata of session {session.name}"))

    def _write_credentials(self) -> None:
        """Revocations, and tokens with what was handed on with them; never a token without the one that it depends on."""
        self._db.many(QUERIES["revocation_put"], [row[1:] for row in self._found.revocations])
        there: set[Value] = {None}
        for row in sorted(self._found.tokens, key=lambda row: cast("int", row[0])):
            if row[-1] in there:
                there.add(row[1])
                self._db.run(QUERIES["token_put"], row[1:])

    def _stream(self, old: Entry) -> None:
        """Write one stream with its messages and what stands in the place of those that are lost."""
        entry = self._attached(old)
        info, value, size = entry.info, entry.base_hash, 0
        key = self._db.keys.writing(info.id, info.epoch)
        if info.id in self._found.keyless:
            self.lost.append(Lost("its key is lost, and with it all that it held", info.name))
        rows = []
        for batch, is_lost in self._batches(old):
            messages = split_encoded(batch.body)
            for seq in range(batch.first, batch.last + 1):
                if (info.id, seq) in self._branches:
                    upto = seq - batch.first + 1
                    self._branches[info.id, Seq(seq)] = chain(value, batch.first, messages[:upto], entry.salts)
            value, leaves = links(value, batch.first, messages, entry.salts)
            rows.append(encode_chunk(info.id, replace(batch, hash=value, marks=leaf_marks(leaves)), key=key))
            size += len(batch.body)
            if is_lost:
                self.placeholders += len(messages)
        if (info.id, entry.base_seq) in self._branches:
            self._branches[info.id, entry.base_seq] = entry.base_hash
        changed = replace(info, hash=value, size_bytes=info.size_bytes or size)
        self._db.run(QUERIES["stream_insert"], stream_row(Entry(changed, entry.base_seq, entry.base_hash), key))
        self._db.many(QUERIES["chunk_insert"], rows)
        if info.erased is not None:  # perhaps not to its end: the next start goes on with it
            self._db.run(QUERIES["erasure_put"], (info.id, 0))

    def _attached(self, entry: Entry) -> Entry:
        """A fork follows its source's new chain, and stands for itself where the source is lost."""
        info = entry.info
        if info.forked_from is None:
            return entry
        if info.fork_seq == 0 and info.forked_from >= info.id:  # it shares nothing with what is no older than itself
            return Entry(replace(info, forked_from=None), entry.base_seq, entry.base_hash)
        value = self._branches.get((info.forked_from, info.fork_seq), b"")
        if info.fork_seq == 0 or value:
            value = value or info.genesis
            own = entry.base_seq == info.fork_seq
            return Entry(replace(info, genesis=value), entry.base_seq, value if own else entry.base_hash)
        self.lost.append(Lost("the stream that it was forked from is lost", info.name, info.first, info.fork_seq))
        first = Seq(max(info.first, info.fork_seq + 1))
        return Entry(replace(info, forked_from=None, fork_seq=Seq(0), first=first), entry.base_seq, entry.base_hash)

    def _batches(self, entry: Entry) -> Iterator[tuple[Batch, bool]]:
        """The stream's own messages behind its base, dense; True with those that only stand in a lost one's place."""
        info, at = entry.info, entry.base_seq
        before = None if info.id in self._orphaned else entry.base_hash
        for place in _dense(self._found.chunks.get(info.id, []), at, info.head):
            if place.first > at + 1:
                yield from self._lost(info, Seq(at + 1), Seq(place.first - 1), "no chunk that verifies holds them")
                before = None
            batch = self._found.batch(place)
            messages = split_encoded(batch.body)
            if before is not None and chain(before, batch.first, messages, entry.salts) != batch.hash:
                yield from self._lost(info, batch.first, batch.last, "they do not match their hash chain")
            else:
                yield batch, False
            at, before = place.last, None if info.id in self._orphaned else batch.hash  # whose salts are lost
        if at < info.head:
            yield from self._lost(info, Seq(at + 1), info.head, "no chunk that verifies holds them")

    def _lost(self, info: StreamInfo, first: Seq, last: Seq, reason: str) -> Iterator[tuple[Batch, bool]]:
        if last >= info.first:
            self.lost.append(Lost(reason, info.name, max(first, info.first), last))
        payload = msgspec.Raw(msgspec.json.encode({"lost": reason}))
        one = encode_message(
            NewMessage(kind=LOST, json=payload), time_ms=info.updated_ms, producer=None, limits=DEFAULT_LIMITS
        )
        for start in range(first, last + 1, LOST_CHUNK_MESSAGES):
            end = min(start + LOST_CHUNK_MESSAGES - 1, last)
            yield Batch(Seq(start), Seq(end), join_encoded([one] * (end - start + 1)), b""), True


def _dense(places: list[Place], after: Seq, head: Seq) -> Iterator[Place]:
    """Chunks in order, each behind the one before; of two that overlap, the longer."""
    at = after
    for place in sorted(places, key=lambda place: (place.first, -place.last)):
        if place.first > at and place.last <= head:
            yield place
            at = place.last
