"""The file in which output waits for a server: an append-only sequence of checked records, and the lock around it.

`Outbox` writes and reads it, `unbroken deliver` finds what earlier runs left. It holds no credentials, knows no
network, and never gives out a record whose checksum does not match: reading ends in front of it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from unbroken.errors import CorruptError
from unbroken.messages import UNREADABLE, NewMessage
from unbroken.protocol.frames import CloseSpec

__all__ = [
    "SpillAppend",
    "SpillFile",
    "SpillHeader",
    "SpillRecord",
    "SpillTarget",
    "spill_directory",
    "spill_files",
    "spill_lock",
]

MAGIC: Final = b"UNBSPL1\n"
FRAME_BYTES: Final = 8
SUFFIX: Final = ".spill"


class SpillHeader(msgspec.Struct, frozen=True, kw_only=True, tag="header", tag_field="type"):
    """Whose output this is and where it goes. `run` is the producer's id; `started` its wall time in milliseconds."""

    run: str
    stream: str
    server: str
    session: str | None = None
    program: str = ""
    started: int = 0


class SpillAppend(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="append", tag_field="type"):
    """One append, complete: sent again it is the same append. `seq` counts a run's appends from 0."""

    seq: int
    messages: list[NewMessage] = []
    close: CloseSpec | None = None


class SpillTarget(msgspec.Struct, frozen=True, kw_only=True, tag="target", tag_field="type"):
    """From the append `base` on, the output goes to `stream`, where `base` counts as producer seq 0.

    `continues` names the stream that ended before this one; `created` says that the server has this one, so that its
    absence means that somebody deleted it.
    """

    stream: str
    base: int
    continues: str | None = None
    created: bool = False


SpillRecord = SpillHeader | SpillAppend | SpillTarget
_decoder = msgspec.json.Decoder(SpillRecord)


def spill_directory() -> Path:
    """Where spill files live: $XDG_STATE_HOME/unbroken/spill, by default below ~/.local/state."""
    state = os.environ.get("XDG_STATE_HOME") or ""
    root = Path(state) if Path(state).is_absolute() else Path.home() / ".local" / "state"
    return root / "unbroken" / "spill"


def spill_files(directory: Path) -> list[Path]:
    """What earlier runs left in `directory`, oldest first; locks of runs that left nothing are cleared away."""
    for lock in directory.glob("*.lock"):
        with contextlib.suppress(OSError), spill_lock(lock.with_suffix(SUFFIX)):
            pass
    with contextlib.suppress(FileNotFoundError):
        return sorted(directory.glob(f"*{SUFFIX}"), key=lambda path: (path.stat().st_mtime_ns, path.name))
    return []


@contextlib.contextmanager
def spill_lock(path: Path) -> Iterator[bool]:
    """Hold the right to deliver the spill file `path`; gives False when a living process has it.

    The lock is released by the kernel however its holder ends. Its file goes away with the spill file.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = path.with_suffix(".lock")
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        try:
            yield True
        finally:
            if not path.exists():
                lock.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


class SpillFile:
    """Records in the order they were added, each with length and CRC-32.

    What `add` wrote survives the death of the process, not of the machine: it is not forced to the disk. One thread
    at a time uses it.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self._size = os.fstat(descriptor).st_size
        self._first = len(MAGIC)
        self.lost_bytes = 0
        """What `open` cut off: a record half written, or everything from a damaged one on."""

    @classmethod
    def create(cls, path: Path, head: list[SpillRecord]) -> SpillFile:
        """A new file that begins with `head`, readable by this user alone."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = cls(path, os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600))
        try:
            file._write(MAGIC)
            for record in head:
                file.add(record)
        except OSError:
            file.remove()
            raise
        file._first = file._size
        return file

    @classmethod
    def open(cls, path: Path) -> SpillFile:
        """The file that a run left. What follows its last whole record is cut off.

        `CorruptError` when it is none, or has a record that is whole and of a kind that only another version knows: then
        nothing of it is changed.
        """
        file = cls(path, os.open(path, os.O_RDWR | os.O_CLOEXEC))
        if os.pread(file._descriptor, len(MAGIC), 0) != MAGIC:
            file.close()
            raise CorruptError(f"{path.name} is not a spill file")
        end = max((position for _, position in file.records()), default=file._first)
        if file._payload(end) is not None:
            file.close()
            raise CorruptError(
                f"{path.name} was written by another version: it has a record that this one does not know"
            )
        file.lost_bytes = file.size - end
        file.truncate(end)
        return file

    @property
    def size(self) -> int:
        """Its length in bytes, and the position behind its last record."""
        return self._size

    @property
    def first(self) -> int:
        """The position behind what `create` put at its head."""
        return self._first

    def add(self, record: SpillRecord | bytes) -> int:
        """Add a record (or its encoding) and give the position behind it; an `OSError` leaves the file as it was."""
        payload = record if isinstance(record, bytes) else msgspec.json.encode(record)
        self._write(len(payload).to_bytes(4, "big") + zlib.crc32(payload).to_bytes(4, "big") + payload)
        return self._size

    def read(self, position: int) -> tuple[SpillRecord, int] | None:
        """The record at `position` and the position behind it; None at the end or where the file is damaged."""
        payload = self._payload(position)
        if payload is None:
            return None
        try:
            return _decoder.decode(payload), position + FRAME_BYTES + len(payload)
        except UNREADABLE:
            return None

    def _payload(self, position: int) -> bytes | None:
        """What the record at `position` holds, where it is whole."""
        frame = os.pread(self._descriptor, FRAME_BYTES, position)
        if len(frame) < FRAME_BYTES:
            return None
        length, checksum = int.from_bytes(frame[:4], "big"), int.from_bytes(frame[4:], "big")
        if length > self._size - position - FRAME_BYTES:
            return None
        payload = os.pread(self._descriptor, length, position + FRAME_BYTES)
        return None if len(payload) < length or zlib.crc32(payload) != checksum else payload

    def records(self) -> Iterator[tuple[SpillRecord, int]]:
        """Every record from the beginning, with the position behind it."""
        position = len(MAGIC)
        while (found := self.read(position)) is not None:
            yield found
            position = found[1]

    def truncate(self, size: int) -> None:
        """Forget everything from `size` on."""
        os.ftruncate(self._descriptor, size)
        self._size = size

    def rest(self, position: int, head: list[SpillRecord]) -> SpillFile:
        """This file without what lies before `position`, begun with `head`: written anew, then put in its place."""
        fresh = SpillFile.create(self.path.with_suffix(".new"), head)
        try:
            while position < self._size:
                piece = os.pread(self._descriptor, 1 << 20, position)
                fresh._write(piece)
                position += len(piece)
            fresh.path.replace(self.path)
        except OSError:
            fresh.remove()
            raise
        fresh.path = self.path
        self.close()
        return fresh

    def close(self) -> None:
        os.close(self._descriptor)

    def remove(self) -> None:
        """Close it and delete it."""
        self.close()
        self.path.unlink(missing_ok=True)

    def _write(self, data: bytes) -> None:
        start = self._size
        try:
            view = memoryview(data)
            while view:
                count = os.pwrite(self._descriptor, view, self._size)
                self._size += count
                view = view[count:]
        except OSError:
            self.truncate(start)
            raise
