"""The fault kit: a mock server, a fault proxy and a history checker, for the tests of anything that streams.

Public and documented: applications use them to test their own clients and servers. Nothing here runs in production.
"""

from unbroken.testing.history import History
from unbroken.testing.history_report import Finding, HistoryError, InconclusiveError, Report, Rule, Verdict
from unbroken.testing.mcp_http import McpFault, McpRequest, MockMcpServer
from unbroken.testing.mcp_stdio import STDIO_FAULTS, stdio_command
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
    "McpFault",
    "McpRequest",
    "MockConnection",
    "MockFault",
    "MockLog",
    "MockMcpServer",
    "MockStream",
    "MockWebSocketServer",
    "Oversized",
    "Reorder",
    "Report",
    "ResetPeer",
    "Rule",
    "STDIO_FAULTS",
    "Silence",
    "Skip",
    "Slicer",
    "SlowClose",
    "Timeout",
    "Toxic",
    "Verdict",
    "stdio_command",
]
