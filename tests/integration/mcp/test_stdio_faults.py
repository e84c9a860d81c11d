"""Every way in which an MCP server in a process of its own can fail a call: the call ends with the truth, alone."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.integration.mcp.calls import LIMITS, calls_of, stdio
from unbroken.mcp.config import ServerConfig, StdioServer
from unbroken.mcp.options import Options
from unbroken.testing.mcp_stdio import STDIO_FAULTS

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024


@dataclass
class Row:
    """One fault: the state of the run, and what its last message says."""

    fault: str
    state: str
    facts: dict[str, Any] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    sent: bool = True


def lost(fault: str, **facts: Any) -> Row:
    return Row(fault, "interrupted", {"class": "transport", "may_have_run": True, **facts})


def silent(fault: str) -> Row:
    return Row(fault, "timed_out", {"limit": "idle", "seconds": 1.0})


ROWS = [
    lost("exit", error="the server's process ended (exit code 3)", stderr="out of luck\n"),
    lost("killed", error="the server's process ended (signal 9)"),
    lost("close stdout"),
    silent("frozen"),
    silent("hang"),
    silent("wrong id"),
    silent("stubborn"),
    Row("junk", "completed", {"isError": False}),
    Row("invalid utf-8", "completed", {"isError": False}),
    Row("stderr flood", "completed", {"isError": False}),
    Row("log flood", "completed", {"isError": False}),
    Row("progress", "completed", {"isError": False}),
    Row("large", "completed", {"isError": False}, arguments=("10",)),
    Row("large", "failed", {"class": "too_large"}, arguments=("17",)),
    Row("endless line", "failed", {"class": "too_large"}),
    Row("bad answer", "failed", {"class": "bad_response", "error": "the server's answer is not JSON-RPC"}),
    Row("is error", "completed", {"isError": True}),
    Row("rpc error", "failed", {"class": "server_error", "code": -32000, "error": "the database is on fire"}),
    Row("unknown version", "failed", {"class": "protocol_mismatch"}, sent=False),
    Row("slow start", "completed", {"isError": False}, arguments=("2",)),
    Row(
        "exit at start",
        "failed",
        {"class": "transport", "error": "the server's process ended (exit code 3)"},
        sent=False,
    ),
]


@pytest.mark.scenario("TC-EDGE-013")
@pytest.mark.parametrize("row", ROWS, ids=lambda row: " ".join((row.fault, *row.arguments)))
async def test_a_fault_ends_its_own_call_with_what_is_known_and_no_other(row: Row, tmp_path: Path) -> None:
    options = Options(idle_seconds=1.0) if row.state == "timed_out" else Options()
    until = tmp_path / "until"
    async with calls_of(stdio(row.fault, *row.arguments, options=options)) as calls:
        if row.sent:
            await calls.start("steady", "other", until=str(until))
            await calls.until("other", "sent")
        begun = psutil.Process().memory_info().rss
        end = await calls.call("faulty")
        assert end.state == row.state, end.last
        assert row.facts.items() <= end.last.items(), end.last
        assert ("sent" in end.kinds) is row.sent
        assert psutil.Process().memory_info().rss - begun < 200 * MIB
        until.touch()
        if row.state != "timed_out" and row.sent:
            assert (await calls.ended("other")).text == "steady"
    assert children() == [], "no process is left behind"


def children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children(recursive=True) if "mcp_stdio" in " ".join(child.cmdline())]


async def test_the_table_knows_every_fault_of_the_kit() -> None:
    elsewhere = {"none", "grandchild", "environment", "ask", "leak", "sampling"}
    assert {row.fault for row in ROWS} | elsewhere == set(STDIO_FAULTS)


async def test_a_command_that_is_not_there_is_told_at_once() -> None:
    config = ServerConfig(name="s", reach=StdioServer(command="no-such-command-anywhere"))
    async with calls_of(config) as calls:
        end = await calls.call("faulty")
        assert (end.state, end.last["class"]) == ("failed", "spawn")
        assert end.last["error"] == "the server cannot be started: No such file or directory"


async def test_a_process_takes_its_descendants_with_it() -> None:
    async with calls_of(stdio("grandchild")) as calls:
        pid = int((await calls.call("faulty")).text)
        assert psutil.pid_exists(pid)
    async with asyncio.timeout(10):
        while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            await asyncio.sleep(0.01)


async def test_processes_are_kept_warm_and_more_calls_wait_for_one(tmp_path: Path) -> None:
    until = tmp_path / "until"
    async with calls_of(stdio("none", options=Options(max_processes=2, idle_seconds=2.0))) as calls:
        for number in range(5):
            await calls.start("steady", f"r{number}", until=str(until))
        await calls.until("r0", "sent")
        await calls.until("r1", "sent")
        assert len(children()) == 2
        assert "sent" not in [one["kind"] for one in await calls.messages("r4")]
        until.touch()
        for number in range(5):
            assert (await calls.ended(f"r{number}")).text == "steady"
        assert len(children()) == 2


@pytest.mark.parametrize("options", [Options(shared=8, max_processes=1), Options(session="server")])
async def test_calls_can_use_one_process(options: Options) -> None:
    async with calls_of(stdio("progress", options=options)) as calls:
        for number in range(4):
            await calls.start("faulty", f"r{number}")
        for number in range(4):
            assert (await calls.ended(f"r{number}")).text == "fine"
        assert len(children()) == 1


async def test_a_child_gets_what_was_configured_and_nothing_else_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNBROKEN_TOKEN", "planted-token-1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted-token-2")
    async with calls_of(stdio("environment", env={"KEY": "given"})) as calls:
        environment = json.loads((await calls.call("faulty")).text)
        assert environment["KEY"] == "given"
        assert environment["PATH"] == os.environ["PATH"]
        assert set(environment) <= {"KEY", "HOME", "LOGNAME", "PATH", "SHELL", "TERM", "USER", "LC_CTYPE", "PWD"}


@pytest.mark.scenario("TC-EDGE-013")
async def test_a_cancelled_call_ends_its_process_at_once(tmp_path: Path) -> None:
    limits = replace(LIMITS, mcp_close_seconds=0.2)
    async with calls_of(stdio("hang"), limits) as calls:
        await calls.start("faulty", "r")
        await calls.until("r", "sent")
        assert len(children()) == 1
        await calls.server.answer(202, "POST", "/v1/cancel/r", json={})
        end = await calls.ended("r")
        assert (end.state, end.kinds[-1]) == ("cancelled", "cancelled")
        assert (await calls.call("steady", "next", until=sys.executable)).text == "steady"


async def test_a_question_of_the_old_protocol_is_asked_and_answered() -> None:
    async with calls_of(stdio("ask", options=Options(idle_seconds=2.0))) as calls:
        await calls.start("faulty", "r")
        question = await calls.until("r", "input_required")
        assert (question["message"], question["schema"]["type"]) == ("who are you?", "object")
        body = {"id": question["id"], "response": {"name": "Ada"}}
        await calls.server.answer(200, "POST", "/v1/answer/r", json=body)
        assert json.loads((await calls.ended("r")).text) == {"action": "accept", "content": {"name": "Ada"}}
