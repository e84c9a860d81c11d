"""The ballast: a file beside the database whose room is held in reserve, so that a full disk can be cleared.

Deleting needs room too: SQLite writes what it deletes to its write-ahead log first. When the disk is full the writer's thread
lets the ballast go, refuses whatever would fill the room again, and takes it back when there is enough for both.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from unbroken.errors import StoreFullError, StoreUnavailableError
from unbroken.store.base import WriteOp, grows

__all__ = ["Ballast"]

KIB = 1024
_log = logging.getLogger(__name__)


class Ballast:
    """The reserve of one database. `full` says whether the disk is, as far as this process knows."""

    def __init__(self, database: Path, size_bytes: int) -> None:
        self._directory = database.parent
        self._path = database.with_name(database.name + "-ballast")
        self._size_bytes = size_bytes
        self._held = False
        self.full = False

    def reserve(self) -> None:
        """Take the room, where there is twice as much; else say so in the log and go on without."""
        if self._size_bytes and not self.full and not self._take():
            _log.warning("%s has too little room for a reserve of %d bytes", self._directory, self._size_bytes)

    def check(self, ops: Sequence[WriteOp]) -> None:
        """Raise `StoreFullError` where the room that is left must not be used for these operations.

        Also `StoreUnavailableError` when the directory is gone or cannot be read, as everything here that looks into it does.
        """
        if self._held and not self._there():  # another process has let it go
            self._held, self.full = False, True
        if self.full and any(map(grows, ops)):
            self.check_room()

    def check_room(self) -> None:
        """Raise `StoreFullError` unless there is room again; then the reserve is taken back."""
        if not self.full:
            return
        if not self._take():
            raise StoreFullError(self._text())
        self.full = False
        _log.warning("there is room again below %s: writing goes on", self._path.name)

    def let_go(self, error: StoreFullError) -> StoreFullError:
        """A write found no room: where that is the disk's fault, use the reserve from now on. What to tell the writer."""
        if not self._size_bytes or self._free() >= self._size_bytes:
            return error  # a limit of SQLite or of the user, not the disk
        self._give_way()
        return StoreFullError(self._text())

    def pages_that_fit(self, page_bytes: int) -> int:
        """How many pages a write may change now without using all of the reserve."""
        return max(1, self._free() // 4 // page_bytes)

    def give_way(self) -> bool:
        """A start failed: whether that can be the disk's fault, and there was a reserve, which is let go now."""
        if not self._there() or self._free() >= self._size_bytes:
            return False
        self._give_way()
        return True

    def _give_way(self) -> None:
        if not self.full:
            self.full = True
            _log.error("%s; the reserve is let go, so that deleting works", self._text())
        self._held = False
        with suppress(OSError):  # gone already, or out of reach like everything else here
            self._path.unlink()

    def _text(self) -> str:
        free, wanted = self._free() // KIB, 2 * self._size_bytes // KIB
        return (
            f"the disk is full: {free} KiB are free, and writing goes on when there are {wanted}. "
            "Delete or trim streams, or free disk space"
        )

    def _free(self) -> int:
        """Bytes that the file system would still give us."""
        with self._reaching():
            found = os.statvfs(self._directory)
        return found.f_bavail * found.f_frsize

    def _there(self) -> bool:
        """Whether the file of the reserve is there, in a directory that is."""
        return self._size() is not None

    def _size(self) -> int | None:
        """How long the file of the reserve is; None when there is none."""
        with self._reaching():
            try:
                return self._path.stat().st_size
            except FileNotFoundError:
                self._directory.stat()
                return None

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        """What the file system refuses is the store's being away, and no defect."""
        try:
            yield
        except OSError as error:
            raise StoreUnavailableError(f"the directory of the database cannot be reached: {error.strerror}") from error

    def _take(self) -> bool:
        if self._size() == self._size_bytes:
            self._held = True
            return True
        if self._free() < 2 * self._size_bytes:
            return False
        try:
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                _fill(handle, self._size_bytes)
            finally:
                os.close(handle)
        except OSError:
            with suppress(OSError):
                self._path.unlink()
            return False
        self._held = True
        return True


def _fill(handle: int, size_bytes: int) -> None:
    """Give the file that many bytes of real room."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, 0, size_bytes)
        return
    block = bytes(256 * KIB)
    for start in range(0, size_bytes, len(block)):
        os.write(handle, block[: size_bytes - start])
