"""What the documents tell readers to paste is pasted here, and does what they say."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx2
import pytest
from playwright.async_api import Page, expect
from starlette.responses import HTMLResponse

from tests.docs.blocks import ROOT, Block, blocks
from tests.integration.embed.host import Hosted, hosted
from tests.support.certificates import make_certificate
from tests.support.idp import served, signer
from tests.support.server import ServerProcess, free_port
from unbroken import Client, Principal
from unbroken.clock import SystemClock
from unbroken.errors import UnauthorizedError
from unbroken.testing.simulation.campaign import replay_command

pytestmark = pytest.mark.anyio

README = "README.md"
SECRETS = "docs/howto/secrets.md"
ACCESS = "docs/howto/access.md"
BACKUP = "docs/howto/backup.md"
EMBED = "docs/howto/embed.md"
KIT_DISK = "docs/howto/fault-kit-disk.md"
MCP = "docs/howto/mcp.md"
OPERATE = "docs/howto/operate.md"
TASKS = "docs/howto/tasks.md"
MCP_TOOLS = "docs/howto/mcp-tools.md"
PROXY = "docs/howto/reverse-proxy.md"
SHARE = "docs/howto/share.md"
SIMULATION = "docs/howto/simulation.md"
VERIFY = "docs/howto/verify-server.md"
KIT = "docs/howto/fault-kit.md"
SECONDS_MAX = 60
BIN = Path(sys.executable).parent

# Which test runs which block: `test_every_block_is_run` holds the documents against it.
RUN_BY = {
    f"{README} sh 1": "test_the_two_commands_of_a_checkout",
    f"{README} sh 2": "test_any_command_becomes_a_stream",
    f"{README} python 1": "test_the_ten_lines_of_fastapi",
    f"{README} html 1": "test_the_five_lines_of_browser",
    f"{README} python 2": "test_the_three_lines_that_keep_an_endpoint",
    f"{README} sh 3": "test_tasks_howto.py",
    f"{README} sh 4": "test_the_lines_of_curl",
    f"{README} python 3": "test_the_lines_of_python",
    f"{EMBED} python 1": "test_a_run_in_fastapi",
    f"{EMBED} python 2": "test_starlette",
    f"{EMBED} python 3": "test_a_guard",
    f"{EMBED} sh 1": "test_uvicorn_stops_in_time_with_viewers",
    f"{EMBED} python 4": "test_an_applications_own_tests",
    f"{PROXY} nginx 1": "test_reverse_proxy.py",
    f"{PROXY} nginx 2": "test_reverse_proxy.py",
    f"{PROXY} sh 1": "test_serve_under_another_name",
    **dict.fromkeys((f"{MCP} python 1", f"{MCP} sh 1", f"{MCP} json 1", f"{MCP} json 2"), "test_mcp.py"),
    f"{ACCESS} sh 1": "test_serve_with_a_certificate",
    f"{ACCESS} sh 2": "test_serve_with_an_identity_provider",
    **dict.fromkeys([f"{SHARE} sh {number}" for number in (1, 2, 3)], "test_links_and_keys"),
    f"{ACCESS} python 1": "test_an_applications_own_session",
    f"{ACCESS} python 2": "test_a_client_with_the_newest_token",
    **dict.fromkeys((f"{SECRETS} sh 1", f"{SECRETS} toml 1", f"{SECRETS} python 1"), "test_secrets_howto.py"),
    f"{OPERATE} sh 1": "test_health_and_metrics",
    f"{BACKUP} sh 1": "test_a_backup_of_a_running_server",
    f"{BACKUP} text 1": "test_a_backup_of_a_running_server",
    f"{BACKUP} sh 2": "test_a_backup_of_a_running_server",
    f"{BACKUP} sh 3": "test_a_damaged_file",
    f"{BACKUP} text 2": "test_a_damaged_file",
    **dict.fromkeys([f"{KIT_DISK} python {number}" for number in (1, 2, 3)], "test_the_disk_of_the_fault_kit"),
    f"{KIT_DISK} sh 1": "test_the_disk_of_the_fault_kit",
    f"{TASKS} python 1": "test_tasks_howto.py",
    f"{TASKS} sh 1": "test_tasks_howto.py",
    f"{TASKS} sh 2": "test_tasks_howto.py",
    f"{TASKS} json 1": "test_tasks_howto.py",
    f"{TASKS} python 2": "test_tasks_howto.py",
    f"{SIMULATION} python 1": "test_virtual_time",
    f"{SIMULATION} sh 1": "test_seeds_of_a_simulation",
    f"{SIMULATION} text 1": "test_seeds_of_a_simulation",
    f"{SIMULATION} sh 2": "test_a_soak",
    f"{MCP_TOOLS} json 1": "test_mcp_howto.py",
    **dict.fromkeys(
        (f"{VERIFY} sh 1", f"{VERIFY} sh 2", f"{VERIFY} sh 3", f"{VERIFY} python 1"), "test_verify_howto.py"
    ),
    f"{KIT} python 1": "test_kit_howto.py",
}


def the(document: str, language: str, number: int) -> str:
    (found,) = [one for one in blocks(document) if (one.language, one.number) == (language, number)]
    return found.text


def application(document: str, number: int) -> dict[str, Any]:
    """The names that a Python block defines."""
    names: dict[str, Any] = {"__name__": f"block_{number}"}
    exec(compile(the(document, "python", number), document, "exec"), names)
    return names


async def run(arguments: Sequence[str], directory: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A program in `directory`, as a reader would start it who has the package installed."""
    return await asyncio.to_thread(
        subprocess.run,
        arguments,
        cwd=directory,
        env=os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}", "XDG_STATE_HOME": str(directory)} | environment,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
        start_new_session=True,
    )


