"""Every way in which an MCP server over HTTP can fail a call: the call ends with the truth, and no other call notices."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Any

import pytest

from tests.integration.mcp.calls import LIMITS, calls_of, http
from unbroken.mcp.options import Options
from unbroken.testing.mcp_http import McpFault, MockMcpServer

pytestmark = pytest.mark.anyio


@dataclass
class Row:
    """One fault: the state of the run, and what its last message says."""

    fault: McpFault
    state: str
    facts: dict[str, Any]
    idle: bool = False


def failed(fault: McpFault, kind: str, **facts: Any) -> Row:
    return Row(fault, "failed", {"class": kind, **facts})


def lost(fault: McpFault, **facts: Any) -> Row:
    return Row(fault, "interrupted", {"class": "transport", "may_have_run": True, **facts})


def silent(fault: McpFault) -> Row:
    return Row(fault, "timed_out", {"limit": "idle", "seconds": 1.0}, idle=True)


ROWS = [
    lost(McpFault.RESET, exception="ReadError"),
    lost(McpFault.CLOSE, exception="RemoteProtocolError"),
    lost(McpFault.SSE_CUT),
    lost(McpFault.SSE_CUT_IN_EVENT),
    lost(McpFault.TRUNCATED, exception="RemoteProtocolError"),
    lost(McpFault.GARBAGE, exception="RemoteProtocolError"),
    silent(McpFault.HANG),
    silent(McpFault.SSE_HANG),
    silent(McpFault.SSE_COMMENTS),
    failed(McpFault.UNAUTHORIZED, "auth", http_status=401),
    failed(McpFault.FORBIDDEN, "auth", http_status=403),
    failed(McpFault.NOT_FOUND, "server_error", http_status=404),
    failed(McpFault.TOO_LARGE, "too_large", http_status=413),
    failed(McpFault.RATE_LIMITED, "rate_limited", http_status=429, retry_after=7.0),
    failed(
        McpFault.RATE_LIMITED_JSON, "rate_limited", http_status=429, retry_after=7.0, code=-31029, error="slow down"
    ),
    failed(McpFault.INTERNAL, "server_error", http_status=500, may_have_run=True),
    failed(McpFault.BAD_GATEWAY, "server_error", http_status=502, may_have_run=True),
    failed(McpFault.UNAVAILABLE, "server_error", http_status=503, retry_after=7.0),
    failed(McpFault.REDIRECT_AWAY, "bad_response", http_status=307),
    failed(McpFault.LOGIN_PAGE, "bad_response", error="the server answered with text/html"),
    failed(McpFault.ACCEPTED, "bad_response", http_status=202),
    failed(McpFault.NOT_JSON, "bad_response"),
    failed(McpFault.WRONG_ID, "bad_response"),
    failed(McpFault.DEEP_JSON, "bad_response"),
    failed(McpFault.COMPRESSED, "bad_response"),
    Row(McpFault.UNKNOWN_CONTENT, "completed", {}),
    failed(McpFault.SSE_BAD_JSON, "bad_response"),
    failed(McpFault.ENDLESS_BODY, "too_large"),
    failed(McpFault.SSE_ENDLESS_EVENT, "too_large"),
    failed(McpFault.RPC_ERROR, "server_error", code=-32000, error="the database is on fire"),
    Row(McpFault.IS_ERROR, "completed", {"isError": True}),
    Row(McpFault.SSE_WRONG_ID, "completed", {"isError": False}),
    Row(McpFault.REDIRECT_HERE, "completed", {"isError": False}),
    Row(McpFault.SSE_FLOOD, "completed", {"isError": False}),
    Row(McpFault.SSE_LOG_FLOOD, "completed", {"isError": False}),
]


@pytest.mark.scenario("TC-EDGE-013")
@pytest.mark.parametrize("era", ["modern", "legacy"])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.fault.value)
async def test_a_fault_ends_its_own_call_with_what_is_known_and_no_other(row: Row, era: str) -> None:
    options = Options(idle_seconds=1.0) if row.idle else Options()
    async with MockMcpServer(row.fault, era=era).running() as mock, calls_of(http(mock.url, options)) as calls:
        if not row.idle:
            await calls.start("steady", "other")
            await asyncio.wait_for(mock.called.wait(), 20)
        end = await calls.call("faulty")
        times = 2 if row.fault is McpFault.REDIRECT_HERE else 1
        assert mock.bitten == mock.calls["faulty"] == times, "the fault must have bitten, once"
        if era == "legacy" and row.fault is McpFault.UNKNOWN_CONTENT:
            row = failed(row.fault, "bad_response")
        assert end.state == row.state, end.last
        assert row.facts.items() <= end.last.items(), end.last
        assert end.kinds[:3] == ["accepted", "started", "sent"]
        if row.idle:
            assert mock.cancelled == 1, "the server is told at once"
        else:
            mock.release.set()
            assert (await calls.ended("other")).text == "steady"
        mock.fault = McpFault.NONE
        assert (await calls.call("faulty", "after")).text == "fine"


@pytest.mark.scenario("TC-EDGE-013")
@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_a_killed_server_ends_its_calls_at_once_and_a_restarted_one_is_called_again(era: str) -> None:
    async with MockMcpServer(McpFault.SSE_HANG, era=era).running() as mock, calls_of(http(mock.url)) as calls:
        await calls.start("faulty", "r")
        await calls.until("r", "progress")
        begun = asyncio.get_running_loop().time()
        await mock.stop()
        end = await calls.ended("r")
        assert asyncio.get_running_loop().time() - begun < 10
        assert (end.state, end.last["class"], end.last["may_have_run"]) == ("interrupted", "transport", True)
        refused = await calls.call("faulty", "refused")
        assert (refused.state, refused.last["exception"]) == ("failed", "ConnectError")
        assert "may_have_run" not in refused.last
        mock.fault = McpFault.NONE
        await mock.start()
        assert (await calls.call("faulty", "again")).text == "fine"


@pytest.mark.scenario("TC-EDGE-013")
@pytest.mark.parametrize(
    ("options", "hints", "repeated"),
    [
        pytest.param(Options(trusted=True), {"readOnlyHint": True}, True, id="trusted and read-only"),
        pytest.param(Options(trusted=True), {"idempotentHint": True}, True, id="trusted and idempotent"),
        pytest.param(Options(trusted=True), {}, False, id="trusted, without a hint"),
        pytest.param(Options(), {"readOnlyHint": True}, False, id="not trusted"),
        pytest.param(Options(retry="always"), {}, True, id="always"),
        pytest.param(Options(trusted=True, retry="never"), {"readOnlyHint": True}, False, id="never"),
    ],
)
async def test_a_call_that_may_have_run_is_repeated_only_where_that_is_safe(
    options: Options, hints: dict[str, bool], repeated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unbroken.mcp.call.RETRY_SECONDS", 0.05)
    limits = replace(LIMITS, mcp_retries_max=2)
    async with (
        MockMcpServer(McpFault.SSE_CUT, hints=hints).running() as mock,
        calls_of(http(mock.url, options), limits) as calls,
    ):
        end = await calls.call("faulty")
        assert mock.calls["faulty"] == (3 if repeated else 1)
        assert (end.state, end.last["may_have_run"], end.last["repeatable"]) == ("interrupted", True, repeated)
        assert end.kinds.count("retry") == (2 if repeated else 0)


@pytest.mark.parametrize("fault", [McpFault.RATE_LIMITED_ONCE])
async def test_a_call_that_was_not_taken_is_made_again_whatever_the_tool(
    fault: McpFault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unbroken.mcp.call.RETRY_SECONDS", 0.05)
    async with (
        MockMcpServer(fault).running() as mock,
        calls_of(http(mock.url), replace(LIMITS, mcp_retries_max=2)) as calls,
    ):
        end = await calls.call("faulty")
        assert end.text == "second time"
        assert [one["class"] for one in end.of("retry")] == ["rate_limited"]


async def test_a_server_that_asks_for_time_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unbroken.mcp.call.RETRY_SECONDS", 0.05)
    limits = replace(LIMITS, mcp_retries_max=1)
    async with MockMcpServer(McpFault.UNAVAILABLE).running() as mock, calls_of(http(mock.url), limits) as calls:
        await calls.start("faulty", "r")
        assert (await calls.until("r", "retry"))["after_seconds"] == 7.0
