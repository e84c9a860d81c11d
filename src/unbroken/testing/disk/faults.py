"""The faults of a disk as values, and the record of what each of them did.

`FaultDisk` takes them; tests ask afterwards whether they bit. They never touch a file themselves.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from enum import StrEnum

__all__ = [
    "BitFlip",
    "DiskError",
    "DiskFault",
    "DiskFile",
    "DiskFull",
    "DiskHang",
    "DiskHarm",
    "DiskOperation",
    "PlantedFault",
    "SlowDisk",
    "TornWrite",
]


class DiskOperation(StrEnum):
    """What SQLite asks of a disk."""

    OPEN = "open"
    READ = "read"
    WRITE = "write"
    SYNC = "sync"
    TRUNCATE = "truncate"
    DELETE = "delete"


class DiskFile(StrEnum):
    """Which kind of file it asks it of: the database, its write-ahead log, or any other."""

    DATABASE = "database"
    LOG = "log"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class DiskError:
    """The operation fails with an I/O error and has no effect."""


@dataclass(frozen=True, slots=True)
class DiskFull:
    """There is no room: a write fails and has no effect. What needs no room goes on."""


@dataclass(frozen=True, slots=True)
class DiskHang:
    """The operation does not return until `FaultDisk.release`; then it succeeds."""


@dataclass(frozen=True, slots=True)
class SlowDisk:
    """The operation takes so much longer."""

    seconds: float


@dataclass(frozen=True, slots=True)
class TornWrite:
    """Of a write only some sectors of 512 bytes, from its beginning, get to the disk; then it fails with an I/O error."""


@dataclass(frozen=True, slots=True)
class BitFlip:
    """One bit of what is read or written is another, and nobody is told."""


DiskHarm = DiskError | DiskFull | DiskHang | SlowDisk | TornWrite | BitFlip


@dataclass(frozen=True, slots=True)
class DiskFault:
    """`harm` for the operation number `nth`, counted from 1 among those of these kinds on files of these kinds.

    `times` operations in a row are harmed; None: that one and all after it.
    """

    harm: DiskHarm
    operations: frozenset[DiskOperation] = frozenset(DiskOperation)
    files: frozenset[DiskFile] = frozenset(DiskFile)
    nth: int = 1
    times: int | None = 1

    def __post_init__(self) -> None:
        if self.nth < 1 or (self.times is not None and self.times < 1):
            raise ValueError("operations are counted from 1, and a fault bites at least once")


class PlantedFault:
    """A fault that a disk has: how many operations it could have bitten (`seen`), and how many it did (`bites`)."""

    def __init__(self, fault: DiskFault) -> None:
        self.fault = fault
        self.seen = 0
        self.bites = 0
        self.bitten = threading.Event()
        """Set at the first bite; may be waited for from any thread."""

    def meets(self, operation: DiskOperation, file: DiskFile) -> bool:
        """Count one operation; whether the fault bites it."""
        fault = self.fault
        if operation not in fault.operations or file not in fault.files or not _concerns(fault.harm, operation):
            return False
        self.seen += 1
        bites = self.seen >= fault.nth and (fault.times is None or self.seen < fault.nth + fault.times)
        if bites:
            self.bites += 1
            self.bitten.set()
        return bites


def _concerns(harm: DiskHarm, operation: DiskOperation) -> bool:
    """Whether the harm can be done to such an operation."""
    match harm:
        case DiskFull() | TornWrite():
            return operation is DiskOperation.WRITE
        case BitFlip():
            return operation in {DiskOperation.READ, DiskOperation.WRITE}
        case _:
            return True
