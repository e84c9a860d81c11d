"""serve, doctor, version and the demonstration as real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path

import psutil
import pytest

from tests.support.commands import Commands, finish
from tests.support.server import ServerProcess, free_port

pytestmark = pytest.mark.anyio


async def test_serve_prints_one_line_when_ready_and_sigterm_ends_it_with_0(tmp_path: Path) -> None:
    port = free_port()
    commands = Commands(tmp_path, f"http://127.0.0.1:{port}")
    process = await commands.start(
        *("serve", "--host", "127.0.0.1", "--port", str(port), "--store", f"sqlite:///{tmp_path}/x.db"),
        *("--durability", "process", "--long-poll-timeout", "0.5"),
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == f"unbroken listening on http://127.0.0.1:{port}\n".encode()
    assert (await commands("append", "x", "--create", "--text", "y")).status == 0
    process.send_signal(signal.SIGTERM)
    done = await finish(process)
    assert (done.status, done.out) == (0, b"")
    assert (tmp_path / "x.db").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="not run: the bounds of a process are told by /proc")
@pytest.mark.parametrize(("bounds", "allowed"), [("-S -n 300", 0), ("-n 300", 300)])
async def test_as_many_files_may_be_open_as_there_may_be_connections(tmp_path: Path, bounds: str, allowed: int) -> None:
    key = tmp_path / "token"
    key.write_text("a token that is long enough")
    key.chmod(0o644)
    port, commands = free_port(), Commands(tmp_path, "http://127.0.0.1:9")
    commands.program = ("sh", "-c", f'ulimit {bounds} && exec "$@"', "sh", *Commands.program)
    process = await commands.start("serve", "--port", str(port), "--store", "memory:", "--token-file", str(key))
    assert process.stdout is not None
    assert await process.stdout.readline()
    soft, hard = psutil.Process(process.pid).rlimit(psutil.RLIMIT_NOFILE)
    process.send_signal(signal.SIGTERM)
    done = await finish(process)
    assert soft == min(hard, 25_096)
    assert ("only 300 files and sockets may be open" in done.err) is bool(allowed)
    assert f"every user of this machine may read {key}" in done.err
    assert done.status == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["--host", "0.0.0.0"],
        ["--port", "70000"],
        ["--long-poll-timeout", "-1"],
        ["--token-file", "/nonexistent"],
    ],
)
async def test_a_wrong_setting_is_named(tmp_path: Path, arguments: list[str]) -> None:
    done = await Commands(tmp_path, "http://127.0.0.1:9")("serve", "--store", "memory:", *arguments)
    assert (done.status, done.out) == (78, b"")
    assert done.err.startswith("error[configuration]: ")
    assert "cure: " in done.err
    assert "Traceback" not in done.err


async def test_a_wrong_setting_in_the_environment_is_named_too(tmp_path: Path) -> None:
    done = await Commands(tmp_path, "http://127.0.0.1:9", UNBROKEN_PORT="many")("serve", "--store", "memory:")
    assert done.status == 78
    assert "port" in done.err


async def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = await Commands(tmp_path, "http://127.0.0.1:9")("serve", "--store", "memory:", "--port", port)
    assert (done.status, done.out) == (69, b"")
    assert done.err.startswith("error[address]: ")
    assert "cure: " in done.err


async def test_the_log_is_on_stderr_as_text_or_json(tmp_path: Path) -> None:
    commands = Commands(tmp_path, "http://127.0.0.1:9")
    process = await commands.start("serve", "--store", "memory:", "--port", "0", "--log-format", "json")
    assert process.stdout is not None
    await process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    done = await finish(process)
    assert done.status == 0
    assert '"event": "stopped"' in done.err
    assert done.out == b""


async def test_doctor_finds_a_sound_server_sound_and_leaves_nothing_behind(commands: Commands) -> None:
    done = await commands("doctor", "--json")
    assert done.status == 0, done.text
    checks = {check["name"]: check["status"] for check in done.objects}
    expected = {"python", "sqlite", "spill room", "server", "ready", "websocket", "streaming"}
    assert expected <= checks.keys()
    assert set(checks.values()) <= {"ok", "warning"}
    assert (await commands("ls", "--json")).out == b""


async def test_doctor_names_what_is_broken_and_the_cure(tmp_path: Path) -> None:
    commands = Commands(tmp_path / "home", "http://127.0.0.1:9")
    done = await commands("doctor")
    assert done.status == 69
    assert "FAILED  server: " in done.text
    assert "cure: Start it" in done.text
    commands.spill.mkdir(parents=True)
    (commands.spill / "run-x.spill").touch()
    assert "Run `unbroken deliver`" in (await commands("doctor")).text
    (tmp_path / "broken.db").write_bytes(b"not a database at all" * 1000)
    offline = await commands("doctor", "--store", f"sqlite:///{tmp_path}/broken.db", "--json")
    assert offline.status == 69
    assert offline.objects[-1]["name"] == "store"
    missing = await commands("doctor", "--store", f"sqlite:///{tmp_path}/missing.db")
    assert missing.status == 69
    assert not (tmp_path / "missing.db").exists()


async def test_doctor_reads_a_store_without_a_server(commands: Commands, server: ServerProcess) -> None:
    await commands("append", "x", "--create", "--text", "y")
    await server.terminate()
    done = await commands("doctor", "--store", f"sqlite:///{server.database}", "--json")
    assert done.status == 0
    assert "newest stream x" in done.objects[-1]["text"]


async def test_doctor_finds_a_proxy_that_buffers(commands: Commands, server: ServerProcess, tmp_path: Path) -> None:
    """A proxy that holds every answer back until it is whole: a stream through it never arrives."""
    async with await asyncio.start_server(lambda r, w: hold_back(r, w, server.port), "127.0.0.1", 0) as proxy:
        port = proxy.sockets[0].getsockname()[1]
        behind = Commands(tmp_path / "home", f"http://127.0.0.1:{port}")
        done = await behind("doctor", "--json")
    checks = {check["name"]: check["status"] for check in done.objects}
    assert done.status == 69
    assert checks["websocket"] == "ok"
    assert checks["streaming"] == "failed"


async def hold_back(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
    """Pass one connection on, but what is an event stream only when it has ended."""
    upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", port)

    async def up() -> None:
        while data := await reader.read(65_536):
            upstream_writer.write(data)
        upstream_writer.close()

    async def down() -> None:
        held, holding = b"", False
        while data := await upstream_reader.read(65_536):
            holding = holding or b"text/event-stream" in data
            held += data if holding else b""
            if not holding:
                writer.write(data)
        writer.write(held)
        writer.close()

    await asyncio.gather(up(), down(), return_exceptions=True)


async def test_version_for_people_and_programs(tmp_path: Path) -> None:
    commands = Commands(tmp_path, "http://127.0.0.1:9")
    said = (await commands("version", "--json")).objects[0]
    assert set(said) == {"unbroken", "protocol", "python", "sqlite"}
    assert (await commands("version")).text == f"unbroken {said['unbroken']}\n"


async def test_help_starts_without_loading_what_it_does_not_need(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from unbroken.cli.app import execute\n"
        "execute(['--help'])\n"
        "heavy = {'uvicorn', 'starlette', 'websockets', 'httpx2', 'apsw', 'pydantic_settings'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=os.environ
    )
    done = await finish(process)
    assert done.status == 0, done.err


async def test_the_unattended_demonstration_loses_and_doubles_nothing(tmp_path: Path) -> None:
    done = await Commands(tmp_path, "http://127.0.0.1:9")("demo", "--once", seconds=100)
    assert done.status == 0, done.text + done.err
    assert done.text.endswith("0 lost, 0 doubled: passed\n")
    assert "server killed 3 times" in done.text


async def test_the_demonstration_names_its_page_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    commands = Commands(tmp_path, "http://127.0.0.1:9")
    process = await commands.start("demo")
    assert process.stdout is not None
    line = (await process.stdout.readline()).decode()
    assert line.startswith("open http://127.0.0.1:")
    server = line.split()[1].partition("/#/")[0]
    watching = Commands(tmp_path, server)
    async with asyncio.timeout(30):
        plays = {"demo/answer-1", "demo/task-1", "demo/program-1", "demo/report", "demo/survey"}
        while not plays <= {v["stream"] for v in (await watching("ls", "--json")).objects}:
            pass
    process.send_signal(signal.SIGINT)
    assert (await finish(process)).status == 0
    assert (await watching("ls")).status == 69, "its server is gone"
