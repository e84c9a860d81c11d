"""Owns the manifest of the scenario catalogue: every row that the product promises, and whether it is proven yet.

Read by test_cases.py, which holds it against the `scenario` marks of the tests, and run by the CI script to print what
is deferred. It never decides what a test does: it only says which rows must have one.
"""

from __future__ import annotations

from dataclasses import dataclass

# The number of deferred rows may only fall. Lower it in the change that proves a row.
DEFERRED_CEILING = 21


@dataclass(frozen=True, slots=True)
class Case:
    """One row: its ID, its promise, and the product's reason when no test proves it yet."""

    id: str
    promise: str
    deferred: str = ""


_ENGINES = "needs the PostgreSQL and JetStream stores; this version has SQLite and memory"
_ENTRIES = "exists, but is not yet proven on every entry"
_LOAD = "needs the load and soak commands, which this version does not have"
_BROWSER = "the built-in page is proven in Chromium, with one window on a steady network, only"
_RELEASE = "no release precedes this version"
_PUBLIC_CI = "the public CI definition has not run yet"

UNIT = (
    Case("TC-UT-001a", "the connection manager establishes a connection: handshake, version, registered and counted"),
    Case("TC-UT-001b", "a failed connection is retried with capped, jittered backoff"),
    Case("TC-UT-001c", "connections are cleaned up on clean close, reset and half-open loss"),
    Case("TC-UT-002a", "every hot query of the repository uses an index"),
    Case("TC-UT-002b", "messages are retrieved by session, in order and in pages, also with 10,000"),
    Case("TC-UT-002c", "concurrent writes are safe: contiguous, nothing lost, retries not doubled"),
    Case("TC-UT-003a", "stream state persists across restarts, from each state of the life cycle"),
    Case("TC-UT-003b", "partial streams are recovered after kill -9: readable, and resumed or interrupted"),
)

INTEGRATION = (
    Case("TC-INT-001a", "messages are persisted in real time: an independent reader sees what a viewer sees"),
    Case("TC-INT-001b", "loss of the database during streaming loses nothing and is told"),
    Case("TC-INT-002a", "active streams are recovered after a page refresh"),
    Case("TC-INT-002b", "continuity across more than 20 refreshes at random moments"),
)

END_TO_END = (
    Case("TC-E2E-001", "a stream in a real browser survives a page refresh"),
    Case("TC-E2E-002", "12 concurrent tool calls survive a reload"),
    Case("TC-E2E-003", "a task of more than 30 seconds survives reloads and a closed page"),
)

NETWORK = (
    Case("TC-EDGE-001", "a blackholed network is noticed by both sides and resumed without loss"),
    Case("TC-EDGE-002", "a flapping link makes progress and loses nothing"),
    Case("TC-EDGE-003", "a name that stops resolving is retried and followed to its new address"),
    Case("TC-EDGE-004", "a reverse proxy restarted, buffering or timing out loses nothing"),
)

DATABASE = (
    Case("TC-EDGE-005", "a hanging database gives a bounded wait, a clear error and recovery"),
    Case("TC-EDGE-006", "a full disk refuses appends clearly, loses nothing, and resumes"),
    Case("TC-EDGE-007", "another process holding the write lock costs a bounded wait and no loss"),
    Case("TC-EDGE-008", "overwritten pages are found at once and recovered with a list of what was lost"),
)

PERFORMANCE = (
    Case("TC-EDGE-009", "more than 100 concurrent streams lose nothing"),
    Case("TC-EDGE-010", "slow and stalled readers cost bounded memory"),
    Case("TC-EDGE-011", "a fraction of a CPU is slower and never wrong"),
    Case("TC-EDGE-012", "a suspended tab catches up"),
)

MCP = (
    Case("TC-EDGE-013", "an MCP server killed in mid-call is found and the call ended or retried safely"),
    Case("TC-EDGE-014", "an unknown MCP protocol version gives an error naming both versions"),
    Case("TC-EDGE-015", "failed MCP authentication gives a clear error and no retry storm"),
    Case("TC-EDGE-016", "an exhausted MCP server costs bounded time and memory"),
)

