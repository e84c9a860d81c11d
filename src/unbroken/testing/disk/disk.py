"""`FaultDisk`: the disk below SQLite, with faults that bite at exactly the operation that a test names.

Tests of anything that uses SQLite through apsw put it below their connections. It passes everything on to the real files;
it never sees connections of Python's own `sqlite3`, which has an SQLite of its own.
"""

from __future__ import annotations

import threading
import time
from itertools import count
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Self

import apsw

from unbroken.testing.disk.faults import (
    BitFlip,
    DiskError,
    DiskFault,
    DiskFile,
    DiskFull,
    DiskHang,
    DiskHarm,
    DiskOperation,
    PlantedFault,
    SlowDisk,
    TornWrite,
)
from unbroken.testing.disk.power import DiskRecord, sectors

__all__ = ["FaultDisk"]

_numbers = count(1)


class FaultDisk:
    """Below every file that this process opens through apsw while the block runs.

    Close every connection before the block ends. With `syncs` False the real disk is not waited for: a fault or a recorded
    loss of power does not need it, and it is much faster. With `record` each operation is also written down there.
    `random` chooses which bit flips and where a write is torn; print its seed.

    ```
    with FaultDisk() as disk:
        fault = disk.plant(DiskFault(DiskError(), frozenset({DiskOperation.SYNC}), nth=3))
        ...                                   # the third sync fails
        assert fault.bites == 1               # else the run proves nothing
    ```
    """

    def __init__(self, *, random: Random | None = None, syncs: bool = True, record: DiskRecord | None = None) -> None:
        self.random = Random(0) if random is None else random  # noqa: S311 - chance that can be repeated
        self.record = record
        self.syncs = syncs
        self.operations = 0
        """How many operations there were so far."""
        self._faults: list[PlantedFault] = []
        self._counting = threading.Lock()
        self._released = threading.Event()
        self._vfs: _Layer | None = None

    def __enter__(self) -> Self:
        self._vfs = _Layer(self, f"faulty-{next(_numbers)}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.heal()
        if self._vfs is not None:
            self._vfs.unregister()
            self._vfs = None

    def plant(self, fault: DiskFault) -> PlantedFault:
        """From now on the disk has this fault; it counts operations from here."""
        planted = PlantedFault(fault)
        with self._counting:
            self._released = threading.Event()
            self._faults.append(planted)
        return planted

    def heal(self) -> None:
        """Take all faults away, and let what hangs go on."""
        with self._counting:
            self._faults.clear()
        self.release()

    def release(self) -> None:
        """Let what hangs go on."""
        self._released.set()

    def meet(self, operation: DiskOperation, file: DiskFile) -> DiskHarm | None:
        """For the layer: count an operation, wait or fail where a fault says so, and give the harm that is left to do."""
        with self._counting:
            self.operations += 1
            bites = [planted.fault.harm for planted in self._faults if planted.meets(operation, file)]
            released = self._released
        left: DiskHarm | None = None
        for harm in bites:
            match harm:
                case DiskHang():
                    released.wait()
                case SlowDisk(seconds):
                    time.sleep(seconds)
                case DiskError():
                    raise apsw.IOError(f"injected into a {operation} of the {file}")
                case DiskFull():
                    raise apsw.FullError(f"injected into a {operation} of the {file}")
                case _:
                    left = harm
        return left


class _Layer(apsw.VFS):
    """The layer that SQLite calls; it is the process's default as long as it is registered."""

    def __init__(self, disk: FaultDisk, name: str) -> None:
        self.disk = disk
        self.base = apsw.vfs_names()[0]
        super().__init__(name, self.base, makedefault=True)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> _File:  # noqa: N802 - SQLite's name
        file = _kind(flags[0])
        self.disk.meet(DiskOperation.OPEN, file)
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        if self.disk.record is not None and path is not None:
            self.disk.record.opened(Path(path))
        return _File(self, name, flags, file)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: FBT001, N802 - SQLite's signature
        file = DiskFile.LOG if filename.endswith("-wal") else DiskFile.OTHER
        self.disk.meet(DiskOperation.DELETE, file)
        super().xDelete(filename, syncdir)
        if self.disk.record is not None:
            self.disk.record.deleted(Path(filename))


class _File(apsw.VFSFile):
    """One open file."""

    def __init__(self, layer: _Layer, name: str | apsw.URIFilename | None, flags: list[int], file: DiskFile) -> None:
        self._disk = layer.disk
        self._file = file
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        self._record = self._disk.record if path is not None else None
        self._path = Path(path or "")
        super().__init__(layer.base, name, flags)

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802 - SQLite's name
        harm = self._disk.meet(DiskOperation.READ, self._file)
        data = super().xRead(amount, offset)
        return self._flipped(data) if isinstance(harm, BitFlip) else data

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802 - SQLite's name
        harm = self._disk.meet(DiskOperation.WRITE, self._file)
        if isinstance(harm, TornWrite):
            whole = sectors(offset, len(data))
            kept = self._disk.random.randrange(len(whole))
            for start, end in whole[:kept]:
                self._put(data[start:end], offset + start)
            raise apsw.IOError(f"a write to the {self._file} was torn after {kept} of {len(whole)} sectors")
        self._put(self._flipped(data) if isinstance(harm, BitFlip) else bytes(data), offset)

    def _put(self, data: bytes, offset: int) -> None:
        super().xWrite(data, offset)
        if self._record is not None:
            self._record.written(self._path, offset, data)

    def xSync(self, flags: int) -> None:  # noqa: N802 - SQLite's name
        self._disk.meet(DiskOperation.SYNC, self._file)
        if self._disk.syncs:
            super().xSync(flags)
        if self._record is not None:
            self._record.synced(self._path)

    def xTruncate(self, newsize: int) -> None:  # noqa: N802 - SQLite's name
        self._disk.meet(DiskOperation.TRUNCATE, self._file)
        super().xTruncate(newsize)
        if self._record is not None:
            self._record.truncated(self._path, newsize)

    def _flipped(self, data: bytes) -> bytes:
        if not data:
            return data
        changed = bytearray(data)
        changed[self._disk.random.randrange(len(changed))] ^= 1 << self._disk.random.randrange(8)
        return bytes(changed)


def _kind(flags: int) -> DiskFile:
    if flags & apsw.SQLITE_OPEN_MAIN_DB:
        return DiskFile.DATABASE
    return DiskFile.LOG if flags & apsw.SQLITE_OPEN_WAL else DiskFile.OTHER
