"""Owns how SQLite stores are opened in the contract suite, the first time and again: with their key where it runs encrypted.

Its tests, and the processes that they start, call it for every store. It knows one key, which is no secret and which every
process makes the same way, so that a file is opened again by whoever has its path.
"""

from __future__ import annotations

import base64
import os
from hashlib import sha256
from pathlib import Path
from typing import Final

import apsw

from tests.support.database import connect
from unbroken.limits import DEFAULT_LIMITS
from unbroken.messages import StreamId
from unbroken.store.keys import MasterKeys
from unbroken.store.sealing import Keyring
from unbroken.store.sqlite import SQLiteStore
from unbroken.store.sqlite.connection import Connection

__all__ = ["ENCRYPTED", "KEY_LINE", "behind", "flipped", "keyed", "keyring", "left_in_the_clear", "stored_body"]

ENCRYPTED: Final = bool(os.environ.get("UNBROKEN_TEST_ENCRYPTED"))
"""Whether every SQLite store of the suite is encrypted."""
_KEY: Final = sha256(b"the key of the contract suite, which is no secret").digest()
KEY_LINE: Final = f"unbroken-encryption-key-1:{base64.b64encode(_KEY).decode()}"


def keyed(store: SQLiteStore, *, encrypted: bool = ENCRYPTED) -> SQLiteStore:
    """The same store, which was not opened yet, with the key where that is asked for."""
    if encrypted:
        store.encrypt_with(MasterKeys.parse(KEY_LINE))
    return store


def keyring() -> Keyring | None:
    """What a connection needs to read and write as such a store does."""
    return Keyring(MasterKeys.parse(KEY_LINE)) if ENCRYPTED else None


def behind(path: Path) -> Connection:
    """A connection behind the store's back, of somebody who has the key too and keeps the checksums of pages."""
    return Connection(path, DEFAULT_LIMITS, full=False, ring=keyring())


def flipped(body: bytes) -> bytes:
    """A stored body with one bit changed; in the clear a digit that ends it becomes another one, and it stays good JSON."""
    return body[:-3] + bytes([body[-3] ^ 1]) + body[-2:]


def stored_body(path: Path, stream: StreamId, last: int) -> bytes:
    """The body of the chunk that ends with message `last`, as it lies in the file."""
    connection = behind(path)
    try:
        row = connection.one("SELECT body FROM chunk WHERE id = ?", (stream << 32 | last,))
    finally:
        connection.close()
    assert row is not None
    assert isinstance(row[0], bytes)
    return row[0]


def left_in_the_clear(directory: Path) -> list[str]:
    """The databases below a directory that hold streams and can be opened without a key; what is damaged is passed over."""
    return [path.name for path in sorted(directory.rglob("*.db")) if _in_the_clear(path)]


def _in_the_clear(path: Path) -> bool:
    connection = connect(path)
    try:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        if "stream" not in tables or not next(connection.execute("SELECT EXISTS (SELECT 1 FROM stream)"))[0]:
            return False
        own = "SELECT EXISTS (SELECT 1 FROM stream_key WHERE stream_id = 0)"
        return "stream_key" not in tables or not next(connection.execute(own))[0]
    except apsw.Error:
        return False
    finally:
        connection.close()
