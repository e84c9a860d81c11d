"""Headers that a helper of the operator gives: asked for once, once more when they are refused, and never in a storm."""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.integration.mcp.calls import LIMITS, Calls, calls_of, http
from tests.support.inprocess import served
from unbroken.mcp.config import HttpServer, ServerConfig
from unbroken.mcp.source import McpServer
from unbroken.runs.catalog import Catalog
from unbroken.runs.environment import SECRETS
from unbroken.testing.mcp_http import MockMcpServer

pytestmark = [pytest.mark.anyio, pytest.mark.scenario("TC-EDGE-015")]


@dataclass
class Helper:
    """A program that prints the token of a file, and leaves a mark each time."""

    directory: Path

    @property
    def code(self) -> str:
        token, marks = str(self.directory / "token"), str(self.directory / "marks")
        return (
            "import json, os\n"
            f"open({marks!r}, 'a').write(os.environ['MCP_SERVER_NAME'] + '\\n')\n"
            f"token = open({token!r}).read()\n"
            "print(json.dumps({'Authorization': 'Bearer ' + token, 'Host': 'nowhere'}))\n"
        )

    def config(self, mock: MockMcpServer, *, shell: bool = False) -> ServerConfig:
        command = (sys.executable, "-c", self.code)
        command = ("/bin/sh", "-c", shlex.join(command)) if shell else command
        return with_helper(mock, *command)

    def gives(self, token: str) -> None:
        (self.directory / "token").write_text(token)

    @property
    def runs(self) -> int:
        marks = self.directory / "marks"
        return len(marks.read_text().split()) if marks.exists() else 0


@pytest.fixture
def helper(tmp_path: Path) -> Helper:
    return Helper(tmp_path)


def with_helper(mock: MockMcpServer, *command: str) -> ServerConfig:
    reach = HttpServer(url=mock.url, headers={"authorization": "Bearer old", "X-Key": "kept"}, helper=command)
    return ServerConfig(name="s", reach=reach)


def refused(mock: MockMcpServer) -> list[str]:
    return [one.rpc for one in mock.requests if one.headers.get("authorization") != f"Bearer {mock.token}"]


@pytest.mark.parametrize("shell", [False, True])
@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_it_is_asked_once_and_once_more_when_its_headers_have_expired(
    helper: Helper, era: str, shell: bool
) -> None:
    async with MockMcpServer(era=era).running() as mock, calls_of(helper.config(mock, shell=shell)) as calls:
        mock.token = "first-token"
        helper.gives("first-token")
        for number in range(3):
            assert (await calls.call("faulty", f"r{number}")).text == "fine"
        assert (helper.runs, refused(mock), mock.requests[-1].headers["x-key"]) == (1, [], "kept")
        mock.requests.clear()
        mock.token = "second-token"
        helper.gives("second-token")
        assert (await calls.call("faulty", "expired")).text == "fine"
        assert (helper.runs, len(refused(mock)), mock.calls["faulty"]) == (2, 1, 4)


async def test_headers_that_expire_in_mid_session_are_renewed_for_the_call_itself(helper: Helper) -> None:
    async with MockMcpServer().running() as mock, calls_of(helper.config(mock)) as calls:
        mock.token = "first-token"
        helper.gives("first-token")
        await calls.start("steady", "waits")
        await asyncio.wait_for(mock.called.wait(), 20)
        mock.requests.clear()
        mock.token = "second-token"
        helper.gives("second-token")
        end = await calls.call("faulty", "expired")
        assert (end.text, end.kinds.count("sent")) == ("fine", 1)
        assert helper.runs == 2
        mock.release.set()
        assert (await calls.ended("waits")).text == "steady"


async def test_headers_that_are_refused_again_end_the_call_with_what_is_wanted(helper: Helper) -> None:
    limits = replace(LIMITS, mcp_retries_max=5)
    async with MockMcpServer().running() as mock, calls_of(helper.config(mock), limits) as calls:
        mock.token = "right-token"
        helper.gives("right-token")
        assert (await calls.call("faulty", "good")).text == "fine"
        for number in range(1, 4):
            mock.requests.clear()
            mock.token = "another-token"
            helper.gives(f"wrong-token-{number}")
            end = await calls.call("faulty", f"r{number}")
            assert (end.state, end.last["class"], end.last["http_status"]) == ("failed", "auth", 401)
            challenge = end.last["www_authenticate"]
            assert (challenge["scheme"], challenge["error"], challenge["scope"]) == ("Bearer", "invalid_token", "run")
            assert helper.runs == 1 + number, "once for each call"
            assert len(mock.requests) <= 4, "no storm"
            assert "retry" not in end.kinds