async def shell(script: str, directory: Path, **environment: str) -> str:
    """What a shell block prints; every line of it must succeed."""
    done = await run(["sh", "-ec", script], directory, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


async def test_links_and_keys(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path) as server:
        reached = {"UNBROKEN_SERVER": server.url, "UNBROKEN_STORE": f"sqlite:///{server.database}"}
        async with Client(server.url) as owner:
            await owner.create("build/42")
        link = (await shell(the(SHARE, "sh", 1), tmp_path, **reached)).strip().partition("?token=")[2]
        key, *listed = (await shell(the(SHARE, "sh", 2), tmp_path, **reached)).splitlines()
        assert (key[:4], link[:4]) == ("ubk_", "ubl_")
        ids = [line.split()[0] for line in listed if "worker" in line or "review" in line]
        async with Client(server.url, token=link) as viewer, Client(server.url, token=key) as worker:
            assert (await viewer.state("build/42")).stream == "build/42"
            await worker.create("build/43")
            for token in ids:
                await shell(the(SHARE, "sh", 3), tmp_path, ID=token, **reached)
            for client in (viewer, worker):
                with pytest.raises(UnauthorizedError):
                    await client.state("build/42")


def documents() -> list[str]:
    return [README, *sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/howto/*.md"))]


def test_every_block_is_run() -> None:
    found: list[Block] = [block for document in documents() for block in blocks(document)]
    assert {block.key for block in found} == RUN_BY.keys()
    assert [
        name for name in RUN_BY.values() if name not in globals() and not (ROOT / "tests/docs" / name).exists()
    ] == []


def test_the_two_commands_of_a_checkout() -> None:
    help_text = subprocess.run([ROOT / "run", "help"], capture_output=True, text=True, check=True).stdout
    commands = re.findall(r"^\./run (\w+)", the(README, "sh", 1), re.MULTILINE)
    assert commands == ["demo", "test"]
    assert [name for name in commands if f"\n  {name} " not in help_text] == []
    assert "--once" in help_text


async def test_any_command_becomes_a_stream(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text("test:\n\t@echo all is well; echo a warning >&2\n")
    port = str(free_port())
    script = the(README, "sh", 2) + "\nunbroken show --json build/1\nkill $!\nwait $! || true\n"
    printed = await shell(script, tmp_path, UNBROKEN_PORT=port, UNBROKEN_SERVER=f"http://127.0.0.1:{port}")
    assert printed.count("all is well") == 2, "once from the command, once from the stream"
    assert '"state":"completed"' in printed.replace(" ", "")


async def ask(host: Hosted, method: str = "POST") -> str:
    answer = await host.client.request(method, "/chat/1?question=why")
    assert answer.status_code == 200, answer.text
    return answer.text


async def test_the_ten_lines_of_fastapi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = application(README, 1)
    async with hosted(names["app"]) as host:
        assert await ask(host) == '{"stream":"chat/1"}'
        assert await ask(host) == '{"stream":"chat/1"}', "the same key attaches"
        texts = [str(one.message.text) async for one in names["unbroken"].follow("chat/1")]
        assert texts == ["You ", "asked: ", "why "]
        assert (await host.client.get("/streams/")).status_code == 200
    assert (tmp_path / "chat.db").exists()


async def test_the_five_lines_of_browser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: Page) -> None:
    monkeypatch.chdir(tmp_path)
    names = application(README, 1)
    html = the(README, "html", 1)

    async def watch() -> HTMLResponse:
        return HTMLResponse(html)

    names["app"].get("/watch")(watch)
    async with hosted(names["app"]) as host:
        await ask(host)
        address = f"{host.client.base_url}/watch".replace("//watch", "/watch")
        await page.goto(address)
        await expect(page.locator("#answer")).to_contain_text("You")
        await page.reload()
        await expect(page.locator("#answer")).to_have_text("You asked: why ")
        await page.reload()
        await expect(page.locator("#answer")).to_have_text("You asked: why ")


async def test_the_three_lines_that_keep_an_endpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with hosted(application(README, 2)["app"]) as host:
        assert await ask(host, "GET") == "You asked: why "
        assert await ask(host, "GET") == "You asked: why "
        view = (await host.client.get("/streams/v1/streams/chat/1")).json()
        assert (view["state"], view["head"]) == ("completed", 3)


async def test_the_lines_of_curl(server: ServerProcess, tmp_path: Path) -> None:
    script = the(README, "sh", 4).replace("4437", str(server.port))
    assert str(server.port) in script
    printed = await shell(script, tmp_path)
    assert '"text":"hello"' in printed
    assert '"state":"completed"' in printed
    assert "event: message" in printed
    assert "event: state" in printed


async def test_the_lines_of_python(server: ServerProcess, tmp_path: Path) -> None:
    script = the(README, "python", 3).replace("4437", str(server.port))
    done = await run([sys.executable, "-c", script], tmp_path)
    assert done.stdout == "1 one\n2 two\n", done.stderr


async def test_a_run_in_fastapi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with hosted(application(EMBED, 1)["app"]) as host:
        started = await host.client.post("/builds/7")
        assert started.json() == {"stream": "builds/7", "state": "running"}
        assert (await host.client.get("/builds/7/text")).json() == "compiling\nunused variable\n"
        assert (await host.client.delete("/builds/7")).status_code == 200
        view = (await host.client.get("/streams/v1/streams/builds/7")).json()
        assert (view["kind"], view["session"], view["head"], view["state"]) == ("build", "builds", 3, "completed")


async def test_starlette(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with hosted(application(EMBED, 2)["app"]) as host:
        assert (await host.client.put("/streams/v1/streams/a")).status_code == 201


async def test_a_guard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with hosted(application(EMBED, 3)["app"]) as host:
        assert (await host.client.get("/streams/v1/streams")).status_code == 401
        cookie = {"Cookie": "session=the session of somebody who is signed in"}
        assert (await host.client.get("/streams/v1/streams", headers=cookie)).status_code == 200
        async with host.peer("/streams/v1/ws", cookie) as peer:
            await peer.receive("hello")


async def test_an_applications_own_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = application(ACCESS, 1)
    async with hosted(names["app"]) as host:
        assert (await host.client.get("/streams/v1/streams")).status_code == 401
        cookie = {"Cookie": "session=obviously-not-a-real-session"}
        assert (await host.client.put("/streams/v1/streams/a", headers=cookie)).status_code == 201
        async with host.peer("/streams/v1/ws", cookie) as peer:
            await peer.receive("hello")
            assert (await host.client.post("/streams/v1/logout", headers=cookie)).status_code == 204
            assert await peer.closed() == 4401
        assert (await host.client.get("/streams/v1/streams/a", headers=cookie)).status_code == 401
        names["SESSIONS"]["not-a-real-one-either"] = "alice"  # logs in again
        cookie = {"Cookie": "session=not-a-real-one-either"}
        assert (await host.client.get("/streams/v1/streams/a", headers=cookie)).status_code == 200
        async with host.peer("/streams/v1/ws", cookie) as peer:
            await peer.receive("hello")
            name = hashlib.sha256(b"not-a-real-one-either").hexdigest()
            await names["unbroken"].revoke(Principal("acme", "alice", credential=f"session:{name}"))
            assert await peer.closed() == 4401


async def test_a_client_with_the_newest_token(tmp_path: Path) -> None:
    token = {"UNBROKEN_TOKEN": "obviously-not-a-real-token"}
    async with ServerProcess(tmp_path, environment=token) as process:
        async with Client(process.url, token=token["UNBROKEN_TOKEN"]) as client:
            await client.create("builds/1")
            await client.append("builds/1", "done")
            await client.close("builds/1")
        done = await run([sys.executable, "-c", the(ACCESS, "python", 2).replace("4437", str(process.port))], tmp_path)
        assert done.stdout == "done\n", done.stderr


class Uvicorn(ServerProcess):
    """`uvicorn app:app …`, as the document has it."""

    ready = "Uvicorn running on"

    def _command(self) -> list[str]:
        program, *arguments = the(EMBED, "sh", 1).split()
        return ["sh", "-c", f"exec {BIN / program} {' '.join(arguments)}"]


async def test_uvicorn_stops_in_time_with_viewers(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(the(EMBED, "python", 1))
    port = free_port()
    environment = {"UVICORN_PORT": str(port), "PYTHONPATH": str(tmp_path)}
    async with (
        Uvicorn(tmp_path, environment=environment, port=port) as process,
        Client(f"{process.url}/streams") as client,
        asyncio.TaskGroup() as tasks,
    ):
        await client.create("open")
        viewer = ["curl", "-sN", f"{process.url}/streams/v1/messages/open?live=sse"]
        tasks.create_task(run(viewer, tmp_path))
        async with asyncio.timeout(SECONDS_MAX):
            while 'face="sse"} 1.0' not in await metrics(process):
                await asyncio.sleep(0.05)
        async with asyncio.timeout(SECONDS_MAX / 2):
            assert await process.terminate() in {0, -15}


async def metrics(process: ServerProcess) -> str:
    return (await run(["curl", "-s", f"{process.url}/streams/metrics"], process.directory)).stdout


async def test_an_applications_own_tests(tmp_path: Path) -> None:
    done = await run([sys.executable, "-c", the(EMBED, "python", 4)], tmp_path)
    assert done.returncode == 0, done.stderr


async def test_serve_under_another_name(tmp_path: Path) -> None:
    port = free_port()
    command = the(PROXY, "sh", 1)
    (tmp_path / "token").write_text("an-obvious-token")
    proxy = ["-H", "X-Forwarded-Proto: https", "-H", "Authorization: Bearer an-obvious-token"]

    class Renamed(ServerProcess):
        def _command(self) -> list[str]:
            return ["sh", "-c", f"exec {BIN}/{command}"]

    async with Renamed(tmp_path, port=port, environment={"UNBROKEN_PORT": str(port)}) as process:
        ask = ["curl", "-s", "-o", "answer", "-w", "%{http_code}", f"{process.url}/v1/streams"]
        for host, origin, expected in (
            ("streams.example.org", "https://streams.example.org", "200"),
            ("other.example.org", "https://streams.example.org", "403"),
            ("streams.example.org", "https://other.example.org", "403"),
        ):
            done = await run([*ask, *proxy, "-H", f"Host: {host}", "-H", f"Origin: {origin}"], tmp_path)
            assert done.stdout == expected, (host, origin)


class Described(ServerProcess):
    """A server that is started by a command of a document."""

    command = ""

    def _command(self) -> list[str]:
        return ["sh", "-c", f"exec {BIN}/{self.command}"]


async def test_serve_with_a_certificate(tmp_path: Path) -> None:
    cert = make_certificate(tmp_path / "cert.pem")
    (tmp_path / "key.pem").write_bytes(cert.read_bytes())
    (tmp_path / "token").write_text("an-obvious-token")
    port = free_port()
    process = Described(tmp_path, port=port, environment={"UNBROKEN_PORT": str(port)})
    process.command = the(ACCESS, "sh", 1).replace("0.0.0.0", "127.0.0.1")
    async with process:
        ask = ["curl", "-s", "-o", "answer", "-w", "%{http_code}", "--cacert", str(cert)]
        for token, expected in (("an-obvious-token", "200"), ("another", "401")):
            done = await run(
                [*ask, "-H", f"Authorization: Bearer {token}", f"https://127.0.0.1:{port}/v1/streams"], tmp_path
            )
            assert done.stdout == expected, done.stderr


async def test_serve_with_an_identity_provider(tmp_path: Path) -> None:
    async with served(signer()) as provider:
        port = free_port()
        process = Described(tmp_path, port=port, environment={"UNBROKEN_PORT": str(port)})
        process.command = the(ACCESS, "sh", 2).replace("https://login.example.org/.well-known/jwks.json", provider.url)
        async with process:
            now = SystemClock().now_ms() // 1000
            claims = {"iss": "https://login.example.org/", "aud": "streams", "sub": "alice", "exp": now + 600}
            for audience, expected in (("streams", 200), ("others", 401)):
                token = signer().token({**claims, "aud": audience})
                async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}) as client:
                    assert (await client.get(f"{process.url}/v1/streams")).status_code == expected


async def test_health_and_metrics(server: ServerProcess, tmp_path: Path) -> None:
    printed = await shell(the(OPERATE, "sh", 1).replace("4437", str(server.port)), tmp_path)
    assert '"alive":true' in printed
    assert '"ready":true' in printed
    prose = (ROOT / OPERATE).read_text(encoding="utf-8")
    named = re.findall(r"`(unbroken_\w+)`", prose)
    assert len(named) >= 3
    assert [name for name in named if name not in printed] == []


async def test_a_backup_of_a_running_server(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path) as process, Client(process.url) as client:
        await client.create("a")
        await client.append("a", [f"line {number}" for number in range(500)])
        assert "500 messages, verified" in await shell(the(BACKUP, "sh", 1), tmp_path)
        await client.append("a", "after the backup")
    schedule, command = the(BACKUP, "text", 1).split("  ", 1)
    assert len(schedule.split()) == 5
    nightly = command.replace("\\%", "%").replace("/var/lib/unbroken", ".").replace("/backups", ".")
    for _ in range(2):
        assert "501 messages, verified" in await shell(nightly, tmp_path)
    await shell(the(BACKUP, "sh", 2), tmp_path)
    async with ServerProcess(tmp_path) as process, Client(process.url) as client:
        assert (await client.state("a")).head == 500
        assert (await client.verify("a")).ok


@pytest.mark.parametrize(("number", "printed"), [(1, ""), (2, "Sweep(runs="), (3, "")])
async def test_the_disk_of_the_fault_kit(tmp_path: Path, number: int, printed: str) -> None:
    done = await run([sys.executable, "-c", the(KIT_DISK, "python", number)], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(printed)
    command, folder = the(KIT_DISK, "sh", 1).split()[0], the(KIT_DISK, "sh", 1).split()[-1]
    assert (ROOT / command).exists()
    assert list((ROOT / folder).glob("test_*.py"))


async def test_a_damaged_file(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path) as process, Client(process.url) as client:
        await client.create("chat/1")
        for number in range(60):  # too few to be merged meanwhile
            await client.append("chat/1", [f"{number}.{part} " + "x" * 1_800 for part in range(3)])
        assert await process.terminate() == 0
    data = bytearray((tmp_path / "unbroken.db").read_bytes())
    start = data.index(b'"7.2 ') // 4096 * 4096
    data[start : start + 4096] = b"?" * 4096
    (tmp_path / "unbroken.db").write_bytes(data)
    verify, salvage = the(BACKUP, "sh", 3).splitlines()
    told = await run(["sh", "-c", verify], tmp_path)
    assert (told.returncode, f"page {start // 4096 + 1}: CORRUPT" in told.stdout) == (4, True), told.stderr
    told = await run(["sh", "-c", salvage], tmp_path)
    wanted = the(BACKUP, "text", 2).replace("4 streams", "1 streams")
    assert (told.returncode, told.stdout.strip()) == (4, wanted.strip())


async def test_virtual_time(tmp_path: Path) -> None:
    done = await run([sys.executable, "-c", the(SIMULATION, "python", 1)], tmp_path)
    assert done.stdout == "b'hello\\n' after 3600 seconds\n", done.stderr


async def test_seeds_of_a_simulation(tmp_path: Path) -> None:
    printed = await shell(the(SIMULATION, "sh", 1), tmp_path)
    assert "5 seeds:" in printed
    assert "seed 7: " in printed
    assert replay_command(42) in the(SIMULATION, "text", 1)


async def test_a_soak(tmp_path: Path) -> None:
    script = the(SIMULATION, "sh", 2).replace("3600", "1")
    assert "--seconds 1" in script
    assert "soak: pass" in await shell(script, tmp_path)
