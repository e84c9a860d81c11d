"""Checksums of the database's pages: SQLite's own `cksumvfs`, which comes with the apsw package.

Every connection asks `checking_vfs` before it opens a file. A page that was changed by anything but SQLite itself is found
when it is read, whatever it holds; the chunks' own checksums stay, for they cover what moved and what another program wrote.
"""

from __future__ import annotations

import threading

import apsw
import apsw.sqlite_extra

__all__ = ["PAGE_CHECKSUM_BYTES", "checking_vfs", "page_is_sound"]

PAGE_CHECKSUM_BYTES = 8
"""How much of each page is reserved for its checksum; the number by which `cksumvfs` knows its files."""
_BASE = "unix"
_CHECKING = "cksmvfs"
_EXTENSION = "cksumvfs"
_WORDS = 2**32
_loading = threading.Lock()


def checking_vfs() -> str | None:
    """The layer that checks pages; None where it cannot be had, or where this process put a layer of its own below SQLite.

    It is for our own connections only: the process's default stays what it was, because a layer above this one would
    damage memory.
    """
    with _loading:
        names = apsw.vfs_names()
        if names[0] != _BASE:
            return None
        if _CHECKING not in names:
            if not apsw.sqlite_extra.has(_EXTENSION):
                return None
            _load()
        return _CHECKING


def _load() -> None:
    connection = apsw.Connection(":memory:")
    try:
        apsw.sqlite_extra.load(connection, _EXTENSION)
    finally:
        apsw.set_default_vfs(_BASE)
        connection.close()


def page_is_sound(page: bytes) -> bool:
    """Whether a page that ends with a checksum matches it; for those who read the file without SQLite."""
    words = memoryview(page[:-PAGE_CHECKSUM_BYTES]).cast("I")
    first = second = 0
    for left, right in zip(words[::2], words[1::2], strict=True):
        first += left + second
        second += right + first
    checksum = (first % _WORDS).to_bytes(4, "little") + (second % _WORDS).to_bytes(4, "little")
    return checksum == page[-PAGE_CHECKSUM_BYTES:]