LOAD = (
    Case("LOAD-001", "100 users stream at the same time", _LOAD),
    Case("LOAD-002", "1 GB through one stream in flat memory", _LOAD),
    Case("LOAD-003", "24 hours of continuous streaming, simulated and real"),
    Case(
        "LOAD-004",
        "a database of a million messages is as fast as one of 10,000",
        "measured for SQLite by `unbroken bench --queries`; there is no PostgreSQL store yet",
    ),
    Case("STRESS-001", "no memory leak over many connect and stream cycles"),
    Case("STRESS-002", "an exhausted connection pool gives a bounded wait and a clear error"),
    Case("STRESS-003", "the growth of the hot queries' cost is reported"),
    Case("STRESS-004", "a burst is delivered in batches, in order, and a slow reader slows nobody else"),
)

SECURITY = (
    Case("SEC-001", "invalid tokens are refused on every entry"),
    Case("SEC-002", "another user's session, stream or ticket cannot be used"),
    Case("SEC-003", "rate limits hold against every bypass"),
    Case("SEC-004", "cross-origin requests are validated"),
    Case("INTEG-001", "message tampering is detected and located"),
    Case("INTEG-002", "a replayed append, ticket or connection message has no effect"),
    Case("INTEG-003", "hostile names and payloads are stored and returned as data"),
    Case("INTEG-004", "hostile streamed content executes nothing in the page"),
)

ENVIRONMENTS = (
    Case("ENV-001", "the refresh scenarios in each browser engine that can be had", _BROWSER),
    Case("ENV-002", "phone-sized touch viewports", _BROWSER),
    Case("ENV-003", "offline and back: told, still readable, catches up", _BROWSER),
    Case("ENV-004", "streams continue when the browser is closed and reopened", _BROWSER),
    Case("ENV-005", "streams continue when a browser extension is reloaded", _BROWSER),
    Case("ENV-006", "system sleep is detected and resumed from without loss"),
    Case("ENV-007", "order and display stay right across timezone and clock changes"),
    Case("ENV-008", "several windows of one stream show the same content and state", _BROWSER),
)

MIGRATIONS = (
    Case("MIG-001", "every released schema evolves to the newest with its data", _RELEASE),
    Case("MIG-002", "integrity is verified after migration and a failed check rolls back", _RELEASE),
    Case("MIG-003", "a migration killed at any step completes or refuses clearly", _RELEASE),
    Case("COMPAT-001", "the oldest supported client works with today's server", _RELEASE),
    Case("COMPAT-002", "today's client works with the oldest supported server or says why not", _RELEASE),
)

INFRASTRUCTURE = (
    Case("INFRA-001", "a public, documented MockWebSocketServer with forced faults"),
    Case("INFRA-002", "real database servers started by the tests themselves", _ENGINES),
    Case("INFRA-003", "a public, documented fault proxy"),
    Case("INFRA-004", "generated test data: sessions, streams in every state, 10,000 messages"),
    Case(
        "OBS-001",
        "performance metrics of append, commit, delivery and resume",
        "metrics exist; resume latency and OpenTelemetry are missing",
    ),
    Case(
        "OBS-002",
        "every error has a stable code and reaches logs with its stream",
        "errors have stable codes; no error tracker is connected yet",
    ),
    Case(
        "OBS-003",
        "stream health, liveness and readiness",
        "liveness and readiness exist; health by stream on the page does not",
    ),
    Case("CI-001", "the browser tests run in CI on a clean machine", _PUBLIC_CI),
    Case("CI-002", "a performance regression fails", "no benchmark is compared as a ratio yet"),
    Case("CI-003", "dependencies and code are scanned in CI", _PUBLIC_CI),
)

CASES = (
    *UNIT,
    *INTEGRATION,
    *END_TO_END,
    *NETWORK,
    *DATABASE,
    *PERFORMANCE,
    *MCP,
    *LOAD,
    *SECURITY,
    *ENVIRONMENTS,
    *MIGRATIONS,
    *INFRASTRUCTURE,
)


def main() -> None:
    """Print the deferred rows, so that a run says what it did not prove."""
    deferred = [case for case in CASES if case.deferred]
    print(f"scenarios: {len(CASES) - len(deferred)} active, {len(deferred)} deferred")
    for case in deferred:
        print(f"  deferred {case.id}: {case.promise} ({case.deferred})")


if __name__ == "__main__":
    main()
