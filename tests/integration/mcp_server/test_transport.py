"""How agents come in: over HTTP with and without a token, and what the command says when it cannot serve."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from tests.support.agents import Agent, McpProcess
from tests.support.certificates import make_certificate, trusting
from tests.support.commands import Commands, finish
from tests.support.server import ServerProcess, free_port
from unbroken.auth.forwarded import Proxies
from unbroken.limits import DEFAULT_LIMITS
from unbroken.mcp_server.entry import Entry
from unbroken.mcp_server.remote import Remote
from unbroken.mcp_server.service import build
from unbroken.mcp_server.transports import http_app

pytestmark = pytest.mark.anyio
TOKEN = "sesame-mcp"
UPSTREAM = "sesame-unbroken"
FILES = 30
"""More than a process that has just started may open where it has closed others."""
LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
HEADERS = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}


async def answered(url: str, body: Any = LIST, **headers: str) -> int:
    async with httpx2.AsyncClient(timeout=30) as client:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return (await client.post(url, content=content, headers={**HEADERS, **headers})).status_code


async def test_without_a_token_only_this_machine_and_no_foreign_page_comes_in(
    tasks: ServerProcess, tmp_path: Path
) -> None:
    async with McpProcess(tmp_path, tasks.url) as process:
        assert await answered(process.endpoint) == 200
        assert await answered(process.endpoint, Host="evil.example") == 421
        assert await answered(process.endpoint, Origin="https://evil.example") == 403
        assert await answered(process.endpoint, b" " * (1024 * 1024 + 1)) == 413
        assert await answered(process.endpoint, b"{") == 400


@pytest.mark.scenario("SEC-003")
@pytest.mark.skipif(sys.platform != "linux", reason="not run: limits of another process are changed on Linux only")
async def test_where_no_file_can_be_opened_any_more_connections_are_dropped_and_the_log_is_not_filled(
    tmp_path: Path,
) -> None:
    import resource  # noqa: PLC0415 - not there on Windows

    async with McpProcess(tmp_path, "http://127.0.0.1:1") as process, asyncio.timeout(60):
        assert await answered(process.endpoint) == 200
        limits = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        numbers = [int(file.name) for file in Path(f"/proc/{process.pid}/fd").iterdir()]  # noqa: ASYNC240 - not a disk
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (max(numbers) + 1, limits[1]))
        peers = [await asyncio.open_connection("127.0.0.1", process.port) for _ in range(FILES)]
        async with asyncio.TaskGroup() as tasks:
            reading = [tasks.create_task(reader.read()) for reader, _ in peers]
            dropped, _ = await asyncio.wait(reading, timeout=30, return_when=asyncio.FIRST_COMPLETED)
            resource.prlimit(process.pid, resource.RLIMIT_NOFILE, limits)
            for _, writer in peers:
                writer.transport.abort()
        assert dropped
        assert await answered(process.endpoint) == 200
    assert "Traceback" not in process.output


async def test_a_token_is_wanted_from_everybody_and_is_not_the_servers(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n", encoding="utf-8")
    async with (
        ServerProcess(tmp_path, environment={"UNBROKEN_TOKEN": UPSTREAM}) as server,
        McpProcess(tmp_path, server.url, "--http-token-file", str(file), UNBROKEN_TOKEN=UPSTREAM) as process,
    ):
        assert await answered(process.endpoint) == 401
        for wrong in ("", "Bearer", f"Bearer {UPSTREAM}", f"Bearer {TOKEN}x", f"Basic {TOKEN}", TOKEN):
            assert await answered(process.endpoint, Authorization=wrong) == 401, wrong
        async with httpx2.AsyncClient() as twice:
            both = [("Authorization", f"Bearer {TOKEN}"), ("Authorization", f"Bearer {TOKEN}")]
            assert (await twice.post(process.endpoint, content=b"{}", headers=both)).status_code == 401
        async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {TOKEN}"}) as given:
            transport = streamable_http_client(process.endpoint, http_client=given)
            async with Client(transport) as client:
                assert await Agent(client).call("list_streams") == {"streams": [], "next": None}
        assert TOKEN not in process.output + server.output


@pytest.mark.scenario("SEC-002")
async def test_with_a_certificate_it_speaks_tls_and_nothing_else(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path / "mcp.pem")
    async with (
        ServerProcess(tmp_path) as server,
        McpProcess(tmp_path, server.url, "--http-tls-cert", str(certificate), UNBROKEN_MCP_TOKEN=TOKEN) as process,
    ):
        address = process.endpoint.replace("http://", "https://")
        assert f"unbroken mcp listening on {address}\n" in process.output
        async with httpx2.AsyncClient(
            verify=trusting(certificate), headers={"Authorization": f"Bearer {TOKEN}"}
        ) as given:
            async with Client(streamable_http_client(address, http_client=given)) as client:
                assert await Agent(client).call("list_streams") == {"streams": [], "next": None}
            with pytest.raises(httpx2.TransportError):
                await given.post(process.endpoint, json=LIST)


@pytest.mark.scenario("SEC-002")
@pytest.mark.parametrize(
    ("peer", "encrypted", "status"),
    [
        ("10.1.2.3", False, 401),
        ("127.0.0.1", False, 401),
        ("10.9.9.9", False, 403),
        ("192.0.2.1", False, 403),
        ("192.0.2.1", True, 401),
    ],
)
async def test_behind_a_proxy_nobody_else_gets_as_far_as_the_token(peer: str, encrypted: bool, status: int) -> None:
    proxies = Proxies.parse(["10.1.0.0/16"], encrypted=encrypted)
    entry = Entry(host="0.0.0.0", port=0, token=TOKEN, proxies=proxies)
    app = http_app(build(Remote("http://127.0.0.1:1")), DEFAULT_LIMITS, entry)
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app, client=(peer, 40_000))) as client:
        answer = await client.post("http://mcp.example/mcp", json=LIST, headers={"X-Forwarded-For": "127.0.0.1"})
    assert answer.status_code == status
    assert TOKEN not in answer.text


@pytest.mark.scenario("SEC-003")
async def test_a_stranger_is_listened_to_for_so_many_bytes(tasks: ServerProcess, tmp_path: Path) -> None:
    async with McpProcess(tmp_path, tasks.url) as process, asyncio.timeout(30):
        reader, writer = await asyncio.open_connection("127.0.0.1", process.port)
        writer.write(b"POST /mcp HTTP/1.1\r\nX: " + b"x" * (DEFAULT_LIMITS.head_bytes_max + 1))
        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
        writer.close()


async def test_white_space_around_a_value_is_no_part_of_it(tasks: ServerProcess, tmp_path: Path) -> None:
    async with McpProcess(tmp_path, tasks.url) as process, asyncio.timeout(30):
        for version, status in ((" \t2025-11-25 \t", b"200"), ("2025-11-25 x", b"400")):
            reader, writer = await asyncio.open_connection("127.0.0.1", process.port)
            body = json.dumps(LIST)
            head = {**HEADERS, "Host": "localhost:1", "Content-Length": str(len(body)), "Connection": "close"}
            head["MCP-Protocol-Version"] = version
            writer.write("\r\n".join(["POST /mcp HTTP/1.1", *map(": ".join, head.items()), "", body]).encode())
            assert (await reader.read()).split()[1] == status
            writer.close()


async def test_the_servers_refusal_of_our_token_is_told(tmp_path: Path) -> None:
    async with (
        ServerProcess(tmp_path, environment={"UNBROKEN_TOKEN": UPSTREAM}) as server,
        McpProcess(tmp_path, server.url) as process,
        Client(process.endpoint) as client,
    ):
        text = await Agent(client).refused("list_streams")
    assert text.startswith("error[unauthorized]: ")
    assert UPSTREAM not in text


@pytest.mark.parametrize(
    ("arguments", "environment", "told"),
    [
        (["--http", "0.0.0.0:0"], {}, "can be reached from other machines"),
        (["--http", ":::0"], {}, "can be reached from other machines"),
        (["--http", "example.com:80"], {}, "can be reached from other machines"),
        (["--http", "127.0.0.1"], {}, "an address is HOST:PORT"),
        (["--http", "127.0.0.1:70000"], {}, "an address is HOST:PORT"),
        (["--http", "127.0.0.1:0", "--http-token-file", "/nonexistent"], {}, "the token file cannot be read"),
        (["--http", "0.0.0.0:0", "--http-token-file", "/dev/null"], {}, "is empty"),
        (["--http", "127.0.0.1:0"], {"UNBROKEN_MCP_TOKEN": "caf\xe9"}, "printable ASCII"),
        (["--http", "0.0.0.0:0"], {"UNBROKEN_MCP_TOKEN": TOKEN}, "--http-tls-cert"),
        (["--http", "0.0.0.0:0"], {"UNBROKEN_MCP_TOKEN": TOKEN}, "--http-behind-proxy"),
        (["--http", "127.0.0.1:0", "--http-behind-proxy", "127.0.0.1"], {}, "can be reached from other machines"),
        (["--http", "127.0.0.1:0", "--http-behind-proxy", "everybody"], {}, "no network"),
        (["--http", "0.0.0.0:0", "--http-tls-cert", "/none.pem"], {"UNBROKEN_MCP_TOKEN": TOKEN}, "certificate"),
        (["--http", "127.0.0.1:0", "--http-tls-key", "/none.pem"], {}, "nothing without its certificate"),
        (["--http-behind-proxy", "127.0.0.1"], {}, "--http HOST:PORT, which is not there"),
    ],
)
async def test_what_cannot_be_served_is_refused_at_the_start(
    tmp_path: Path, arguments: list[str], environment: dict[str, str], told: str
) -> None:
    commands = Commands(tmp_path, f"http://127.0.0.1:{free_port()}", **environment)
    done = await commands("mcp", *arguments)
    assert (done.status, done.out) == (78, b""), done.err
    assert done.err.startswith("error[configuration]: ")
    assert told in done.err


async def test_an_address_that_is_taken_is_told(tasks: ServerProcess, tmp_path: Path) -> None:
    done = await Commands(tmp_path, tasks.url)("mcp", "--http", f"127.0.0.1:{tasks.port}")
    assert (done.status, done.err.count("error[address]: ")) == (69, 1), done.err


async def test_it_leaves_when_its_input_ends_and_prints_nothing_else(tmp_path: Path) -> None:
    commands = Commands(tmp_path, f"http://127.0.0.1:{free_port()}")
    done = await commands("mcp", stdin=b"")
    assert (done.status, done.out, done.err) == (0, b"", "")
    hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    lines = [
        b"no json at all \xff\x1b[2J",
        json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}).encode(),
        b"{" * 2_000,
    ]
    process = await commands.start("mcp", stdin=asyncio.subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"\n".join(lines) + b"\n")
    found: list[Any] = []
    async with asyncio.timeout(30):
        while not any("result" in one for one in found):
            found.append(json.loads(await process.stdout.readline()))
        process.stdin.close()
        assert await process.wait() == 0
    assert any(one.get("result", {}).get("serverInfo", {}).get("name") == "unbroken" for one in found)


async def test_without_the_sdk_the_command_says_what_to_install(tmp_path: Path) -> None:
    script = "import sys; sys.modules['mcp'] = None; from unbroken.cli.app import execute; sys.exit(execute(['mcp']))"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", script), stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    done = await finish(process)
    assert done.status == 78
    assert "pip install 'unbroken[mcp]'" in done.err
