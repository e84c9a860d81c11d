"""The disk's part of the fault kit: a disk with faults below SQLite, loss of power, sweeps, and a store with faults."""

from unbroken.testing.disk.disk import FaultDisk
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
from unbroken.testing.disk.power import DiskRecord, Unsynced
from unbroken.testing.disk.store import (
    CallFails,
    CallHangs,
    CallLate,
    CallUnknown,
    FaultyStore,
    PlantedStoreFault,
    StoreFault,
)
from unbroken.testing.disk.sweep import Sweep, sweep

__all__ = [
    "BitFlip",
    "DiskError",
    "DiskFault",
    "DiskFile",
    "DiskFull",
    "DiskHang",
    "DiskHarm",
    "DiskOperation",
    "DiskRecord",
    "CallFails",
    "FaultDisk",
    "FaultyStore",
    "CallHangs",
    "CallLate",
    "PlantedFault",
    "PlantedStoreFault",
    "SlowDisk",
    "StoreFault",
    "Sweep",
    "TornWrite",
    "CallUnknown",
    "Unsynced",
    "sweep",
]
