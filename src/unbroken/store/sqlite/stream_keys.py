"""The keys of streams as they lie in the database: found, made, destroyed, wrapped again.

Each connection has one `StreamKeys` and uses it from its own thread, inside its own transactions. It keeps nothing that a
rolled-back transaction or another process could make wrong.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, cast

from unbroken.errors import ConfigurationError, CorruptError
from unbroken.limits import Limits
from unbroken.store.queries import load_queries
from unbroken.store.sealing import Keyring, KeySource, StreamKey

if TYPE_CHECKING:
    from unbroken.store.sqlite.connection import Connection, Row, Value

__all__ = ["OWN", "StreamKeys", "begin_sealing", "check_keys"]

OWN: Final = 0
"""The stream whose key is for what is of no stream: what sessions hold. It shows which master key is the right one."""
_QUERIES: Final = load_queries("sqlite")
STEP_KEYS: Final = 500
_log: Final = logging.getLogger(__name__)


class _Database(Protocol):
    def one(self, sql: str, values: Sequence[Value] = ()) -> Row | None: ...
    def all(self, sql: str, values: Sequence[Value] = ()) -> list[Row]: ...
    def run(self, sql: str, values: Sequence[Value] = ()) -> None: ...


class StreamKeys:
    """A `KeySource` over one connection; without a `ring` nothing is sealed, and what is sealed stays so."""

    def __init__(self, db: _Database, ring: Keyring | None) -> None:
        self._db = db
        self.ring = ring

    def reading(self, stream: int) -> StreamKey | None:
        """As `KeySource`; `CorruptError` when the stream has no key, or one that does not fit."""
        if self.ring is None:
            return None
        row = self._db.one(_QUERIES["stream_key_get"], (stream,))
        if row is None:
            raise CorruptError(f"the key of stream {stream} is missing", stream=stream)
        epoch, wrapped = cast("tuple[int, bytes]", row)
        return self.ring.unwrapped(wrapped, stream, epoch)

    def writing(self, stream: int, epoch: int | None = None) -> StreamKey | None:
        """The key to seal with, made if there is none; None where nothing is sealed. Needs a write transaction.

        `epoch` is that of a stream which has no row yet.
        """
        if self.ring is None:
            return None
        row = self._db.one(_QUERIES["stream_key_get"], (stream,))
        if row is not None:
            found, wrapped = cast("tuple[int, bytes]", row)
            return self.ring.unwrapped(wrapped, stream, found)
        if epoch is None:
            row = self._db.one(_QUERIES["stream_epoch"], (stream,))
            assert row is not None, "what is written has a stream"
            epoch = cast("int", row[0])
        key, wrapped = self.ring.fresh(stream, epoch)
        self._db.run(_QUERIES["stream_key_put"], (stream, epoch, wrapped))
        return key

    def has(self, stream: int) -> bool:
        """Whether the stream has a key."""
        return self._db.one(_QUERIES["stream_key_get"], (stream,)) is not None

    def begin(self) -> None:
        """From the end of this transaction on the database can only be opened with a master key that fits."""
        self.writing(OWN, epoch=0)

    def destroy(self, stream: int) -> None:
        """From the end of this transaction on nobody can read what was sealed for the stream."""
        row = self._db.one(_QUERIES["stream_key_get"], (stream,))
        if row is not None:
            self._db.run(_QUERIES["stream_key_delete"], (stream,))
            if self.ring is not None:
                self.ring.drop(cast("bytes", row[1]))

    @property
    def blind(self) -> bool:
        """Whether there is something sealed that cannot be opened, because nobody has given a master key."""
        return self.ring is None and self._db.one(_QUERIES["stream_key_any"]) is not None

    def rewrap(self, after: int) -> tuple[int, int]:
        """Wrap the keys behind stream `after` again, a bounded number of them; the last one's stream, and how many."""
        assert self.ring is not None
        rows = cast("list[tuple[int, int, bytes]]", self._db.all(_QUERIES["stream_keys_after"], (after, STEP_KEYS)))
        for stream, epoch, wrapped in rows:
            self._db.run(_QUERIES["stream_key_put"], (stream, epoch, self.ring.rewrapped(wrapped, stream, epoch)))
        return (rows[-1][0], len(rows)) if rows else (after, 0)


def begin_sealing(connection: Connection) -> None:
    """At a start: `ConfigurationError` unless what is sealed can be opened.

    Where a master key is given and nothing is sealed yet, sealing begins: from now on it needs the key.
    """
    keys = connection.keys
    with connection.snapshot():
        named = keys.has(OWN)
        check_keys(keys, encrypted=named or keys.blind, named=named)
    if keys.ring is None or named:
        return
    with connection.transaction():
        keys.begin()
    _log.info("what is stored from now on is encrypted")


class _Keys(KeySource, Protocol):
    ring: Keyring | None


def check_keys(keys: _Keys, *, encrypted: bool, named: bool) -> None:
    """`ConfigurationError` when there is no master key for what is `encrypted`; or the wrong one, where it can be tried."""
    if encrypted and keys.ring is None:
        raise _wrong("the database is encrypted, and no key was given")
    if not named:
        return
    try:
        keys.reading(OWN)
    except CorruptError as error:
        raise _wrong(f"the encryption key is not that of this database: {error.__cause__ or error}") from None


def rewrap(path: Path, limits: Limits, ring: Keyring) -> int:
    """Wrap every key of the database with the master key that comes first, in steps; how many there were.

    Raises `ConfigurationError` where the database is not encrypted, or with another key.
    """
    from unbroken.store.sqlite.connection import Connection  # noqa: PLC0415 - which makes our own class

    connection = Connection(path, limits, full=True, ring=ring)
    try:
        with connection.snapshot():
            if not connection.keys.has(OWN):
                raise _wrong("the database is not encrypted")
            check_keys(connection.keys, encrypted=True, named=True)
        after, count, done = -1, 0, 1
        while done:
            with connection.transaction():
                after, done = connection.keys.rewrap(after)
            count += done
    finally:
        connection.close()
    return count


def _wrong(text: str) -> ConfigurationError:
    return ConfigurationError(text, setting="encryption_key_file")
