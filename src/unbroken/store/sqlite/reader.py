"""Reads: each call is one snapshot of the database, seen through its own connection.

`SQLiteStore` calls it on a reader's thread. It never writes, and it never blocks the writer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Final, TypeVar

import msgspec

from unbroken.errors import CorruptError, NotFoundError
from unbroken.identity import Grant, Principal
from unbroken.messages import Seq, SessionInfo, StreamId, StreamInfo
from unbroken.quotas import ROW_BYTES, Usage
from unbroken.store import reading
from unbroken.store.base import Batch, Page, Read, StreamFilter
from unbroken.store.entry import Entry
from unbroken.store.listing import Range, covered, page, parse_position, parse_token, prefix_end, ranges, read_streams
from unbroken.store.sqlite.connection import Connection, Row, Value
from unbroken.store.sqlite.rows import entry_from_row, entry_without_texts, session_from_row
from unbroken.store.sqlite.tables import QUERIES, stored_batches

__all__ = ["Reader"]


T = TypeVar("T")
ALL: Final = -1
"""As a LIMIT."""


class Reader:
    """Reads through one connection; also the `Source` of what it reads."""

    def __init__(self, connection: Connection) -> None:
        self._db = connection

    def by_id(self, stream: StreamId) -> Entry | None:
        row = self._db.one(QUERIES["stream_by_id"], (stream,))
        return None if row is None else entry_from_row(row, self._db.keys)

    def stored(self, stream: StreamId, after: Seq) -> Iterator[Batch]:
        return stored_batches(self._db, stream, after)

    def _shown(self, stream: StreamId) -> Entry:
        entry = self.by_id(stream)
        if entry is None or entry.fixed.deleted:
            raise NotFoundError
        return entry

    def get(self, principal: Principal, name: str) -> StreamInfo | None:
        with self._db.snapshot():
            row = self._db.one(QUERIES["stream_by_name"], (principal.tenant, principal.subject, name))
            return None if row is None else entry_from_row(row, self._db.keys).info

    def get_by_id(self, stream: StreamId) -> StreamInfo | None:
        with self._db.snapshot():
            entry = self.by_id(stream)
        return None if entry is None else entry.info

    def heads(self, streams: Sequence[StreamId]) -> dict[StreamId, StreamInfo]:
        with self._db.snapshot():
            rows = [self._db.one(QUERIES["stream_by_id"], (stream,)) for stream in streams]
            found = [self._whatever_opens(row) for row in rows if row is not None]
        return {info.id: info for info in found if not info.deleted}

    def read(self, stream: StreamId, after: Seq, messages_max: int, bytes_max: int) -> Read:
        with _named(stream), self._db.snapshot():
            entry = self._shown(stream)
            return reading.read(self, entry, after, messages_max=messages_max, bytes_max=bytes_max)

    def hash_at(self, stream: StreamId, seq: Seq) -> bytes:
        with _named(stream), self._db.snapshot():
            return reading.hash_at(self, self._shown(stream), seq)

    def list_streams(
        self, principal: Principal, where: StreamFilter, limit: int, after: str | None
    ) -> Page[StreamInfo]:
        name, values = _listing(principal, where, limit + 1, parse_token(after))
        return page(self._streams(name, values), limit, lambda info: info.id)

    def _streams(self, name: str, values: Sequence[Value]) -> list[StreamInfo]:
        with self._db.snapshot():
            return [entry_from_row(row, self._db.keys).info for row in self._db.all(QUERIES[name], values)]

    def get_session(self, principal: Principal, name: str) -> SessionInfo | None:
        with self._db.snapshot():
            row = self._db.one(QUERIES["session_by_name"], (principal.tenant, principal.subject, name))
            return None if row is None else session_from_row(row, self._db.keys)[1]

    def usage(self, tenant: str, owner: str | None) -> Usage:
        query = QUERIES["usage_of_tenant" if owner is None else "usage_of_owner"]
        with self._db.snapshot():
            row = self._db.one(query, (tenant, ROW_BYTES) if owner is None else (tenant, ROW_BYTES, owner))
        assert row is not None
        stored, streams = row
        assert isinstance(stored, int)
        assert isinstance(streams, int)
        return Usage(stored, streams)

    def list_sessions(
        self, principal: Principal, limit: int, after: str | None, among: tuple[Grant, ...] | None
    ) -> Page[SessionInfo]:
        values: Row = (principal.tenant, principal.subject, parse_token(after), limit + 1)
        if among is not None:
            values = (*values, _encoded(ranges([grant for grant in among if grant.prefix and grant.epoch is None])))
        with self._db.snapshot():
            found = self._db.all(QUERIES["sessions_by_owner" if among is None else "sessions_among"], values)
            rows = [session_from_row(row, self._db.keys) for row in found]
        sessions = page(rows, limit, lambda row: row[0])
        return Page(tuple(session for _, session in sessions.items), sessions.next)

    def read_session(
        self, principal: Principal, where: StreamFilter, bounds: tuple[int, int], after: str | None
    ) -> Page[tuple[StreamInfo, Batch]]:
        position, (messages_max, bytes_max) = parse_position(after), bounds
        with self._db.snapshot():
            rows = self._db.each(
                QUERIES["streams_of_session"], (principal.tenant, principal.subject, where.session, position[0])
            )
            entries = (entry_from_row(row, self._db.keys) for row in rows)
            entries = (entry for entry in entries if covered(entry.fixed, where.among))
            return read_streams(self, entries, position, messages_max=messages_max, bytes_max=bytes_max)

    def active_runs(self, after: StreamId, limit: int) -> list[StreamInfo]:
        return self._that_open("stream_active_runs", after, limit)

    def all_streams(self, after: StreamId, limit: int) -> list[StreamInfo]:
        with self._db.snapshot():
            return [self._whatever_opens(row) for row in self._db.all(QUERIES["streams_shown"], (after, limit))]

    def leased(self, before_ms: int, limit: int) -> list[StreamInfo]:
        return self._that_open("stream_leased", before_ms, limit)

    def expired(self, now_ms: int, limit: int) -> list[StreamInfo]:
        return self._that_open("stream_expired", now_ms, limit)

    def _whatever_opens(self, row: Row) -> StreamInfo:
        """The stream in a row; where what is sealed cannot be opened, without it, so that the others of a list are told."""
        try:
            return entry_from_row(row, self._db.keys).info
        except CorruptError:
            return entry_without_texts(row).info

    def _that_open(self, query: str, bound: int, limit: int) -> list[StreamInfo]:
        """The first streams of a list; one that cannot be opened is left out: nothing can be done with it."""
        with self._db.snapshot():
            return list(islice(self._opened(self._db.each(QUERIES[query], (bound, ALL))), limit))

    def _opened(self, rows: Iterator[Row]) -> Iterator[StreamInfo]:
        for row in rows:
            with suppress(CorruptError):
                yield entry_from_row(row, self._db.keys).info

    def look(self, work: Callable[[Connection], T]) -> T:
        """Do `work`, which reads no stream, in one snapshot."""
        with self._db.snapshot():
            return work(self._db)

    def close(self) -> None:
        self._db.close()


def _encoded(names: Sequence[Range]) -> str:
    return msgspec.json.encode(names).decode()


@contextmanager
def _named(stream: StreamId) -> Iterator[None]:
    """Whatever is damaged below names at least the stream that was read."""
    try:
        yield
    except CorruptError as error:
        error.detail.setdefault("stream", stream)
        raise


def _listing(principal: Principal, where: StreamFilter, limit: int, below: int) -> tuple[str, Row]:
    """The query that serves the filter from an index, and its values."""
    values: Row = (
        principal.tenant,
        principal.subject,
        below,
        where.kind,
        None if where.state is None else where.state.value,
        None if where.active is None else int(where.active),
        None if where.run is None else int(where.run),
        limit,
    )
    if where.among is not None:
        return "streams_among", (*values, where.session, _encoded(ranges(where.among, where.prefix or "")))
    start = where.prefix or None
    end = None if start is None else prefix_end(start)
    if where.session is not None:
        return "streams_by_session", (*values, where.session, start, end)
    if start is not None:
        return "streams_by_prefix", (*values, start, end)
    return ("streams_of_runs" if where.run else "streams_by_owner"), values
