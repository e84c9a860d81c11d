"""A body that is far too large is answered, not cut off: the client gets to read why, within bounds of bytes and of time."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from tests.support.inprocess import Served, served
from unbroken.limits import DEFAULT_LIMITS, Limits

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
LARGE = 70 * MIB
PATHS = ["/v1/messages/a", "/v1/stream/a"]


@pytest.fixture
async def server() -> AsyncIterator[Served]:
    async with served() as made:
        yield made


class Raw:
    """A client that knows nothing of HTTP's finer points: it sends all that it has, and only then reads."""

    def __init__(self, server: Served, path: str, *headers: str) -> None:
        self._port = server.port
        lines = (f"POST {path} HTTP/1.1", f"Host: 127.0.0.1:{server.port}", *headers)
        self._head = "".join(f"{line}\r\n" for line in (*lines, "")).encode()

    async def __aenter__(self) -> Raw:
        self.reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        await self.send(self._head)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def answer(self) -> tuple[bytes, bytes]:
        """Head and body of the answer, read until the server closes."""
        head, _, body = (await self.reader.read()).partition(b"\r\n\r\n")
        return head, body


def check(head: bytes, body: bytes) -> None:
    assert head.startswith(b"HTTP/1.1 413 ")
    assert b"application/problem+json" in head
    assert b"connection: close" in head.lower()
    problem = msgspec.json.decode(body)
    assert (problem["code"], problem["status"], problem["facts"]["limit"]) == ("too_large", 413, "body_bytes_max")


@pytest.mark.parametrize("path", PATHS)
async def test_a_client_that_sends_all_before_it_reads_gets_its_answer(server: Served, path: str) -> None:
    async with asyncio.timeout(60), Raw(server, path, f"Content-Length: {LARGE}") as raw:
        for _ in range(LARGE // MIB):
            await raw.send(b" " * MIB)
        check(*await raw.answer())


@pytest.mark.parametrize("path", PATHS)
async def test_so_does_one_that_does_not_say_how_much_it_sends(server: Served, path: str) -> None:
    if path == "/v1/stream/a":
        assert (await server.client.put(path)).status_code == 201
    async with asyncio.timeout(60), Raw(server, path, "Transfer-Encoding: chunked") as raw:
        for _ in range(LARGE // MIB):
            await raw.send(b"%x\r\n%b\r\n" % (MIB, b" " * MIB))
        await raw.send(b"0\r\n\r\n")
        check(*await raw.answer())


async def parts() -> AsyncIterator[bytes]:
    for _ in range(LARGE // MIB):
        yield b" " * MIB


@pytest.mark.parametrize("chunked", [False, True])
async def test_httpx_gets_its_answer(server: Served, chunked: bool) -> None:
    content = parts() if chunked else b" " * LARGE
    problem = await server.problem(413, "too_large", "POST", "/v1/messages/a", content=content)
    assert problem["facts"] == {"limit": "body_bytes_max"}
    await server.answer(200, "GET", "/v1/streams")


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("headers", [[], ["-H", "Expect:"], ["-H", "Transfer-Encoding: chunked", "-H", "Expect:"]])
async def test_curl_gets_its_answer(server: Served, tmp_path: Path, headers: list[str]) -> None:
    body = tmp_path / "body"
    with body.open("wb") as file:
        file.truncate(LARGE)
    url = f"http://127.0.0.1:{server.port}/v1/messages/a"
    process = await asyncio.create_subprocess_exec(
        *("curl", "--silent", "--show-error", "--max-time", "60", "--noproxy", "*", "--include", *headers),
        *("--data-binary", f"@{body}", url),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    head, _, document = output.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n").partition(b"\r\n\r\n")
    assert process.returncode == 0, errors
    check(head, document)


@asynccontextmanager
async def refused(server: Served) -> AsyncIterator[Raw]:
    """A client that was refused, has read that, and could send on."""
    async with Raw(server, "/v1/messages/a", f"Content-Length: {1024 * MIB}") as raw:
        assert (await raw.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 413 ")
        yield raw


async def until_closed(raw: Raw, pause_seconds: float) -> int:
    """How many MiB the server takes before it closes."""
    sent = 0
    try:
        while True:
            await raw.send(b" " * MIB)
            sent += 1
            await asyncio.sleep(pause_seconds)
    except ConnectionError:
        return sent


async def bounded(limits: Limits, pause_seconds: float) -> int:
    async with asyncio.timeout(60), served(limits=limits) as server, refused(server) as raw:
        return await until_closed(raw, pause_seconds)


async def test_what_is_discarded_is_bounded_in_bytes() -> None:
    taken = await bounded(replace(DEFAULT_LIMITS, discard_bytes_max=32 * MIB, discard_seconds_max=3_600.0), 0)
    assert 32 <= taken <= 64


async def test_what_is_discarded_is_bounded_in_time() -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert await bounded(replace(DEFAULT_LIMITS, discard_seconds_max=0.5), 0.05) < 512
    assert loop.time() - began < 20


async def test_a_server_that_stops_discards_no_more() -> None:
    limits = replace(DEFAULT_LIMITS, discard_seconds_max=3_600.0)
    async with asyncio.timeout(60), served(limits=limits) as server, refused(server) as raw:
        server.services.draining = True
        assert b'"too_large"' in await raw.reader.read()
