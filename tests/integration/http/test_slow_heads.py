"""A stranger is listened to for a bounded time and a bounded number of bytes before it has said what it wants."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.certificates import make_certificate, trusting
from tests.support.speeds import Speed, running_server
from unbroken.limits import DEFAULT_LIMITS

pytestmark = pytest.mark.anyio
LIMITS = replace(DEFAULT_LIMITS, handshake_seconds_max=0.3, head_bytes_max=4_096)
CEILING_SECONDS = 30.0
GET = b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n"
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def server(certificate: Path | None = None) -> AsyncIterator[int]:
    async with (
        running_server(Speed.STANDALONE, limits=LIMITS, certificate=certificate) as running,
        asyncio.timeout(CEILING_SECONDS),
    ):
        yield running.port


async def connected(port: int, *parts: bytes) -> Streams:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for part in parts:
        writer.write(part)
        await writer.drain()
    return reader, writer


async def cut_off(streams: Streams) -> bytes:
    """What the server said before it closed the connection, which it has to do by itself."""
    reader, writer = streams
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        await left(writer)


async def left(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


@pytest.mark.scenario("SEC-003")
@pytest.mark.parametrize(
    "part",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\r\n", id="an empty line"),
        pytest.param(GET, id="half a head"),
        pytest.param(b"GET /v1/ws HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n", id="half a handshake"),
    ],
)
async def test_a_head_that_does_not_end_ends_the_connection(part: bytes) -> None:
    async with server() as port:
        assert await cut_off(await connected(port, part)) == b""


@pytest.mark.scenario("SEC-003")
async def test_a_head_that_drips_ends_the_connection() -> None:
    async with server() as port:
        streams = await connected(port, GET)
        async with asyncio.TaskGroup() as tasks:
            ended = tasks.create_task(cut_off(streams))
            while not ended.done():
                streams[1].write(b"X-Drip: 1\r\n")
                await asyncio.wait([ended], timeout=0.02)
        assert ended.result() == b""


@pytest.mark.scenario("SEC-003")
@pytest.mark.parametrize("part", [b"GET /livez HTT", b"\r\n"])
async def test_the_second_head_of_a_connection_is_no_more_trusted_than_the_first(part: bytes) -> None:
    async with server() as port:
        reader, writer = await connected(port, GET + b"\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        writer.write(part)
        assert b"HTTP/1.1" not in await cut_off((reader, writer))


@pytest.mark.scenario("SEC-003")
@pytest.mark.parametrize(
    "head",
    [
        pytest.param(GET + b"X-Long: " + b"x" * 10_000, id="one header without an end"),
        pytest.param(GET + b"X-Many: 1\r\n" * 1_000 + b"\r\n", id="many headers"),
        pytest.param(b"GET /" + b"x" * 10_000 + b" HTTP/1.1\r\n\r\n", id="a long path"),
    ],
)
async def test_a_head_that_is_too_large_is_refused(head: bytes) -> None:
    async with server() as port:
        assert (await cut_off(await connected(port, head))).startswith(b"HTTP/1.1 400")


@pytest.mark.scenario("SEC-003")
async def test_over_tls_a_handshake_that_does_not_end_ends_the_connection_too(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path / "server.pem")
    async with server(certificate) as port:
        assert await cut_off(await connected(port)) == b""
        assert await cut_off(await connected(port, b"\x16\x03\x01")) == b""
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting(certificate))
        writer.write(GET + b"\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        await left(writer)


async def test_a_body_may_take_longer_than_a_head() -> None:
    async with server() as port:
        head = f"PUT /v1/streams/slow HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 2\r\n\r\n"
        reader, writer = await connected(port, head.encode() + b"{")
        await cut_off(await connected(port, GET))  # the time for a head has passed
        writer.write(b"}")
        assert (await reader.readline()).startswith(b"HTTP/1.1 201")
        await left(writer)
