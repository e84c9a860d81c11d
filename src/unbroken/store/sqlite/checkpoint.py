"""Moves the write-ahead log into the database file, off the path of commits.

The writer's thread asks `wanted` after each commit, the checkpoint thread runs `step`, and `finish` when the store closes.
It never blocks readers, and the writer only when that has run far ahead of the disk.
"""

from __future__ import annotations

import logging
from threading import Lock

import apsw

from unbroken.errors import StoreError
from unbroken.limits import Limits
from unbroken.store.sqlite.connection import Connection

__all__ = ["PAGE_BYTES", "Checkpointer"]

PAGE_BYTES = 4096
FAR = 2
ENORMOUS = 8
_log = logging.getLogger(__name__)


class Checkpointer:
    """Checkpoints through a connection of its own.

    The log starts over only when all of it is copied, and a writer that never rests adds to it meanwhile. So when the log
    is far too long the writer copies the rest itself, and when it is enormous the writer waits for a slow disk first.
    """

    def __init__(self, connection: Connection, limits: Limits) -> None:
        self._db = connection
        self._pages_max = limits.store_wal_bytes // PAGE_BYTES
        self._copying = Lock()
        self._under_way = False
        self._helped = False

    def wanted(self, pages: int) -> bool:
        """Whether to begin a `step` now that the log has `pages`; one at a time."""
        wanted = not self._under_way and pages >= self._pages_max
        self._under_way |= wanted
        return wanted

    def swamped(self, pages: int) -> bool:
        """Whether the writer has to `help` at once, now that the log has `pages`."""
        swamped = not self._helped and pages >= ENORMOUS * self._pages_max
        self._helped |= swamped
        return swamped

    def step(self) -> bool:
        """On the checkpoint thread: copy what no reader still needs; True when the writer has to `help`."""
        lagging = self._copy(self._db) > FAR * self._pages_max and not self._helped
        self._helped |= lagging
        self._under_way = False
        return lagging

    def help(self, connection: Connection) -> None:
        """On the writer's thread, between two commits: copy the rest, so that the next commit starts the log over."""
        self._copy(connection)
        self._helped = False

    def empty(self, connection: Connection) -> None:
        """On the writer's thread: copy all of it and leave an empty log; `StoreUnavailableError` when others keep it."""
        with self._copying:  # SQLite refuses at once, and does not wait, where another thread is copying
            connection.checkpoint(apsw.SQLITE_CHECKPOINT_TRUNCATE)

    def _copy(self, connection: Connection) -> int:
        """Copy what can be copied; how many pages the log has. Failing costs nothing: the next time goes on."""
        with self._copying:
            try:
                return connection.checkpoint(apsw.SQLITE_CHECKPOINT_PASSIVE)
            except StoreError as error:
                busy = isinstance(error.__cause__, apsw.BusyError)  # another process is at it
                _log.log(logging.DEBUG if busy else logging.WARNING, "a checkpoint is put off: %s", error)
                return 0

    def finish(self) -> None:
        """Leave an empty log behind, unless another process is using it, and let go of the file."""
        try:
            self._db.checkpoint(apsw.SQLITE_CHECKPOINT_TRUNCATE)
        except StoreError as error:
            _log.info("the last checkpoint is left to others: %s", error)
        self._db.close()
