"""Tool calls of servers that behave, in both eras and over both transports, and what they leave in the stream."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.integration.mcp.calls import LIMITS, SERVER, Calls, calls_of, good, http, stdio
from tests.support.faulty import FaultyStore
from tests.support.server import free_port
from unbroken.mcp.config import HttpServer, ServerConfig
from unbroken.mcp.options import Options
from unbroken.store.base import WriteOp, WriteResult
from unbroken.testing.mcp_http import McpFault, MockMcpServer

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024


@asynccontextmanager
async def http_server(*arguments: str, port: int | None = None) -> AsyncIterator[int]:
    """A good server over HTTP, as a process of its own."""
    port = free_port() if port is None else port
    process = await asyncio.create_subprocess_exec(sys.executable, str(SERVER), "http", str(port), *arguments)
    try:
        async with asyncio.timeout(40):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    break
                except OSError:
                    await asyncio.sleep(0.02)
        yield port
    finally:
        process.kill()
        await process.wait()


@asynccontextmanager
async def serving(how: str, *arguments: str, options: Options | None = None) -> AsyncIterator[Calls]:
    limits = replace(LIMITS, mcp_start_seconds=30.0, mcp_connect_seconds=15.0)
    if how == "stdio":
        async with calls_of(good(*arguments, options=options), limits) as calls:
            yield calls
        return
    port = free_port()
    async with (
        http_server(*(["legacy"] if how == "legacy" else []), *arguments, port=port),
        calls_of(http(f"http://127.0.0.1:{port}/mcp", options), limits) as calls,
    ):
        yield calls


EVERYWHERE = pytest.mark.parametrize("how", ["http", "legacy", "stdio"])


@EVERYWHERE
async def test_a_call_leaves_its_progress_its_logs_and_its_result(how: str) -> None:
    async with serving(how) as calls:
        end = await calls.call("slow", steps=5, pause=0.05)
        assert end.text == "5 steps"
        assert (end.kinds[:3], end.kinds[-1]) == (["accepted", "started", "sent"], "result")
        assert end.of("progress")[-1]["progress"] == 5
        assert [one["text"] for one in end.of("log")] == [f"logged {step}" for step in range(1, 6)]
        sent = end.of("sent")[0]
        assert sent["protocol_version"] == ("2025-11-25" if how == "legacy" else "2026-07-28")
        assert (sent["server"]["name"], sent["repeatable"]) == ("good", False)
        assert sent["annotations"] == {"readOnlyHint": True, "idempotentHint": True}
        added = await calls.call("add", "sum", left=2, right=3)
        assert (added.last["structuredContent"], added.last["schema_ok"]) == ({"result": 5}, True)
        wrong = await calls.call("add", "wrong", left="two", right=3)
        assert (wrong.state, wrong.last["isError"]) == ("completed", True)
        assert json.loads(json.dumps(wrong.view["reason"])) == {"isError": True}


@EVERYWHERE
async def test_a_large_result_comes_in_parts(how: str) -> None:
    async with serving(how) as calls:
        end = await calls.call("large", megabytes=3)
        assert (end.state, end.last["isError"]) == ("completed", False)
        parts = [one["text"] for one in end.of("output")]
        assert len(parts) == end.last["output"]["parts"]
        assert json.loads("".join(parts))["content"][0]["text"] == "x" * 3 * MIB


@EVERYWHERE
async def test_a_cancelled_call_is_cancelled_at_the_server_at_once(how: str, tmp_path: Path) -> None:
    marker = tmp_path / "cancelled"
    async with serving(how) as calls:
        await calls.start("slow", "r", steps=1000, pause=0.1, marker=str(marker))
        await calls.until("r", "progress")
        begun = asyncio.get_running_loop().time()
        await calls.server.answer(202, "POST", "/v1/cancel/r", json={})
        assert (await calls.ended("r")).state == "cancelled"
        async with asyncio.timeout(10):
            while not marker.exists():
                await asyncio.sleep(0.01)
        assert asyncio.get_running_loop().time() - begun < 5


@pytest.mark.parametrize("how", ["http", "stdio"])
@pytest.mark.parametrize(
    ("response", "greeting"),
    [({"name": "Ada"}, "accept: Ada"), (None, "decline: None"), ({"action": "cancel"}, "cancel: None")],
)
async def test_a_question_waits_for_its_answer(how: str, response: Any, greeting: str) -> None:
    async with serving(how, options=Options(idle_seconds=3.0)) as calls:
        await calls.start("ask", "r")
        question = await calls.until("r", "input_required")
        assert (question["message"], question["schema"]["required"]) == ("who are you?", ["name"])
        for wrong, field in (({}, "response.name"), ({"name": 1}, "response.name"), ("Ada", "response")):
            body = {"id": question["id"], "response": wrong}
            refused = await calls.server.problem(400, "invalid", "POST", "/v1/answer/r", json=body)
            assert refused["facts"]["field"] == field
        body = {"id": question["id"], "response": response}
        await calls.server.answer(200, "POST", "/v1/answer/r", json=body)
        end = await calls.ended("r")
        assert end.text == greeting
        assert end.kinds.count("sent") == 2


async def test_a_task_is_followed_to_its_end(tmp_path: Path) -> None:
    async with serving("http", f"{tmp_path}/") as calls:
        await calls.start("job", "r", ask=True)
        assert (await calls.until("r", "task"))["taskId"]
        question = await calls.until("r", "input_required")
        body = {"id": question["id"], "response": {"name": "Ada"}}
        await calls.server.answer(200, "POST", "/v1/answer/r", json=body)
        (tmp_path / "release").touch()
        end = await calls.ended("r")
        assert json.loads(end.text) == {"action": "accept", "content": {"name": "Ada"}}
        assert end.of("progress")[0]["message"] == "thinking"


async def test_a_cancelled_task_is_cancelled_at_the_server(tmp_path: Path) -> None:
    async with serving("http", f"{tmp_path}/") as calls:
        await calls.start("job", "r")
        await calls.until("r", "task")
        await calls.until("r", "progress")
        await calls.server.answer(202, "POST", "/v1/cancel/r", json={})
        assert (await calls.ended("r")).state == "cancelled"
        assert (tmp_path / "cancelled").exists()


@pytest.mark.scenario("TC-EDGE-016")
async def test_two_hundred_calls_at_once_on_one_server() -> None:
    limits = replace(LIMITS, supervised_runs_max=256, supervised_runs_of_owner_max=256, mcp_connect_seconds=30.0)
    options = Options(max_calls=200, idle_seconds=60.0)
    async with MockMcpServer().running() as mock, calls_of(http(mock.url, options), limits) as calls:
        for number in range(200):
            await calls.start("steady", f"r{number}")
        async with asyncio.timeout(60):
            while mock.calls["steady"] < 200:
                await asyncio.sleep(0.05)
        mock.release.set()
        assert {(await calls.ended(f"r{number}")).text for number in range(200)} == {"steady"}


@pytest.mark.scenario("TC-EDGE-016")
async def test_more_calls_than_a_server_is_to_have_wait_without_timing_out() -> None:
    options = Options(max_calls=2, idle_seconds=60.0)
    async with MockMcpServer().running() as mock, calls_of(http(mock.url, options)) as calls:
        for number in range(6):
            await calls.start("steady", f"r{number}")
        async with asyncio.timeout(20):
            while mock.calls["steady"] < 2:
                await asyncio.sleep(0.01)
        await calls.until("r5", "started")
        assert mock.calls["steady"] == 2
        mock.release.set()
        assert {(await calls.ended(f"r{number}")).text for number in range(6)} == {"steady"}


@pytest.mark.scenario("TC-EDGE-016")
@pytest.mark.parametrize("fault", [McpFault.ENDLESS_BODY, McpFault.SSE_ENDLESS_EVENT])
async def test_a_hundred_megabytes_cost_bounded_memory_and_end_clearly(fault: McpFault) -> None:
    async with MockMcpServer(fault).running() as mock, calls_of(http(mock.url)) as calls:
        await calls.call("faulty", "warm-up")
        before = psutil.Process().memory_info().rss
        end = await calls.call("faulty")
        assert (end.state, end.last["class"]) == ("failed", "too_large")
        assert psutil.Process().memory_info().rss - before < 64 * MIB


@pytest.mark.scenario("TC-EDGE-014")
@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_a_version_that_we_do_not_know_is_told_with_both_sides_versions(era: str) -> None:
    limits = replace(LIMITS, mcp_retries_max=3)
    async with (
        MockMcpServer(McpFault.UNKNOWN_VERSION, era=era).running() as mock,
        calls_of(http(mock.url), limits) as calls,
    ):
        end = await calls.call("faulty")
        assert (end.state, end.last["class"]) == ("failed", "protocol_mismatch")
        assert end.last["versions"]["server"] == ["1999-01-01"]
        assert {"2025-11-25", "2026-07-28"} <= set(end.last["versions"]["client"])
        assert "1999-01-01" in end.last["error"]
        assert "2026-07-28" in end.last["error"]
        assert (end.kinds.count("retry"), end.kinds.count("sent")) == (0, 0)
        view = await calls.server.answer(200, "GET", "/v1/runnables")
        assert "1999-01-01" in view["sources"][0]["error"]


@pytest.mark.scenario("TC-EDGE-015")
@pytest.mark.parametrize("fault", [McpFault.UNAUTHORIZED_EVERYTHING, McpFault.UNAUTHORIZED, McpFault.FORBIDDEN])
async def test_a_refused_token_is_told_with_what_is_wanted_and_not_tried_again(
    fault: McpFault, caplog: pytest.LogCaptureFixture
) -> None:
    limits = replace(LIMITS, mcp_retries_max=5)
    config = http_with_secrets(MockMcpServer())
    async with MockMcpServer(fault).running() as mock, calls_of(http_with_secrets(mock), limits) as calls:
        end = await calls.call("faulty")
        assert (end.state, end.last["class"]) == ("failed", "auth")
        assert end.last["http_status"] == (403 if fault is McpFault.FORBIDDEN else 401)
        if fault is not McpFault.FORBIDDEN:
            challenge = end.last["www_authenticate"]
            assert (challenge["scheme"], challenge["error"], challenge["scope"]) == ("Bearer", "invalid_token", "run")
        assert "retry" not in end.kinds
        assert sum(request.rpc == "tools/call" for request in mock.requests) <= 1
        assert len(mock.requests) < 10, "no storm"
        view = await calls.server.answer(200, "GET", "/v1/runnables")
        everything = json.dumps([end.messages, end.view, view]) + caplog.text + repr(config)
        assert "planted" not in everything


def http_with_secrets(mock: MockMcpServer) -> ServerConfig:
    headers = {"Authorization": "Bearer planted-token", "X-Key": "planted-header"}
    return ServerConfig(name="s", reach=HttpServer(url=f"{mock.url}?key=planted-query", headers=headers))


@pytest.mark.scenario("TC-EDGE-015")
async def test_a_token_that_expires_between_calls_ends_the_next_one_and_a_good_one_works() -> None:
    async with MockMcpServer().running() as mock, calls_of(http_with_secrets(mock)) as calls:
        mock.token = "planted-token"
        assert (await calls.call("faulty", "good")).text == "fine"
        assert mock.requests[-1].headers["x-key"] == "planted-header"
        assert mock.requests[-1].path.endswith("?key=planted-query")
        mock.token = "another"
        end = await calls.call("faulty", "expired")
        assert (end.state, end.last["class"], end.last["http_status"]) == ("failed", "auth", 401)
        mock.token = "planted-token"
        assert (await calls.call("faulty", "again")).text == "fine"


@pytest.mark.scenario("TC-EDGE-015")
async def test_what_a_process_says_when_it_cannot_start_is_told_without_its_secrets() -> None:
    async with calls_of(stdio("exit at start", env={"SECRET": "planted-secret"})) as calls:
        end = await calls.call("faulty")
        assert end.state == "failed"
        assert end.last["stderr"] == "fatal: missing KEY (I was given [hidden])\n"
        view = await calls.server.answer(200, "GET", "/v1/runnables")
        assert "planted" not in json.dumps([end.messages, end.view, view])


@pytest.mark.scenario("TC-EDGE-016")
async def test_a_server_that_cannot_be_reached_is_left_alone_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unbroken.mcp.call.RETRY_SECONDS", 0.01)
    limits = replace(LIMITS, mcp_start_failures_max=3, mcp_retries_max=3, mcp_open_seconds=1.0)
    mock = MockMcpServer()
    async with mock.running():
        pass
    async with calls_of(http(mock.url), limits) as calls:
        await calls.start("faulty", "r")
        retry = await calls.until("r", "retry", 2)
        assert retry["class"] == "transport"
        end = await calls.ended("r")
        assert end.state == "failed"
        assert "CircuitOpen" in {one.get("exception") for one in end.of("retry")} | {end.last.get("exception")}
        async with mock.running():
            await asyncio.sleep(1.1)
            assert (await calls.call("faulty", "later")).text == "fine"


async def test_a_tool_that_is_not_there_is_refused_before_anything_is_started() -> None:
    async with MockMcpServer().running() as mock, calls_of(http(mock.url)) as calls:
        body = {"tool": "nothing", "server": "s", "arguments": {}}
        await calls.server.problem(404, "unknown_runnable", "POST", "/v1/runs", json=body)
        view = await calls.server.answer(200, "GET", "/v1/runnables")
        assert [one["name"] for one in view["sources"][0]["runnables"]] == ["faulty", "steady"]


async def test_a_session_for_all_calls_is_made_anew_when_the_server_has_forgotten_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("unbroken.mcp.call.RETRY_SECONDS", 0.1)
    limits = replace(LIMITS, mcp_start_seconds=30.0, mcp_connect_seconds=15.0, mcp_retries_max=2)
    port = free_port()
    config = http(f"http://127.0.0.1:{port}/mcp", Options(session="server"))
    async with calls_of(config, limits) as calls:
        async with http_server("legacy", port=port):
            assert (await calls.call("add", "first", left=1, right=1)).text == "2"
        async with http_server("legacy", port=port):
            end = await calls.call("add", "second", left=2, right=2)
            assert (end.text, end.kinds.count("sent")) == ("4", 2)


async def test_a_call_that_asks_gives_its_place_to_another(tmp_path: Path) -> None:
    options = Options(max_calls=1, idle_seconds=30.0)
    async with serving("http", options=options) as calls:
        await calls.start("ask", "r")
        question = await calls.until("r", "input_required")
        assert (await calls.call("add", "meanwhile", left=1, right=2)).text == "3"
        body = {"id": question["id"], "response": {"name": "Ada"}}
        await calls.server.answer(200, "POST", "/v1/answer/r", json=body)
        assert (await calls.ended("r")).text == "accept: Ada"
        await calls.start("ask", "cancelled")
        await calls.until("cancelled", "input_required")
        await calls.server.answer(202, "POST", "/v1/cancel/cancelled", json={})
        assert (await calls.ended("cancelled")).state == "cancelled"
        assert (await calls.call("add", "after", left=1, right=3)).text == "4"


async def test_a_process_that_dies_while_somebody_thinks_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unbroken.mcp.call.RETRY_SECONDS", 0.1)
    limits = replace(LIMITS, mcp_start_seconds=30.0, mcp_connect_seconds=15.0, mcp_retries_max=2)
    async with calls_of(good(), limits) as calls:
        await calls.start("ask", "r")
        question = await calls.until("r", "input_required")
        (child,) = [one for one in psutil.Process().children(recursive=True) if str(SERVER) in one.cmdline()]
        child.kill()
        async with asyncio.timeout(10):
            while psutil.pid_exists(child.pid):  # until we have noticed
                await asyncio.sleep(0.05)
        body = {"id": question["id"], "response": {"name": "Ada"}}
        await calls.server.answer(200, "POST", "/v1/answer/r", json=body)
        end = await calls.ended("r")
        assert (end.text, end.kinds.count("sent"), end.kinds.count("input_required")) == ("accept: Ada", 2, 1)


class StallingStore(FaultyStore):
    """Holds the write back that holds a `sent`, and all after it, until released."""

    async def write(self, ops: Sequence[WriteOp]) -> list[WriteResult]:
        if b'"sent"' in repr(ops).encode() and not self.waiting.is_set():
            self.hold()
        return await super().write(ops)


@pytest.mark.scenario("TC-EDGE-013")
@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_nothing_of_a_call_leaves_before_it_is_written_down(era: str) -> None:
    store = StallingStore(limits=LIMITS)
    async with MockMcpServer(era=era).running() as mock, calls_of(http(mock.url), store=store) as calls:
        await calls.start("faulty", "r")
        await asyncio.wait_for(store.waiting.wait(), 20)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(mock.called.wait(), 1)
        store.release()
        assert (await calls.ended("r")).text == "fine"
        assert mock.calls["faulty"] == 1


@pytest.mark.scenario("TC-EDGE-016")
async def test_a_flood_of_logs_is_kept_in_order_up_to_a_bound_and_the_rest_counted() -> None:
    async with MockMcpServer(McpFault.SSE_LOG_FLOOD).running() as mock, calls_of(http(mock.url)) as calls:
        logs = (await calls.call("faulty")).of("log")
        lines = [int(one["text"].removeprefix("line ")) for one in logs if "dropped" not in one]
        dropped = sum(one["dropped"] for one in logs if "dropped" in one)
        assert lines == sorted(lines)
        assert lines[0] == 0
        assert len(lines) + dropped == 2_000
        assert dropped > 0, "the bound was reached"


async def test_progress_is_coalesced_and_the_last_one_kept() -> None:
    async with MockMcpServer(McpFault.SSE_FLOOD).running() as mock, calls_of(http(mock.url)) as calls:
        told = [one["progress"] for one in (await calls.call("faulty")).of("progress")]
        assert told == sorted(told)
        assert told[-1] == 5_000
        assert len(told) < 2_500
