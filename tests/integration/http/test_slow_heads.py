"""A stranger is listened to for a bounded time and a bounded number of bytes before it has said what it wants."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.certificates import make_certificate, trusting
from tests.support.speeds import LOCAL, Running, Speed, running_server
from unbroken.limits import DEFAULT_LIMITS
from unbroken.requests import NewStream
from unbroken.server.patience import bounded_http

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


@asynccontextmanager
async def crowded() -> AsyncIterator[tuple[Running, Streams, Streams]]:
    """A server that keeps two silent connections, and has them: one has said nothing yet, the other has been answered."""
    limits = replace(DEFAULT_LIMITS, silent_connections_max=2, long_poll_seconds=3_600.0)
    async with running_server(Speed.STANDALONE, limits=limits) as running, asyncio.timeout(CEILING_SECONDS):
        await running.services.streams.create(LOCAL, "a", NewStream())
        first, second = await connected(running.port), await answered(await connected(running.port))
        yield running, first, second
        for streams in (first, second):
            streams[1].transport.abort()


async def answered(streams: Streams) -> Streams:
    streams[1].write(GET + b"\r\n")
    assert (await streams[0].readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    assert await streams[0].readuntil(b"}") == b'{"alive":true}'
    return streams


@pytest.mark.scenario("SEC-003")
async def test_of_too_many_silent_connections_the_longest_silent_is_cut_off_and_who_speaks_is_heard() -> None:
    async with crowded() as (running, first, second):
        third = await answered(await connected(running.port))
        assert await cut_off(first) == b""
        fourth = await answered(await connected(running.port, b"\r\n"))
        assert await cut_off(second) == b""
        for streams in (third, fourth):
            await left((await answered(streams))[1])


@pytest.mark.scenario("SEC-003")
async def test_who_waits_for_an_answer_or_has_a_websocket_is_not_silent() -> None:
    async with crowded() as (running, first, second), running.peer() as peer:
        host = b"Host: 127.0.0.1:%d\r\n" % running.port
        polling = await connected(
            running.port, b"GET /v1/messages/a?live=long-poll&after=now HTTP/1.1\r\n" + host + b"\r\n"
        )
        assert await cut_off(first) == b"", "there was one too many before it had asked"
        more = [await answered(await connected(running.port)) for _ in range(4)]
        assert await cut_off(second) == b""
        append = (
            b"POST /v1/messages/a HTTP/1.1\r\n"
            + host
            + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
        )
        message = b'{"messages": [{"text": "at last"}]}'
        more[-1][1].write(append % (len(message), message))
        assert (await polling[0].readline()).startswith(b"HTTP/1.1 200 ")
        assert await (await peer.socket.ping()) >= 0
        for streams in (polling, *more):
            streams[1].transport.abort()


PATIENT = replace(DEFAULT_LIMITS, silent_connections_max=2, handshake_seconds_max=3_600.0, discard_seconds_max=3_600.0)


@pytest.mark.scenario("SEC-003")
@pytest.mark.parametrize(
    ("head", "status"),
    [
        pytest.param(GET + b"Content-Length: 1\r\n\r\n", b"200", id="a body of which nothing comes"),
        pytest.param(
            b"POST /v1/messages/a HTTP/1.1\r\nHost: HOST\r\nContent-Length: 99999999\r\n\r\n", b"413", id="a large one"
        ),
    ],
)
async def test_who_was_answered_and_owes_the_rest_of_a_body_is_silent(head: bytes, status: bytes) -> None:
    async with running_server(Speed.STANDALONE, limits=PATIENT) as running, asyncio.timeout(CEILING_SECONDS):
        head = head.replace(b"HOST", b"127.0.0.1:%d" % running.port)
        all_of_them = []
        for _ in range(3):
            streams = await connected(running.port, head)
            assert (await streams[0].readline()).startswith(b"HTTP/1.1 %b " % status)
            all_of_them.append(streams)
        await cut_off(all_of_them[0])
        await left((await answered(await connected(running.port)))[1])
        for streams in all_of_them[1:]:
            streams[1].transport.abort()


@pytest.mark.scenario("SEC-003")
async def test_handshakes_of_tls_that_do_not_end_count_as_silent_connections(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path / "server.pem")
    async with (
        running_server(Speed.STANDALONE, limits=PATIENT, certificate=certificate) as running,
        asyncio.timeout(CEILING_SECONDS),
    ):
        half = [await connected(running.port, part) for part in (b"", b"\x16\x03\x01", b"")]
        assert await cut_off(half[0]) == b""
        encrypted = await asyncio.open_connection("127.0.0.1", running.port, ssl=trusting(certificate))
        assert await cut_off(half[1]) == b""
        for _ in range(2):
            await answered(encrypted)
        for streams in (*half[2:], encrypted):
            streams[1].transport.abort()


WEBSOCKET = (
    b"GET PATH HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
)
KEY = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"


@pytest.mark.scenario("SEC-003")
@pytest.mark.parametrize(
    ("sent", "status"),
    [
        pytest.param(GET + b"Connection: close\r\n\r\n", b"200", id="asked for"),
        pytest.param(GET + b"Host: b\r\n\r\n", b"400", id="no request"),
        pytest.param(WEBSOCKET.replace(b"PATH", b"/v1/ws") + b"\r\n", b"400", id="no handshake"),
        pytest.param(WEBSOCKET.replace(b"PATH", b"/v1/ws") + KEY + b"\r\n", b"403", id="a refused handshake"),
        pytest.param(WEBSOCKET.replace(b"PATH", b"/other") + KEY + b"\r\n", b"404", id="no such handshake"),
    ],
)
async def test_who_does_not_let_a_connection_of_tls_end_is_silent(tmp_path: Path, sent: bytes, status: bytes) -> None:
    certificate = make_certificate(tmp_path / "server.pem")

    def stubborn(port: int) -> socket.socket:
        """Asks, is answered, and says no goodbye."""
        encrypted = trusting(certificate).wrap_socket(
            socket.create_connection(("127.0.0.1", port)), server_hostname="127.0.0.1"
        )
        encrypted.sendall(sent)
        assert encrypted.recv(65_536).startswith(b"HTTP/1.1 %b " % status)
        while encrypted.recv(65_536):
            pass
        return socket.socket(fileno=encrypted.detach())

    async with (
        running_server(Speed.STANDALONE, limits=PATIENT, certificate=certificate) as running,
        asyncio.timeout(CEILING_SECONDS),
    ):
        peers = [await asyncio.to_thread(stubborn, running.port) for _ in range(3)]
        peers[0].setblocking(False)
        with suppress(ConnectionResetError):
            assert await asyncio.get_running_loop().sock_recv(peers[0], 1) == b""
        for peer in peers:
            peer.close()


@pytest.mark.skipif(sys.platform == "win32", reason="not run: there is no such bound")
def test_silent_connections_take_at_most_half_of_the_files_that_may_be_open() -> None:
    import resource  # noqa: PLC0415 - not there on Windows

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1_000, before[1]))
    try:
        assert bounded_http(DEFAULT_LIMITS).silent.most == 500
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
