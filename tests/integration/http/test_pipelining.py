"""Requests that are sent without waiting for answers: a few wait their turn, and nobody has the server keep a heap."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import pytest

from tests.support.speeds import Running, Speed, running_server
from unbroken.identity import Principal, Verb
from unbroken.limits import DEFAULT_LIMITS
from unbroken.messages import NewMessage
from unbroken.requests import NewStream

pytestmark = [pytest.mark.anyio, pytest.mark.scenario("SEC-003")]
LIMITS = replace(DEFAULT_LIMITS, pipelined_requests_max=4)
CEILING_SECONDS = 30.0
GET = b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
ANSWER = b"HTTP/1.1 "
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def connected() -> AsyncIterator[Streams]:
    async with running_server(Speed.STANDALONE, limits=LIMITS) as running, asyncio.timeout(CEILING_SECONDS):
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        try:
            yield reader, writer
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


async def until(reader: asyncio.StreamReader, last: bytes) -> bytes:
    """What comes until `last` is there, or the connection is closed."""
    received = b""
    while last not in received and (part := await reader.read(65_536)):
        received += part
    return received


async def test_as_many_as_may_wait_are_answered_in_their_order_and_the_connection_goes_on() -> None:
    names = [b"nobody-%d" % number for number in range(1 + LIMITS.pipelined_requests_max)]
    async with connected() as (reader, writer):
        host = b"127.0.0.1:%d" % writer.get_extra_info("peername")[1]
        for _ in range(3):
            writer.write(b"".join(b"GET /v1/streams/%b HTTP/1.1\r\nHost: %b\r\n\r\n" % (name, host) for name in names))
            received = await until(reader, names[-1])
            places = [received.index(name) for name in names]
            assert places == sorted(places)
            assert received.count(ANSWER + b"404") == len(names)
            assert b"connection: close" not in received


@pytest.mark.parametrize("count", [pytest.param(1, id="one more"), pytest.param(60, id="many more")])
@pytest.mark.parametrize(
    "after", [pytest.param(b"", id=""), pytest.param(b"no HTTP at all\r\n\r\n", id="and nonsense")]
)
async def test_beyond_that_the_connection_ends_with_the_answer_to_the_last_one_that_may(
    count: int, after: bytes
) -> None:
    most = 1 + LIMITS.pipelined_requests_max
    async with connected() as (reader, writer):
        writer.write(GET * (most + count) + after)
        received = await reader.read()
    assert received.count(ANSWER + b"200") == received.count(ANSWER) == most
    assert received.rpartition(ANSWER)[2].lower().count(b"connection: close\r\n") == 1
    assert b"connection: close" not in received.rpartition(ANSWER)[0].lower()


async def test_who_sends_them_for_ever_is_cut_off_after_as_many() -> None:
    received = bytearray()

    async def read() -> None:
        with suppress(ConnectionError):
            while part := await reader.read(65_536):
                received.extend(part)

    async with connected() as (reader, writer), asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(read())
        with suppress(ConnectionError):
            while not reading.done():
                writer.write(GET * 1_000)
                await writer.drain()
    assert received.count(ANSWER) <= 1 + LIMITS.pipelined_requests_max


@asynccontextmanager
async def long_reading(*behind: bytes, live: str) -> AsyncIterator[tuple[Running, Streams]]:
    """A response that waits for news, with other requests behind it."""
    limits = replace(LIMITS, long_poll_seconds=3_600.0, sse_seconds_max=3_600.0)
    async with running_server(Speed.STANDALONE, limits=limits) as running, asyncio.timeout(CEILING_SECONDS):
        await running.services.streams.create(Principal(), "a", NewStream())
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        try:
            first = b"GET /v1/messages/a?live=%b HTTP/1.1" % live.encode()
            host = b"Host: 127.0.0.1:%d" % running.port
            requests = [b"\r\n".join((first, host, b"", b"")), *[each.replace(b"HOST", host) for each in behind]]
            writer.write(b"".join(requests))
            await open_responses(running, live, 1)
            yield running, (reader, writer)
        finally:
            writer.transport.abort()


async def open_responses(running: Running, face: str, count: int) -> None:
    while running.services.metrics.connections.labels(face)._value.get() != count:
        await asyncio.sleep(0.005)


HANDSHAKE = (
    b"GET /v1/ws HTTP/1.1\r\nHOST\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: unbroken.v1\r\n\r\n"
)


@pytest.mark.parametrize("between", [pytest.param((), id="next"), pytest.param((GET,), id="after another")])
async def test_a_handshake_that_waits_for_no_answer_ends_the_connection_and_takes_no_transport(
    between: tuple[bytes, ...],
) -> None:
    async with long_reading(*between, HANDSHAKE, live="long-poll") as (running, (reader, writer)):
        writer.write(b"what is behind it")
        stream = await running.services.streams.get(Principal(), "a", may=Verb.APPEND)
        await running.services.streams.append_durably(stream, [NewMessage(kind="message", text="news")])
        received = await reader.read()
        assert received.count(ANSWER) == received.count(ANSWER + b"200 ") == 1 + len(between)
        assert received.rpartition(ANSWER)[2].lower().count(b"connection: close\r\n") == 1


@pytest.mark.parametrize("live", ["sse", "long-poll"])
async def test_who_leaves_with_requests_waiting_is_noticed_by_the_one_that_is_answered(live: str) -> None:
    async with long_reading(GET, live=live) as (running, (_, writer)):
        writer.transport.abort()
        await open_responses(running, live, 0)
