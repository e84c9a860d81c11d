"""Secrets of a server's configuration, told by it wherever it can: none is in a stream, a log, a listing or the database."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import pytest

from tests.integration.mcp.calls import SERVER
from tests.integration.mcp.test_recovery import followed, kinds, serving, start, text, until
from tests.support.server import ServerProcess
from unbroken import Client
from unbroken.testing.mcp_http import McpFault, MockMcpServer
from unbroken.testing.mcp_stdio import stdio_command

pytestmark = [pytest.mark.anyio, pytest.mark.scenario("TC-EDGE-015")]

SECRET = 'planted "sécret"+1/2'
HEADERS = {
    "Authorization": "Bearer planted-token",
    "X-Key": "planted-header",
    "X-User": "Basic " + base64.b64encode(b"somebody:planted-password").decode(),
}
LEAKS = [
    *("planted", "somebody:", SECRET, quote(SECRET), json.dumps(SECRET)[1:-1]),
    *(base64.b64encode(text.encode()).decode()[4:-4] for text in (f"(({SECRET}))", "somebody:planted-password")),
]


def forms(leak: str) -> list[bytes]:
    """As it stands in a database, where all JSON is escaped once more."""
    return [leak.encode(), json.dumps(leak)[1:-1].encode(), json.dumps(leak, ensure_ascii=False)[1:-1].encode()]


async def assert_nothing_leaked(server: ServerProcess, client: Client, found: list[Any]) -> None:
    shown = [[one.message for one in found], await client.state("r"), await client.runs.available()]
    stored = b"".join(path.read_bytes() for path in server.directory.glob("unbroken.db*"))
    assert b"[hidden]" in stored, "the database is where it was looked for, and the server has told its secrets"
    for place, data in {
        "stream": msgspec.json.encode(shown),
        "log": server.output.encode(),
        "database": stored,
    }.items():
        assert not [leak for leak in LEAKS if any(form in data for form in forms(leak))], place


@pytest.mark.parametrize("end", ["result", "error", "exit"])
async def test_a_process_that_tells_its_environment(tmp_path: Path, end: str) -> None:
    command, args = stdio_command("leak")
    options = {"outputFromProgress": ["faulty"]}
    entry = {"command": command, "args": args, "env": {"SECRET": SECRET, "KEY": "no"}, "unbroken": options}
    async with serving(tmp_path, entry) as (server, client):
        await start(client, "faulty", end=end)
        question = await until(client, "input_required")
        assert question["message"] == "is it [hidden]?"
        await client.runs.answer("r", question["id"], {"name": "Ada"})
        found, _ = await followed(client)
        assert {"log", "progress", "output", "sent"} <= set(kinds(found))
        said = "".join(message.text for message in found if message.kind == "output")
        assert said == "whole: [hidden] [hidden]", "one secret in one piece, and one in two"
        if end == "result":
            assert found[-1].json["structuredContent"] == {"[hidden]": found[-1].json["structuredContent"]["[hidden]"]}
            assert text(found).startswith('[hidden] "[hidden]" [hidden] ')
        elif end == "error":
            assert found[-1].json["error"] == "[hidden]"
        else:
            assert found[-1].json["stderr"] == "stderr: [hidden]\n"
        await assert_nothing_leaked(server, client, found)


async def test_a_process_that_tells_a_secret_of_digits_as_a_number(tmp_path: Path) -> None:
    command, args = stdio_command("leak")
    async with serving(tmp_path, {"command": command, "args": args, "env": {"SECRET": "48291034"}}) as (_, client):
        await start(client, "faulty", end="result")
        question = await until(client, "input_required")
        await client.runs.answer("r", question["id"], {"name": "Ada"})
        found, state = await followed(client)
        assert state == "completed"
        assert {one.json["progress"] for one in found if one.kind == "progress"} == {48291034}, "this is its number"
        others = [one.json for one in found if one.kind in {"log", "result"}]
        assert "48291034" not in str(others)
        assert "[hidden]" in found[-1].json["structuredContent"]["[hidden]"]


@pytest.mark.parametrize("fault", [McpFault.LEAK_ERROR, McpFault.LEAK_BAD_JSON])
@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_a_server_over_http_that_tells_its_headers(tmp_path: Path, fault: McpFault, era: str) -> None:
    async with MockMcpServer(fault, era=era).running() as mock:
        entry = {"type": "http", "url": f"{mock.url}?key=planted-query", "headers": HEADERS}
        async with serving(tmp_path, entry) as (server, client):
            await start(client, "faulty")
            found, state = await followed(client)
            assert (state, mock.bitten) == ("failed", 1)
            await assert_nothing_leaked(server, client, found)


async def test_a_server_over_http_that_tells_what_a_helper_gave(tmp_path: Path) -> None:
    printed = json.dumps({"Authorization": "Bearer planted-fresh", "X-More": "planted-more"})
    async with MockMcpServer(McpFault.LEAK_ERROR).running() as mock:
        entry = {"type": "http", "url": mock.url, "headersHelper": f"echo '{printed}'"}
        async with serving(tmp_path, entry) as (server, client):
            await start(client, "faulty")
            found, _ = await followed(client)
            assert mock.requests[-1].headers["x-more"] == "planted-more"
            assert mock.bitten == 1
            await assert_nothing_leaked(server, client, found)


@pytest.mark.parametrize(
    ("fault", "words"),
    [(McpFault.LEAK_QUESTION, "the state came back"), (McpFault.LEAK_TASK, "the id came back")],
)
async def test_what_the_server_wants_back_it_gets_as_it_was(tmp_path: Path, fault: McpFault, words: str) -> None:
    async with MockMcpServer(fault).running() as mock:
        entry = {"type": "http", "url": f"{mock.url}?key=planted-query", "headers": HEADERS}
        async with serving(tmp_path, entry) as (server, client):
            await start(client, "faulty")
            if fault is McpFault.LEAK_QUESTION:
                await client.runs.answer("r", (await until(client, "input_required"))["id"], {"name": "Ada"})
            found, state = await followed(client)
            assert (state, text(found)) == ("completed", words)
            await assert_nothing_leaked(server, client, found)


async def test_a_value_that_is_also_a_name_of_the_server_hinders_no_call(tmp_path: Path) -> None:
    marker = tmp_path / "calls"
    entry = {"command": sys.executable, "args": [str(SERVER), "stdio"], "env": {"A": "record", "B": "marker"}}
    async with serving(tmp_path, entry) as (_, client):
        await start(client, "record", marker=str(marker), steps=1)
        found, state = await followed(client)
        assert (state, text(found)) == ("completed", "[hidden]ed")
        assert marker.read_text() == "called\n"


async def test_what_the_operator_calls_public_is_shown(tmp_path: Path) -> None:
    command, args = stdio_command("environment")
    env = {"REPOSITORY": "a/path/to/show", "SECRET": "planted-secret"}
    entry = {"command": command, "args": args, "env": env, "unbroken": {"public": ["REPOSITORY"]}}
    async with serving(tmp_path, entry) as (_, client):
        await start(client, "faulty")
        found, _ = await followed(client)
        told = json.loads(text(found))
        assert (told["REPOSITORY"], told["SECRET"]) == ("a/path/to/show", "[hidden]")
