"""Runs over WebSocket, at every speed, and from the command line: the same desk as over HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.runs.test_recovery import serving
from tests.integration.runs.test_supervised import LIMITS, all_tasks
from tests.support.speeds import LOCAL, Running, Speed, running_server
from unbroken.identity import Verb
from unbroken.messages import StreamState

pytestmark = pytest.mark.anyio


@pytest.fixture(params=list(Speed))
async def server(request: pytest.FixtureRequest) -> AsyncIterator[Running]:
    async with running_server(request.param, limits=LIMITS, catalog=all_tasks()) as running:
        yield running


async def test_a_run_is_started_answered_and_tried_again_in_frames(server: Running) -> None:
    async with server.peer() as peer:
        run = {"task": "curious", "name": "r"}
        await peer.send(type="start", id=1, run=run)
        first = await peer.receive("result", "error")
        assert (first["created"], first["stream"]["stream"], first["stream"]["run"]["name"]) == (True, "r", "curious")
        await peer.send(type="start", id=2, run=run)
        assert "created" not in await peer.receive("result", "error")
        await peer.send(type="subscribe", id=3, stream="r")
        kinds: list[str] = []
        while "input_required" not in kinds:
            kinds += [message.get("kind", "message") for message in (await peer.receive("messages"))["messages"]]
        await peer.send(type="answer", id=4, stream="r", question="question-1", response={"colour": "green"})
        refused = await peer.receive("result", "error")
        assert (refused["code"], refused["id"], refused["detail"]["field"]) == ("invalid", 4, "response")
        await peer.send(type="answer", id=4, stream="r", question="question-1", response="green")
        assert (await peer.receive("result", "error"))["id"] == 4
        while (state := (await peer.receive("state"))["stream"]["state"]) == "running":
            pass
        assert state == "completed"
        await peer.send(type="start", id=5, run={"task": "broken", "name": "b"})
        await peer.receive("result")
        async with asyncio.timeout(20):
            while not (await server.services.streams.get(LOCAL, "b", may=Verb.READ)).state.terminal:
                await asyncio.sleep(0.01)
        await peer.send(type="retry", id=6, stream="b")
        assert (await peer.receive("result", "error"))["stream"]["stream"] == "b.2"
    assert (await server.services.streams.get(LOCAL, "b", may=Verb.READ)).state is StreamState.FAILED


async def test_nobody_else_writes_to_the_stream_of_a_run_in_frames(server: Running) -> None:
    async with server.peer() as peer:
        await peer.send(type="start", id=1, run={"task": "stuck", "name": "r"})
        await peer.receive("result")
        forged = {"kind": "checkpoint", "json": {"state": 9}}
        producer = {"id": "p", "epoch": 99, "seq": 0}
        frames: list[dict[str, Any]] = [
            {"type": "append", "messages": [forged]},
            {"type": "append", "messages": [forged], "producer": producer},
            {"type": "append", "messages": [], "close": {"state": "completed"}},
            {"type": "lease", "producer": {"id": "p", "epoch": 99}, "seconds": 5},
        ]
        for number, frame in enumerate(frames, start=2):
            await peer.send(id=number, stream="r", **frame)
            refused = await peer.receive("ack", "result", "error")
            assert (refused["type"], refused.get("code"), refused.get("id")) == ("error", "transition", number), refused
        await peer.send(type="cancel", id=9, stream="r")
        assert (await peer.receive("result", "error"))["id"] == 9


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ({"type": "start", "run": {}}, "invalid"),
        ({"type": "start", "run": []}, "invalid"),
        ({"type": "start", "run": {"task": "nobody"}}, "unknown_runnable"),
        ({"type": "start", "run": {"task": "add", "arguments": {"left": []}}}, "invalid"),
        ({"type": "retry", "stream": "nobody"}, "not_found"),
        ({"type": "answer", "stream": "nobody", "question": "q", "response": 1}, "not_found"),
    ],
)
async def test_a_frame_that_makes_no_sense_is_refused_and_the_connection_stays(
    server: Running, frame: dict[str, Any], code: str
) -> None:
    async with server.peer() as peer:
        await peer.send(id=7, **frame)
        refused = await peer.receive("error", "result")
        assert (refused["type"], refused["code"], refused["id"]) == ("error", code, 7)
        await peer.send(type="start", id=8, run={"task": "add", "arguments": {"left": 1}})
        assert (await peer.receive("result", "error"))["id"] == 8


async def unbroken(url: str, *arguments: str) -> tuple[int, str, str]:
    """One command line against the server at `url`."""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "unbroken", *arguments],
        env=os.environ | {"UNBROKEN_SERVER": url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


async def test_the_command_line_starts_shows_answers_and_tries_again(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        code, out, _ = await unbroken(server.url, "tools")
        assert code == 0
        assert "add" in out
        code, out, _ = await unbroken(server.url, "start", "task", "add", "left=2", "right=3", "--json")
        assert code == 0
        name = json.loads(out)["stream"]
        code, out, _ = await unbroken(server.url, "tail", "--follow", name)
        assert code == 0
        assert '"value":5' in out.replace(" ", "")
        assert (await unbroken(server.url, "append", "plain", "--create", "--text", "x"))[0] == 0
        for flag, streams in (("--runs", [name]), ("--no-runs", ["plain"])):
            code, out, _ = await unbroken(server.url, "ls", "--json", flag)
            assert [json.loads(line)["stream"] for line in out.splitlines()] == streams
        code, out, _ = await unbroken(server.url, "start", "task", "curious", "--name", "q")
        assert code == 0
        async with asyncio.timeout(30):
            while (await unbroken(server.url, "answer", "q", '"green"'))[0] != 0:  # until it has asked
                pass
        assert (await unbroken(server.url, "start", "task", "curious", "--name", "p"))[0] == 0
        async with asyncio.timeout(30):
            while (refused := await unbroken(server.url, "answer", "p", "7"))[0] != 65:
                pass
        assert 'error[invalid]: the answer: this is not of type "string"' in refused[2]
        code, _, error = await unbroken(server.url, "answer", "q", '"red"')
        assert (code, "error[already_exists]" in error) == (1, True)
        assert (await unbroken(server.url, "start", "task", "broken", "--name", "b"))[0] == 0
        assert (await unbroken(server.url, "tail", "--follow", "b"))[0] == 3
        code, out, _ = await unbroken(server.url, "retry", "b", "--json")
        assert (code, json.loads(out)["stream"]) == (0, "b.2")
        code, _, error = await unbroken(server.url, "start", "task", "nobody")
        assert (code, "error[unknown_runnable]" in error) == (5, True)
        assert (await unbroken(server.url, "start", "task", "add", "left"))[0] == 2
        assert (await unbroken(server.url, "start", "tool", "nameless"))[0] == 2


async def test_a_worker_with_nothing_to_do_says_so_and_a_wrong_module_too(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'a.db'}"
    code, _, error = await unbroken("", "worker", "--store", store)
    assert (code, "error[configuration]" in error) == (78, True)
    code, _, error = await unbroken("", "worker", "--store", store, "--tasks", "no.such.module")
    assert (code, "cannot be imported" in error) == (78, True)
