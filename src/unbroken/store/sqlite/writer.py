"""The one writer of a process: group commits, and the chores that need the write lock (giving back space, compaction).

`SQLiteStore` calls it on the writer's thread, one call at a time. It never keeps a transaction open between calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TypeVar, cast

import apsw

from unbroken.errors import (
    CorruptError,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
    TrimmedError,
    UnknownOutcomeError,
)
from unbroken.limits import Limits
from unbroken.messages import Seq, StreamId
from unbroken.store.apply import apply
from unbroken.store.base import WriteOp, WriteResult
from unbroken.store.chunks import SEQ_MASK, ChunkRow, chunk_key, decode_chunk, encode_chunk, key_seq
from unbroken.store.compaction import merge, pick
from unbroken.store.erasing import erased_batch, punctured
from unbroken.store.sqlite.ballast import Ballast
from unbroken.store.sqlite.checkpoint import PAGE_BYTES, Checkpointer
from unbroken.store.sqlite.connection import Connection
from unbroken.store.sqlite.tables import QUERIES, SQLiteTables, Witness, stored_batches

__all__ = ["Writer"]

T = TypeVar("T")
VACUUM_PAGES = 1_000
REST = 0
"""The stream that stands for what is left in the file."""
FULL_STEP_CHUNKS = 8


class Writer:
    """Writes through one connection. `foreign_writes` counts how often another process was seen to have written."""

    def __init__(self, connection: Connection, ballast: Ballast, limits: Limits, *, compress: bool) -> None:
        self._db = connection
        self._ballast = ballast
        self._limits = limits
        self._compress = compress
        self._tables = SQLiteTables(connection, limits)
        self._version = connection.data_version()
        self.foreign_writes = 0
        self.garbage = True
        """Whether there may be something for `give_back` to do."""
        self.rewrote = False
        """Whether the latest step of `scrub` has written the whole file anew, or tried to."""

    @contextmanager
    def _transaction(self) -> Iterator[SQLiteTables]:
        tables = self._tables
        try:
            with self._db.transaction():
                self._notice()
                yield tables
                tables.flush()
        except StoreFullError as error:
            tables.forget()
            told = self._ballast.let_go(error)
            self._make_room()
            raise told from error
        except BaseException:
            tables.forget()
            raise
        self.garbage = self.garbage or tables.garbage
        tables.garbage = False
        tables.shrink()
        self._make_room()

    def _make_room(self) -> None:
        """While the disk is full: empty the write-ahead log, and give what was deleted back to the file system."""
        if self._ballast.full:
            with suppress(StoreError):
                self._db.checkpoint(apsw.SQLITE_CHECKPOINT_TRUNCATE)

    def _notice(self) -> None:
        version = self._db.data_version()
        if version != self._version:
            self._version = version
            self.foreign_writes += 1
            self._tables.forget()

    def write(self, ops: Sequence[WriteOp]) -> list[WriteResult]:
        """Apply `ops` in one transaction. A commit whose outcome is unknown is looked up where that can be done."""
        self._ballast.check(ops)
        results: list[WriteResult] = []
        witness: Witness | None = None
        try:
            with self._transaction() as tables:
                results = [apply(tables, op) for op in ops]
                witness = tables.witness()
        except UnknownOutcomeError as error:
            if witness is None:
                raise
            self._look_up(witness, error)
        return results

    def _look_up(self, witness: Witness, unknown: UnknownOutcomeError) -> None:
        """Return when the commit took effect, raise `StoreUnavailableError` when it did not, `unknown` where nobody knows.

        A small write that becomes durable comes first. It takes the place of the lost commit in the write-ahead log, so that
        not even a crash can bring that back afterwards.
        """
        try:
            self._probe()
            with self._db.transaction():
                entry = self._tables.by_id(witness.stream)
                there = entry is not None and entry.head >= witness.head
                found = self._tables.hash_at(entry, witness.head) if entry is not None and there else None
        except (StoreError, TrimmedError):
            raise unknown from None
        finally:
            self._tables.forget()
        if entry is None and not witness.fresh:
            raise unknown
        if found != witness.hash:
            raise StoreUnavailableError("the commit failed and was taken back; nothing was written") from unknown

    def probe(self) -> None:
        """As `StreamingMessageRepository.probe`: SQLite writes a page only when something in it has changed."""
        self._ballast.check_room()
        self._probe()

    def _probe(self) -> None:
        with self._transaction():
            self._db.run(QUERIES["counter_probe"], ("probe",))

    def poll(self) -> int:
        """`foreign_writes` as of now; `StoreUnavailableError` when the database's files are no longer there."""
        self._db.check_files()
        self._notice()
        return self.foreign_writes

    def renew_leases(self, now_ms: int, at_least_ms: int) -> int:
        """As `StreamingMessageRepository.renew_leases`."""
        with self._transaction() as tables:
            self._db.run(QUERIES["stream_renew_leases"], (now_ms, at_least_ms))
            tables.forget()
            return self._db.changes()

    def compact(self, stream: StreamId) -> bool:
        """As `StreamingMessageRepository.compact`."""
        with self._transaction() as tables:
            row = self._db.one(QUERIES["stream_compacted"], (stream,))
            if row is None:
                return False
            after, ended = cast("tuple[Seq, int]", row)
            picked = pick(stored_batches(self._db, stream, after), self._limits, ended=bool(ended))
            if picked.settled > after:
                self._db.run(QUERIES["stream_settle"], (stream, picked.settled))
            if not picked.run:
                return False
            merged = merge(picked.run)
            bounds = (chunk_key(stream, Seq(merged.first - 1)), chunk_key(stream, merged.last))
            self._db.run(QUERIES["chunk_delete"], bounds)
            self._db.run(
                QUERIES["chunk_insert"],
                encode_chunk(stream, merged, compress=self._compress, key=self._db.keys.writing(stream)),
            )
            tables.forget_stream(stream)
            return True

    def scrub(self, checkpointer: Checkpointer, *, everything: bool = False) -> bool:
        """As `StreamingMessageRepository.scrub`: first streams, then what is left of them in the file and its log."""
        self.rewrote = False
        with self._transaction() as tables:
            if everything:
                self._db.run(QUERIES["erasure_put"], (REST, 0))
            row = self._db.one(QUERIES["erasure_next"])
            if row is None:
                return False
            self._db.overwrite(everything=True)
            stream, after = cast("tuple[StreamId, Seq]", row)
            if stream:
                self._erase_step(tables, stream, after)
                return True
        return self._overwrite(checkpointer)

    def _erase_step(self, tables: SQLiteTables, stream: StreamId, after: Seq) -> None:
        """Leave nothing of a bounded number of chunks but what the hash chain needs; behind the last one, of its keys."""
        entry = tables.by_id(stream)
        bounds = (chunk_key(stream, after), chunk_key(stream, Seq(SEQ_MASK)), self._limits.delete_step_chunks_max)
        rows = [] if entry is None else self._db.all(QUERIES["chunk_step"], bounds)
        for row in rows:
            assert entry is not None
            chunk = ChunkRow(*cast("tuple[int, int, int, int, bytes, bytes, bytes | None]", row))
            try:
                batch = erased_batch(decode_chunk(chunk, self._db.keys), entry.salts)
            except CorruptError:  # nothing can be read of it already
                self._db.run(QUERIES["chunk_delete"], (chunk.key - 1, chunk.key))
            else:
                self._db.run(QUERIES["chunk_change"], encode_chunk(stream, batch, compress=True))
        if rows:
            self._db.run(QUERIES["erasure_put"], (stream, key_seq(cast("int", rows[-1][0]))))
            return
        if entry is not None:
            kept = list(punctured(tables, entry))
            self._db.keys.destroy(stream)
            for one, salts in kept:
                tables.keep_salts(one, salts)
        self._db.run(QUERIES["erasure_drop"], (stream,))
        self._db.run(QUERIES["erasure_put"], (REST, 0))

    def _overwrite(self, checkpointer: Checkpointer) -> bool:
        """Overwrite one bounded part of what was deleted and may still be found in the file; whether there may be more."""
        if self.give_back():
            return True
        with self._transaction():
            free = cast("tuple[int]", self._db.one("PRAGMA freelist_count"))[0]
            if free:
                self._db.all(f"PRAGMA incremental_vacuum({VACUUM_PAGES})")
                return True
        pages = cast("tuple[int]", self._db.one("PRAGMA page_count"))[0]
        if pages * PAGE_BYTES <= self._limits.erase_rewrite_bytes_max:
            self.rewrote = True  # or has tried to, which costs the same
            self._db.rewrite()
        checkpointer.empty(self._db)
        with self._transaction():
            self._db.run(QUERIES["erasure_drop"], (REST,))
        self._db.overwrite(everything=False)
        return True

    def give_back(self) -> bool:
        """Delete one bounded step of what nobody needs; whether there may be more."""
        with self._transaction() as tables:
            row = self._db.one(QUERIES["garbage_next"])
            self.garbage = row is not None
            if row is None:
                return False
            stream, upto = cast("tuple[StreamId, Seq]", row)
            most, pages = self._step()
            low = chunk_key(stream, Seq(0))
            found = self._db.all(QUERIES["chunk_keys"], (low, chunk_key(stream, upto), most))
            if found:
                key, chain_hash = cast("tuple[int, bytes]", found[-1])
                self._db.run(QUERIES["chunk_delete"], (low, key))
                self._db.run(QUERIES["stream_rebase"], (stream, key_seq(key), chain_hash))
                self._db.all(f"PRAGMA incremental_vacuum({pages})")  # a page with each row
            if len(found) < most:
                self._db.run(QUERIES["garbage_drop"], (stream,))
            tables.forget_stream(stream)
            return True

    def _step(self) -> tuple[int, int]:
        """How many chunks are deleted and how many pages moved at once: on a full disk only what its reserve can bear."""
        most, pages = self._limits.delete_step_chunks_max, VACUUM_PAGES
        if self._ballast.full:
            pages = min(pages, self._ballast.pages_that_fit(PAGE_BYTES))
            most = min(most, FULL_STEP_CHUNKS)
        return most, pages

    def change(self, work: Callable[[Connection], T]) -> T:
        """Do `work`, which touches no stream, in a transaction of its own."""
        with self._transaction():
            return work(self._db)

    def copy_log(self, checkpointer: Checkpointer) -> None:
        """Help the checkpointer, which cannot keep up."""
        checkpointer.help(self._db)

    def close(self) -> None:
        self._db.close()
