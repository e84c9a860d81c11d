"""Loss of power: what may be on the disk when it happens, rebuilt from a record of what was written and synced.

`FaultDisk` fills a `DiskRecord`, tests take images of it at any moment. `kill -9` shows nothing of this, because the
operating system's cache survives it.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from random import Random

__all__ = ["DiskRecord", "Unsynced", "sectors"]

SECTOR = 512


def sectors(offset: int, size: int) -> list[tuple[int, int]]:
    """The parts of a write that lie in one sector each, relative to its beginning."""
    return list(pairwise([0, *range(SECTOR - offset % SECTOR, size, SECTOR), size]))


class Unsynced(StrEnum):
    """What became of writes that no sync had followed: nothing of them, all, or any of their sectors."""

    DROPPED = "dropped"
    KEPT = "kept"
    TORN = "torn"


@dataclass(frozen=True, slots=True)
class _Event:
    """`data` at `offset`; a truncation where `data` is None; a sync where both are None; `gone`: the file was deleted."""

    path: Path
    offset: int | None = None
    data: bytes | None = None
    gone: bool = False


class _Content:
    """One file: what is safe on the disk (None: not even its name), and what was done since."""

    def __init__(self, safe: bytes | None) -> None:
        self.safe = None if safe is None else bytearray(safe)
        self.pending: list[_Event] = []

    def sync(self) -> None:
        self.safe = self.after(Unsynced.KEPT, None)
        self.pending = []

    def after(self, unsynced: Unsynced, random: Random | None) -> bytearray | None:
        """What there is after a loss of power now."""
        if unsynced is Unsynced.DROPPED or (self.safe is None and not self.pending):
            return None if self.safe is None else bytearray(self.safe)
        content = bytearray(self.safe or b"")
        for event in self.pending:
            assert event.offset is not None
            if event.data is None:
                if random is None or random.random() < 0.5:
                    del content[event.offset :]
                    content.extend(bytes(event.offset - len(content)))
            else:
                _write(content, event.offset, event.data, random)
        return content


def _write(content: bytearray, offset: int, data: bytes, random: Random | None) -> None:
    """Put `data` into `content`; with `random` only some of its sectors."""
    for start, end in sectors(offset, len(data)):
        if random is None or random.random() < 0.5:
            content.extend(bytes(max(0, offset + start - len(content))))
            content[offset + start : offset + end] = data[start:end]


class DiskRecord:
    """Everything that was done to files, in order; `len` is the number of operations so far.

    What a file held when it was first opened counts as safe.
    """

    def __init__(self) -> None:
        self._before: dict[Path, bytes | None] = {}
        self._events: list[_Event] = []
        self._adding = threading.Lock()

    def __len__(self) -> int:
        return len(self._events)

    def opened(self, path: Path) -> None:
        """For the disk: a file is about to be opened."""
        with self._adding:
            if path not in self._before:
                self._before[path] = path.read_bytes() if path.exists() else None

    def written(self, path: Path, offset: int, data: bytes) -> None:
        """For the disk."""
        self._add(_Event(path, offset, data))

    def synced(self, path: Path) -> None:
        """For the disk."""
        self._add(_Event(path))

    def truncated(self, path: Path, size: int) -> None:
        """For the disk."""
        self._add(_Event(path, size))

    def deleted(self, path: Path) -> None:
        """For the disk."""
        self._add(_Event(path, gone=True))

    def _add(self, event: _Event) -> None:
        with self._adding:
            self._events.append(event)

    def image(self, at: int, unsynced: Unsynced, random: Random) -> dict[Path, bytes]:
        """The files after a loss of power behind the first `at` operations."""
        files = {path: _Content(safe) for path, safe in self._before.items()}
        for event in self._events[:at]:
            content = files.setdefault(event.path, _Content(None))
            if event.gone:
                files[event.path] = _Content(None)
            elif event.offset is None:
                content.sync()
            else:
                content.pending.append(event)
        chance = random if unsynced is Unsynced.TORN else None
        found = {path: content.after(unsynced, chance) for path, content in files.items()}
        return {path: bytes(content) for path, content in found.items() if content is not None}