async def test_a_helper_that_has_nothing_new_costs_no_second_request(helper: Helper) -> None:
    async with MockMcpServer().running() as mock, calls_of(helper.config(mock)) as calls:
        mock.token = "right-token"
        helper.gives("wrong-token")
        body = {"tool": "faulty", "server": "s", "arguments": {}, "name": "r"}
        await calls.server.answer(201, "POST", "/v1/runs", json=body)
        end = await calls.ended("r")
        assert (end.state, end.last["class"]) == ("failed", "auth")
        sent = [one.rpc for one in mock.requests]
        sessions = sent.count("server/discover")
        assert sent == ["server/discover", "initialize"] * sessions, "none of them twice"
        assert helper.runs == 1 + sessions


async def test_a_helper_gets_our_environment_without_our_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (*SECRETS, "unbroken_token", "UNBROKEN_STORE", "COLOUR"):
        monkeypatch.setenv(name, "of the server")
    seen = tmp_path / "seen"
    code = f"import json, os; open({str(seen)!r}, 'w').write(json.dumps(dict(os.environ))); print('{{}}')"
    async with MockMcpServer().running() as mock, calls_of(with_helper(mock, sys.executable, "-c", code)) as calls:
        assert (await calls.call("faulty")).text == "fine"
    names = set(json.loads(seen.read_text()))
    assert {"COLOUR", "PATH", "MCP_SERVER_NAME", "MCP_SERVER_URL"} <= names
    assert [name for name in names if name.upper().startswith("UNBROKEN_")] == []


async def test_many_calls_whose_headers_expire_at_once_ask_once(helper: Helper) -> None:
    async with MockMcpServer().running() as mock, calls_of(helper.config(mock)) as calls:
        mock.token = "first-token"
        helper.gives("first-token")
        assert (await calls.call("faulty", "warm")).text == "fine"
        mock.requests.clear()
        mock.token = "second-token"
        helper.gives("second-token")
        for number in range(12):
            await calls.start("faulty", f"r{number}")
        for number in range(12):
            assert (await calls.ended(f"r{number}")).text == "fine"
        assert helper.runs == 2
        assert len(refused(mock)) <= 12


FAULTS = {
    "not there": (("no-such-helper",), "cannot be started: No such file or directory"),
    "fails": ((sys.executable, "-c", "raise SystemExit('planted-token')"), "failed (exit code 1)"),
    "hangs": ((sys.executable, "-c", "import time; time.sleep(600)"), "took more than 2 s"),
    "floods": ((sys.executable, "-c", "while True: print('x' * 1000)"), "printed more than 65536 bytes"),
    "no JSON": ((sys.executable, "-c", "print('planted-token')"), "did not print a JSON object of texts"),
    "no header": ((sys.executable, "-c", r"print('{\"A\": \"b\\nc\"}')"), "printed a header that HTTP does not allow"),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_helper_that_fails_ends_the_call_before_anything_is_sent(
    fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    command, words = FAULTS[fault]
    limits = replace(LIMITS, mcp_headers_seconds=2.0, mcp_view_seconds=20.0)
    async with MockMcpServer().running() as mock, calls_of(with_helper(mock, *command), limits) as calls:
        end = await calls.call("faulty")
        assert (end.state, end.last["class"]) == ("failed", "auth")
        assert end.last["error"] == f"the headers helper {words}"
        assert mock.requests == []
        assert "planted" not in json.dumps(end.messages) + caplog.text


async def test_an_application_gives_headers_by_a_function() -> None:
    tokens = iter(["first-token", "second-token"])

    async def headers() -> Mapping[str, str]:
        return {"Authorization": f"Bearer {next(tokens)}"}

    async with MockMcpServer().running() as mock:
        mock.token = "first-token"
        source = McpServer(http(mock.url), LIMITS, headers=headers)
        async with served(limits=LIMITS, catalog=Catalog([source])) as server:
            calls = Calls(server)
            assert (await calls.call("faulty", "first")).text == "fine"
            mock.token = "second-token"
            assert (await calls.call("faulty", "second")).text == "fine"
            mock.token = "third-token"
            end = await calls.call("faulty", "third")
            assert end.last["class"] == "auth"
            assert end.last["error"] == "the headers cannot be had (RuntimeError)"
