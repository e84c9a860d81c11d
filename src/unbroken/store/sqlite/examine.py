"""Examines a whole database: SQLite's structure, every page's checksum, every chunk, every hash chain, every count.

`backup` and `restore` call it before they trust a file, `verify` when it is given one. It reads and never writes, and goes on
after each fault, so that what it gives is all there is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from unbroken.errors import CorruptError
from unbroken.limits import Limits
from unbroken.messages import StreamId, split_encoded
from unbroken.protocol.chain import chain
from unbroken.store.entry import Entry
from unbroken.store.sqlite.connection import Connection, InterruptedByBoundError
from unbroken.store.sqlite.rows import entry_from_row
from unbroken.store.sqlite.tables import QUERIES, stored_batches

__all__ = ["Examination", "Fault", "examine", "is_database", "look_for_damage"]

PAGE_STREAMS = 500
_log = logging.getLogger(__name__)
STRUCTURE_FAULTS_MAX = 100


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that does not verify: what, and of which stream and which messages where that can be told."""

    reason: str
    stream: str | None = None
    first: int | None = None
    last: int | None = None


@dataclass(frozen=True, slots=True)
class Examination:
    """What a database holds, and what of it does not verify."""

    streams: int
    messages: int
    faults: tuple[Fault, ...]
    blind: bool = False
    """Whether the contents are encrypted and no key was given: then checksums were looked at, and hash chains were not."""


def is_database(connection: Connection) -> bool:
    """Whether the file is one of Unbroken's databases."""
    with connection.snapshot():
        return connection.one(QUERIES["migrations_exist"]) is not None


def is_blind(connection: Connection) -> bool:
    """Whether something in it is encrypted, and there is no key; a database from before encryption has nothing."""
    applied = connection.one(QUERIES["stream_key_table"]) is not None
    return applied and connection.keys.blind


def examine(connection: Connection, told: Callable[[int], None] = lambda _streams: None) -> Examination:
    """Read everything in one snapshot; `told` is called with the number of streams examined so far."""
    faults: list[Fault] = []
    streams = messages = 0
    with connection.snapshot():
        faults += _structure(connection)
        blind = is_blind(connection)
        for entry in _entries(connection, faults):
            streams += 1
            found, fault = _stream(connection, entry, blind=blind)
            messages += found
            if fault is not None:
                faults.append(fault)
            told(streams)
    return Examination(streams, messages, tuple(faults), blind)


def look_for_damage(connection: Connection, limits: Limits) -> None:
    """At a start: look through the pages for a bounded time, and put what is found into the log.

    What is damaged stays refused to whoever reads it; the rest is served.
    """
    try:
        with connection.bounded(limits.store_check_seconds_max), connection.failing():
            found = [str(row[0]) for row in connection.all("PRAGMA quick_check(10)")]
    except InterruptedByBoundError:
        return
    except CorruptError as error:
        found = [error.message]
    if found != ["ok"]:
        _log.error(
            "the database is damaged: %s. `unbroken verify --all --store sqlite:///FILE` says where", "; ".join(found)
        )


def _structure(connection: Connection) -> Iterator[Fault]:
    try:
        with connection.failing():
            rows = connection.all(f"PRAGMA integrity_check({STRUCTURE_FAULTS_MAX})")
    except CorruptError as error:
        yield Fault(error.message)
        return
    for row in rows:
        if row != ("ok",):
            yield Fault(f"structure: {row[0]!s}")


def _entries(connection: Connection, faults: list[Fault]) -> Iterator[Entry]:
    """Every stream that can be read; one fault where a listing ends early."""
    after = 0
    while True:
        try:
            with connection.failing():
                rows = connection.all(QUERIES["streams_all"], (after, PAGE_STREAMS))
        except CorruptError as error:
            faults.append(Fault(f"the list of streams ends behind id {after}: {error.message}"))
            return
        for row in rows:
            yield entry_from_row(row, connection.keys)
        if len(rows) < PAGE_STREAMS:
            return
        after = int(rows[-1][0] or 0)


def _stream(connection: Connection, entry: Entry, *, blind: bool) -> tuple[int, Fault | None]:
    """How many messages of its own the stream has that verify, and its first fault."""
    info = entry.info
    last, value = entry.base_seq, entry.base_hash

    def fault(reason: str, upto: int) -> tuple[int, Fault]:
        return last - entry.base_seq, Fault(reason, info.name, last + 1, upto)

    try:
        with connection.failing():
            for batch in stored_batches(connection, StreamId(info.id), entry.base_seq, sealed=blind):
                if batch.first != last + 1 or batch.last > info.head:
                    return fault("messages are missing, or are there that should not be", info.head)
                value = batch.hash if blind else chain(value, batch.first, split_encoded(batch.body), entry.salts)
                if value != batch.hash:
                    return fault("the hash chain does not hold", batch.last)
                last = batch.last
    except CorruptError as error:
        return fault(error.message, info.head)
    if last != info.head or value != info.hash:
        return fault("the stream's head is not what its messages lead to", info.head)
    return last - entry.base_seq, None
