"""Which files the names of a database lead to: itself, its write-ahead log and the log's shared index.

`connection` remembers them when it opens the database and asks before it writes, and before it reads, whether they are still
there. It only looks: it never opens, makes or removes a file.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

__all__ = ["OpenFiles"]

Identity = tuple[int, int]
Stamp = tuple[int, int, int]
OUT_OF_REACH: Final = (-1, -1)
"""Nobody can say what the name leads to."""
SETTLED_SECONDS: Final = 2.0
"""Two changes of a directory that are farther apart than this have different times on every file system."""


class OpenFiles:
    """The files of one open database.

    While somebody has a database open, SQLite removes none of them and makes none anew. Whoever else removes one parts those
    who have it open from those who open it later: they write past each other, or into a file that nobody finds again.
    """

    def __init__(self, path: Path) -> None:
        true = path.resolve()  # SQLite has the log beside the file, not beside a link to it
        self._database = path
        self._beside = (true.with_name(f"{true.name}-wal"), true.with_name(f"{true.name}-shm"))
        self._directory = None if path.is_symlink() else path.parent
        self._ours: dict[Path, Identity] = {}
        self._settled: Stamp | None = None
        self._seen: tuple[Stamp | None, float] = (None, 0.0)

    def remember(self) -> None:
        """The database has just been opened and read: what is there now is what is open."""
        for name in (self._database, *self._beside):
            found = _identity(name)
            if found is not None:
                self._ours.setdefault(name, found)

    def let_go(self) -> None:
        """The connection was closed; what SQLite has removed then need not be there when it is opened again."""
        for name in self._beside:
            if _identity(name) is None:
                self._ours.pop(name, None)

    def lost(self) -> str | None:
        """The name of the first file that is no longer there, or is another.

        Asked with each transaction, so it costs one look as long as nothing in the directory has got or lost a name.
        """
        stamp = self._stamp()
        if stamp is not None and stamp == self._settled:
            return None
        for name, ours in self._ours.items():
            if _identity(name) != ours:
                self._settled = None
                return name.name
        now = time.monotonic()
        if stamp != self._seen[0]:
            self._seen = (stamp, now)
        elif now - self._seen[1] > SETTLED_SECONDS:
            self._settled = stamp
        return None

    def taken(self) -> bool:
        """Whether one of the names may lead to a file of somebody else's."""
        return any(self._is_others(name) for name in self._ours)

    def parted(self) -> bool:
        """Whether somebody else may have a log of his own on this database, so that what is read may change unnoticed."""
        return self.lost() is not None and any(map(self._is_others, self._beside))

    def only_log_missing(self) -> bool:
        """Whether the log has been deleted, and nobody can have opened the database since: that would have made a new one."""
        log = self._beside[0]
        standing = _identity(self._database) == self._ours.get(self._database)
        return standing and log in self._ours and _identity(log) is None and not self.taken()

    def _is_others(self, name: Path) -> bool:
        ours = self._ours.get(name)
        return ours is not None and _identity(name) not in {None, ours}

    def _stamp(self) -> Stamp | None:
        """What changes whenever a name in the directory comes, goes or leads to another file."""
        if self._directory is None:
            return None
        try:
            found = self._directory.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino, found.st_mtime_ns


def _identity(name: Path) -> Identity | None:
    """Which file has the name; None when there is none."""
    try:
        found = name.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        return OUT_OF_REACH
    return found.st_dev, found.st_ino
