"""The fault kit: a mock server, a fault proxy and a history checker, for the tests of anything that streams.

Public and documented: applications use them to test their own clients and servers. Nothing here runs in production.
"""

from unbroken.testing.history import History
from unbroken.testing.history_report import Finding, HistoryError, InconclusiveError, Report, Rule, Verdict
from unbroken.testing.mock_connection import MockConnection
from unbroken.testing.mock_faults import (
    Abort,
    Disconnect,
    Duplicate,
    Freeze,
    Injected,
    Malformed,
    MockFault,
    Oversized,
    Reorder,
    Silence,
    Skip,
)
from unbroken.testing.mock_log import MockLog, MockStream
from unbroken.testing.mock_server import MockWebSocketServer
from unbroken.testing.proxy import FaultProxy
from unbroken.testing.toxics import (
    Applied,
    Bandwidth,
    Direction,
    HalfOpen,
    Latency,
    LimitData,
    ResetPeer,
    Slicer,
    SlowClose,
    Timeout,
    Toxic,
)

__all__ = [
    "Abort",
    "Applied",
    "Bandwidth",
    "Direction",
    "Disconnect",
    "Duplicate",
    "FaultProxy",
    "Finding",
    "Freeze",
    "HalfOpen",
    "History",
    "HistoryError",
    "InconclusiveError",
    "Injected",
    "Latency",
    "LimitData",
    "Malformed",
    "MockConnection",
    "MockFault",
    "MockLog",
    "MockStream",
    "MockWebSocketServer",
    "Oversized",
    "Reorder",
    "Report",
    "ResetPeer",
    "Rule",
    "Silence",
    "Skip",
    "Slicer",
    "SlowClose",
    "Timeout",
    "Toxic",
    "Verdict",
]
