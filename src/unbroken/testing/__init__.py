"""The fault kit: mock servers, a fault proxy, a faulty disk, simulated time and network, a history checker.

Public and documented: applications use them to test their own clients and servers. Nothing here runs in production, and each
name is loaded when it is first asked for (type checkers read `__init__.pyi`): pytest loads our plugin in every run.
"""

from __future__ import annotations

from importlib import import_module

__all__ = [
    "Abort",
    "Applied",
    "Bandwidth",
    "BitFlip",
    "CallFails",
    "CallHangs",
    "CallLate",
    "CallUnknown",
    "Direction",
    "Disconnect",
    "DiskError",
    "DiskFault",
    "DiskFile",
    "DiskFull",
    "DiskHang",
    "DiskHarm",
    "DiskOperation",
    "DiskRecord",
    "Duplicate",
    "FaultDisk",
    "FaultProxy",
    "FaultyResolver",
    "FaultyStore",
    "Finding",
    "Freeze",
    "HalfOpen",
    "HaproxyProcess",
    "History",
    "HistoryError",
    "InconclusiveError",
    "Injected",
    "Latency",
    "LimitData",
    "Malformed",
    "McpFault",
    "McpRequest",
    "MockConnection",
    "MockFault",
    "MockLog",
    "MockMcpServer",
    "MockStream",
    "MockWebSocketServer",
    "NetworkPath",
    "NginxProcess",
    "Oversized",
    "PlantedFault",
    "PlantedStoreFault",
    "Reorder",
    "Report",
    "ResetPeer",
    "ReverseProxy",
    "Rule",
    "STDIO_FAULTS",
    "Silence",
    "SimulatedClock",
    "SimulatedNetwork",
    "Skip",
    "Slicer",
    "SlowClose",
    "SlowDisk",
    "StoreFault",
    "Sweep",
    "TestedServer",
    "Timeout",
    "TornWrite",
    "Toxic",
    "Unsynced",
    "Verdict",
    "VirtualLoop",
    "run_virtual",
    "stdio_command",
    "sweep",
]

_HOMES = {
    "unbroken.testing.disk": (
        "BitFlip",
        "CallFails",
        "CallHangs",
        "CallLate",
        "CallUnknown",
        "DiskError",
        "DiskFault",
        "DiskFile",
        "DiskFull",
        "DiskHang",
        "DiskHarm",
        "DiskOperation",
        "DiskRecord",
        "FaultDisk",
        "FaultyStore",
        "PlantedFault",
        "PlantedStoreFault",
        "SlowDisk",
        "StoreFault",
        "Sweep",
        "TornWrite",
        "Unsynced",
        "sweep",
    ),
    "unbroken.testing.simulation": (
        "NetworkPath",
        "SimulatedClock",
        "SimulatedNetwork",
        "VirtualLoop",
        "run_virtual",
    ),
    "unbroken.testing.history": ("History",),
    "unbroken.testing.history_report": (
        "Finding",
        "HistoryError",
        "InconclusiveError",
        "Report",
        "Rule",
        "Verdict",
    ),
    "unbroken.testing.mcp_http": (
        "McpFault",
        "McpRequest",
        "MockMcpServer",
    ),
    "unbroken.testing.mcp_stdio": (
        "STDIO_FAULTS",
        "stdio_command",
    ),
    "unbroken.testing.mock_connection": ("MockConnection",),
    "unbroken.testing.mock_faults": (
        "Abort",
        "Disconnect",
        "Duplicate",
        "Freeze",
        "Injected",
        "Malformed",
        "MockFault",
        "Oversized",
        "Reorder",
        "Silence",
        "Skip",
    ),
    "unbroken.testing.mock_log": (
        "MockLog",
        "MockStream",
    ),
    "unbroken.testing.mock_server": ("MockWebSocketServer",),
    "unbroken.testing.proxy": ("FaultProxy",),
    "unbroken.testing.resolver": ("FaultyResolver",),
    "unbroken.testing.reverse_proxy": ("HaproxyProcess", "NginxProcess", "ReverseProxy"),
    "unbroken.testing.server_process": ("TestedServer",),
    "unbroken.testing.toxics": (
        "Applied",
        "Bandwidth",
        "Direction",
        "HalfOpen",
        "Latency",
        "LimitData",
        "ResetPeer",
        "Slicer",
        "SlowClose",
        "Timeout",
        "Toxic",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    """Load a public name from its home when it is first asked for."""
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
