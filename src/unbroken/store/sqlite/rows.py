"""Translates between rows of the SQLite tables and the values of the store.

The order of a stream's values is that of `stream_columns` in queries.sql. What can say something of somebody is sealed and
opened here, where there are keys. No SQL runs here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, cast

from unbroken.messages import Epoch, Seq, SessionInfo, SessionState, StreamId, StreamInfo, StreamState
from unbroken.store.decide import ERASED_REASON
from unbroken.store.entry import Entry
from unbroken.store.sealing import KeySource, StreamKey, is_sealed
from unbroken.store.sqlite.connection import Row, Value
from unbroken.store.sqlite.stream_keys import OWN

__all__ = [
    "advance_row",
    "change_row",
    "entry_from_row",
    "entry_without_texts",
    "sealed_salts",
    "session_from_row",
    "session_row",
    "slide_row",
    "stream_row",
]

# fmt: off
_StreamRow = tuple[
    int, int, str, str, str, str, str, str | None, str, str, str, int, int, int, bytes,
    bytes, int, int, int | None, int | None, int | None, str | None, int, int | None,
    int | None, str | None, str | None, int | None, int, int, int, bytes, str | None, int | None,
    bytes | None, str | None,
]
# fmt: on
_SessionRow = tuple[int, str, str, str, str, str, int, int]
PLAIN: Final = frozenset({"{}", ERASED_REASON})
"""What says nothing of anybody, and is not sealed."""
SEALED: Final = b"sealed:"
"""How salts begin that are sealed; others begin with the seq of a message."""


def entry_from_row(row: Row, keys: KeySource) -> Entry:
    """The stream in a row of `stream_columns`. What is sealed is opened; where nobody has given a key, it stays as it is."""
    values = cast("_StreamRow", row)
    source = values[27]
    metadata, reason, run, salts = values[8], values[10], values[32], values[34] or b""
    if salts.startswith(SEALED) or any(text is not None and is_sealed(text) for text in (metadata, reason, run)):
        key = keys.reading(values[0])
        if key is not None:
            metadata, reason = key.open_text(metadata, b"metadata"), key.open_text(reason, b"reason")
            run = None if run is None else key.open_text(run, b"run")
            salts = key.open(salts.removeprefix(SEALED), b"salts") if salts.startswith(SEALED) else salts
    info = StreamInfo(
        id=StreamId(values[0]),
        epoch=Epoch(values[1]),
        tenant=values[2],
        owner=values[3],
        name=values[4],
        kind=values[5],
        content_type=values[6],
        session=values[7],
        metadata=metadata,
        state=StreamState(values[9]),
        reason=reason,
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
        run=run,
        salts=salts,
        erased=values[35],
    )
    return Entry(info, Seq(values[30]), values[31])


def entry_without_texts(row: Row) -> Entry:
    """The stream in a row whose sealed facts cannot be opened: as if it had none of them."""
    entry = entry_from_row(row, _NoKeys())
    info = replace(entry.info, metadata="{}", reason="{}", run=None, salts=b"")
    return Entry(info, entry.base_seq, entry.base_hash)


class _NoKeys:
    """A `KeySource` that leaves what is sealed as it is."""

    def reading(self, _stream: int) -> StreamKey | None:
        return None


def _sealed(text: str, what: bytes, key: StreamKey | None) -> str:
    return text if key is None or text in PLAIN else key.seal_text(text, what)


def sealed_salts(salts: bytes, key: StreamKey | None) -> bytes | None:
    """Salts as they are stored."""
    return salts or None if key is None or not salts else SEALED + key.seal(salts, b"salts")


def stream_row(entry: Entry, key: StreamKey | None = None) -> tuple[Value, ...]:
    """The values of `stream_insert`, sealed with `key`."""
    info = entry.info
    metadata, reason = _sealed(info.metadata, b"metadata", key), _sealed(info.reason, b"reason", key)
    run = None if info.run is None else _sealed(info.run, b"run", key)
    # fmt: off
    return (
        info.id, info.epoch, info.tenant, info.owner, info.name, info.kind, info.content_type, info.session, metadata,
        info.state.value, reason, info.first, info.head, info.size_bytes, info.hash, info.genesis, info.created_ms,
        info.updated_ms, info.ended_ms, info.ttl_seconds, info.expires_ms, info.lease_producer, info.lease_epoch,
        info.lease_until_ms, info.cancel_requested_ms, info.cancel_requested_by, info.writer_seq, info.forked_from,
        info.fork_seq, int(info.deleted), entry.base_seq, entry.base_hash, run, info.lease_ms,
        sealed_salts(info.salts, key), info.erased,
    )
    # fmt: on


def advance_row(entry: Entry) -> tuple[Value, ...]:
    """The values of `stream_advance`."""
    return (entry.fixed.id, entry.head, entry.size_bytes, entry.hash, entry.updated_ms, entry.writer_seq)


def slide_row(entry: Entry) -> tuple[Value, ...]:
    """The values of `stream_slide`."""
    return (*advance_row(entry), entry.expires_ms)


def change_row(entry: Entry, key: StreamKey | None = None) -> tuple[Value, ...]:
    """The values of `stream_change`, sealed with `key`."""
    info = entry.info
    metadata, reason = _sealed(info.metadata, b"metadata", key), _sealed(info.reason, b"reason", key)
    # fmt: off
    return (
        *slide_row(entry), metadata, info.state.value, reason, info.first, info.ended_ms, info.lease_producer,
        info.lease_epoch, info.lease_until_ms, info.cancel_requested_ms, info.cancel_requested_by, info.lease_ms,
    )
    # fmt: on


def session_from_row(row: Row, keys: KeySource) -> tuple[int, SessionInfo]:
    """A session and its place in listings."""
    row_id, tenant, owner, name, state, metadata, created_ms, updated_ms = cast("_SessionRow", row)
    key = keys.reading(OWN) if is_sealed(metadata) else None
    if key is not None:
        metadata = key.open_text(metadata, _of_session(tenant, owner, name))
    return row_id, SessionInfo(
        tenant=tenant,
        owner=owner,
        name=name,
        state=SessionState(state),
        metadata=metadata,
        created_ms=created_ms,
        updated_ms=updated_ms,
    )


def session_row(session: SessionInfo, key: StreamKey | None = None) -> tuple[Value, ...]:
    """The values of `session_put`, sealed with `key`."""
    metadata = _sealed(session.metadata, _of_session(session.tenant, session.owner, session.name), key)
    values = (session.tenant, session.owner, session.name, session.state.value, metadata)
    return (*values, session.created_ms, session.updated_ms)


def _of_session(tenant: str, owner: str, name: str) -> bytes:
    """Under what its metadata is sealed: each session has the same key."""
    return repr(("session", tenant, owner, name)).encode()
