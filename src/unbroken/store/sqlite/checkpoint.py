"""Moves the write-ahead log into the database file, off the path of commits.

The writer's thread asks `wanted` after each commit, the checkpoint thread runs `step`, and `finish` when the store closes.
It never blocks readers or the writer; only when the writer is faster than it, the writer does the rest between two commits.
"""

from __future__ import annotations

import logging

import apsw

from unbroken.errors import StoreError
from unbroken.limits import Limits
from unbroken.store.sqlite.connection import Connection

__all__ = ["Checkpointer"]

PAGE_BYTES = 4096
FAR_BEYOND = 2
_log = logging.getLogger(__name__)


class Checkpointer:
    """Checkpoints through a connection of its own."""

    def __init__(self, connection: Connection, limits: Limits) -> None:
        self._db = connection
        self._pages_max = limits.store_wal_bytes // PAGE_BYTES
        self._under_way = False

    def wanted(self, pages: int) -> bool:
        """Whether to begin a step, now that the log has `pages`; one at a time."""
        if self._under_way or pages < self._pages_max:
            return False
        self._under_way = True
        return True

    def step(self) -> bool:
        """Copy what no reader still needs; True when the writer has to go on with `help`.

        The log starts over only when all of it is copied, and a writer that never rests adds to it meanwhile.
        """
        self._under_way = self._copy(self._db) > FAR_BEYOND * self._pages_max
        return self._under_way

    def help(self, connection: Connection) -> None:
        """On the writer's thread, between two commits: copy the rest, so that the next commit starts the log over."""
        self._copy(connection)
        self._under_way = False

    def _copy(self, connection: Connection) -> int:
        """Copy what can be copied; how many pages the log has. Failing costs nothing: the next time goes on."""
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
