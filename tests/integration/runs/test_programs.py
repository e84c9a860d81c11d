"""Programs that the operator has named: their output becomes a stream, their end its end, and a cancel ends all of them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from tests.integration.runs.test_supervised import LIMITS, ended, messages, until
from tests.support.inprocess import Served, served
from unbroken.errors import ConfigurationError
from unbroken.runs.catalog import Catalog
from unbroken.runs.environment import SECRETS
from unbroken.runs.programs import Programs, ProgramSpec, load_programs

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def serving(programs: Mapping[str, ProgramSpec]) -> AsyncIterator[Served]:
    async with served(limits=LIMITS, catalog=Catalog([Programs(programs)])) as server:
        yield server


def python(code: str, **fields: Any) -> ProgramSpec:
    return ProgramSpec(command=[sys.executable, "-u", "-c", code], **fields)


async def start(server: Served, name: str) -> Any:
    return await server.answer(201, "POST", "/v1/runs", json={"program": name, "name": name})


async def test_what_it_writes_is_kept_apart_and_its_exit_code_is_the_end() -> None:
    code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"
    async with serving({"a": python(code), "b": python("print('ü' * 10)")}) as server:
        await start(server, "a")
        view = await ended(server, "a")
        assert (view["state"], view["reason"]) == ("failed", {"exit_code": 3})
        found = await messages(server, "a")
        assert {one["kind"]: one["text"] for one in found if "text" in one} == {"stdout": "out\n", "stderr": "err\n"}
        await start(server, "b")
        view = await ended(server, "b")
        assert (view["state"], view["reason"]) == ("completed", {"exit_code": 0})
        assert [one["text"] for one in await messages(server, "b") if "text" in one] == ["ü" * 10 + "\n"]


async def test_a_cancel_ends_it_and_everything_that_it_has_started() -> None:
    code = (
        "import os, signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(os.getpid(), child.pid)\n"
        "time.sleep(600)\n"
    )
    async with serving({"a": python(code)}) as server:
        await start(server, "a")
        pids = [int(word) for word in (await until(server, "stdout", "a"))["text"].split()]
        await server.answer(202, "POST", "/v1/cancel/a", json={})
        assert (await ended(server, "a"))["state"] == "cancelled"
        async with asyncio.timeout(20):
            while any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in pids):
                await asyncio.sleep(0.02)


@pytest.mark.parametrize("own_session", [False, True])
async def test_it_ends_though_what_it_leaves_behind_holds_its_pipes(own_session: bool) -> None:
    code = (
        "import subprocess, sys\n"
        "code = 'import time; time.sleep(600)'\n"
        f"child = subprocess.Popen([sys.executable, '-c', code], start_new_session={own_session})\n"
        "print(child.pid)\n"
    )
    limits = replace(LIMITS, run_grace_seconds=1.0)
    async with served(limits=limits, catalog=Catalog([Programs({"a": python(code)})])) as server:
        await start(server, "a")
        left = int((await until(server, "stdout", "a"))["text"])
        try:
            view = await ended(server, "a")
            assert (view["state"], view["reason"]) == ("completed", {"exit_code": 0})
        finally:
            with suppress(ProcessLookupError):
                os.kill(left, signal.SIGKILL)


async def test_what_cannot_be_started_says_so() -> None:
    async with serving({"a": ProgramSpec(command=["/no/such/program"])}) as server:
        await start(server, "a")
        view = await ended(server, "a")
        assert (view["state"], view["reason"]["error"]) == ("failed", "not started")


async def test_a_flood_is_kept_whole_in_bounded_memory() -> None:
    count = 20 * 1024 * 1024
    code = f"import os\nfor _ in range({count // 65536}): os.write(1, b'x' * 65536)"
    async with serving({"a": python(code)}) as server:
        before = psutil.Process().memory_info().rss
        await start(server, "a")
        view = await ended(server, "a")
        assert view["state"] == "completed"
        assert view["bytes"] > count
        grown = psutil.Process().memory_info().rss - before - view["bytes"]  # the store of this test is memory
        assert grown < 4 * LIMITS.run_memory_bytes_max


async def test_it_takes_its_place_and_variables_from_the_operator_and_nothing_from_a_client(tmp_path: Path) -> None:
    code = "import os; print(os.getcwd(), os.environ['COLOUR'])"
    programs = {"a": python(code, cwd=str(tmp_path), env={"COLOUR": "green"})}
    async with serving(programs) as server:
        body = {"program": "a", "arguments": {"command": ["sh"]}}
        await server.problem(400, "invalid", "POST", "/v1/runs", json=body)
        await server.problem(404, "unknown_runnable", "POST", "/v1/runs", json={"program": "sh -c id"})
        await start(server, "a")
        await ended(server, "a")
        assert [one["text"] for one in await messages(server, "a") if "text" in one] == [f"{tmp_path} green\n"]
        (source,) = (await server.answer(200, "GET", "/v1/runnables"))["sources"]
        assert "COLOUR" not in str(source)
        assert sys.executable not in str(source)


async def test_no_setting_of_the_server_reaches_a_program_unless_the_operator_gives_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in (*SECRETS, "UNBROKEN_STORE", "unbroken_token", "COLOUR"):  # settings know no case
        monkeypatch.setenv(name, f"of the server: {name}")
    shown = ProgramSpec(command=["/usr/bin/env"])
    async with serving({"a": shown, "b": msgspec.structs.replace(shown, env={"UNBROKEN_TOKEN": "its own"})}) as server:
        for name, given in (("a", []), ("b", ["UNBROKEN_TOKEN=its own"])):
            await start(server, name)
            assert (await ended(server, name))["state"] == "completed"
            lines = "".join(one["text"] for one in await messages(server, name) if "text" in one).splitlines()
            assert [line for line in lines if line.upper().startswith("UNBROKEN_")] == given
            assert "COLOUR=of the server: COLOUR" in lines


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        '{"programs": {"a": {}}}',
        '{"programs": {"a": {"command": []}}}',
        '{"programs": {"a": {"cmd": ["x"]}}}',
    ],
)
def test_a_file_that_is_wrong_is_refused_at_the_start(tmp_path: Path, text: str) -> None:
    path = tmp_path / "programs.json"
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_programs(path)
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError):
        load_programs(path)
