"""Translates between rows of the SQLite tables and the values of the store.

The order of a stream's values is that of `stream_columns` in queries.sql. Pure: no SQL runs here.
"""

from __future__ import annotations

from typing import cast

from unbroken.messages import Epoch, Seq, SessionInfo, SessionState, StreamId, StreamInfo, StreamState
from unbroken.store.entry import Entry
from unbroken.store.sqlite.connection import Row, Value

__all__ = ["advance_row", "change_row", "entry_from_row", "session_from_row", "slide_row", "stream_row"]

# fmt: off
_StreamRow = tuple[
    int, int, str, str, str, str, str, str | None, str, str, str, int, int, int, bytes,
    bytes, int, int, int | None, int | None, int | None, str | None, int, int | None,
    int | None, str | None, str | None, int | None, int, int, int, bytes, str | None, int | None,
    bytes | None,
]
# fmt: on
_SessionRow = tuple[int, str, str, str, str, str, int, int]


def entry_from_row(row: Row) -> Entry:
    """The stream in a row of `stream_columns`."""
    values = cast("_StreamRow", row)
    source = values[27]
    info = StreamInfo(
        id=StreamId(values[0]),
        epoch=Epoch(values[1]),
        tenant=values[2],
        owner=values[3],
        name=values[4],
        kind=values[5],
        content_type=values[6],
        session=values[7],
        metadata=values[8],
        state=StreamState(values[9]),
        reason=values[10],
        first=Seq(values[11]),
        head=Seq(values[12]),
        size_bytes=values[13],
        hash=values[14],
        genesis=values[15],
        created_ms=values[16],
        updated_ms=values[17],
        ended_ms=values[18],
        ttl_seconds=values[19],
        expires_ms=values[20],
        lease_producer=values[21],
        lease_epoch=values[22],
        lease_until_ms=values[23],
        lease_ms=values[33],
        cancel_requested_ms=values[24],
        cancel_requested_by=values[25],
        writer_seq=values[26],
        forked_from=None if source is None else StreamId(source),
        fork_seq=Seq(values[28]),
        deleted=bool(values[29]),
        run=values[32],
        salts=values[34] or b"",
    )
    return Entry(info, Seq(values[30]), values[31])


def stream_row(entry: Entry) -> tuple[Value, ...]:
    """The values of `stream_insert`."""
    info = entry.info
    # fmt: off
    return (
        info.id, info.epoch, info.tenant, info.owner, info.name, info.kind, info.content_type, info.session, info.metadata,
        info.state.value, info.reason, info.first, info.head, info.size_bytes, info.hash, info.genesis, info.created_ms,
        info.updated_ms, info.ended_ms, info.ttl_seconds, info.expires_ms, info.lease_producer, info.lease_epoch,
        info.lease_until_ms, info.cancel_requested_ms, info.cancel_requested_by, info.writer_seq, info.forked_from,
        info.fork_seq, int(info.deleted), entry.base_seq, entry.base_hash, info.run, info.lease_ms,
        info.salts or None,
    )
    # fmt: on


def advance_row(entry: Entry) -> tuple[Value, ...]:
    """The values of `stream_advance`."""
    return (entry.fixed.id, entry.head, entry.size_bytes, entry.hash, entry.updated_ms, entry.writer_seq)


def slide_row(entry: Entry) -> tuple[Value, ...]:
    """The values of `stream_slide`."""
    return (*advance_row(entry), entry.expires_ms)


def change_row(entry: Entry) -> tuple[Value, ...]:
    """The values of `stream_change`."""
    info = entry.info
    # fmt: off
    return (
        *slide_row(entry), info.metadata, info.state.value, info.reason, info.first, info.ended_ms, info.lease_producer,
        info.lease_epoch, info.lease_until_ms, info.cancel_requested_ms, info.cancel_requested_by, info.lease_ms,
    )
    # fmt: on


def session_from_row(row: Row) -> tuple[int, SessionInfo]:
    """A session and its place in listings."""
    row_id, tenant, owner, name, state, metadata, created_ms, updated_ms = cast("_SessionRow", row)
    return row_id, SessionInfo(
        tenant=tenant,
        owner=owner,
        name=name,
        state=SessionState(state),
        metadata=metadata,
        created_ms=created_ms,
        updated_ms=updated_ms,
    )
