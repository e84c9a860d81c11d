"""What is sent around the parts of a body in chunks, and is none of it: sizes, extensions and trailers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import repeat

import pytest

from tests.support.speeds import Speed, running_server
from unbroken.auth.access import Access
from unbroken.limits import DEFAULT_LIMITS

pytestmark = [pytest.mark.anyio, pytest.mark.scenario("SEC-003")]
LIMITS = replace(DEFAULT_LIMITS, head_bytes_max=4_096, silence_seconds_max=3_600.0)
SECRET = "only-for-this-test"
CEILING_SECONDS = 30.0
BYTES_MAX = 64 * 1024 * 1024
"""More than all that lies between the two ends of a connection."""


@asynccontextmanager
async def sender(token: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A request whose body is to come."""
    access = Access(token=SECRET)
    async with (
        running_server(Speed.STANDALONE, limits=LIMITS, access=access) as running,
        asyncio.timeout(CEILING_SECONDS),
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        lines = ["PUT /v1/streams/a HTTP/1.1", f"Host: 127.0.0.1:{running.port}", f"Authorization: Bearer {token}"]
        writer.write("\r\n".join([*lines, "Transfer-Encoding: chunked", "", ""]).encode())
        try:
            yield reader, writer
        finally:
            writer.transport.abort()


def endless(beginning: bytes, more: bytes) -> Iterator[bytes]:
    yield beginning
    yield from repeat(more, BYTES_MAX // len(more))


async def send(writer: asyncio.StreamWriter, parts: Iterator[bytes]) -> None:
    for part in parts:
        writer.write(part)
        await writer.drain()


@pytest.mark.parametrize("token", [pytest.param(SECRET, id="known"), pytest.param("nobody's", id="a stranger")])
@pytest.mark.parametrize(
    ("beginning", "more"),
    [
        pytest.param(b"1\r\n \r\n0\r\n", b"a:b\r\n" * 1_000, id="trailers"),
        pytest.param(b"1\r\n \r\n0\r\nX-Long: ", b"x" * 5_000, id="a long trailer"),
        pytest.param(b"1;", b"x" * 5_000, id="a long extension"),
    ],
)
async def test_what_is_around_a_body_without_end_ends_the_connection(token: str, beginning: bytes, more: bytes) -> None:
    async with sender(token) as (_, writer):
        with pytest.raises(ConnectionError):
            await send(writer, endless(beginning, more))


async def test_a_body_in_the_smallest_chunks_and_with_a_trailer_is_taken() -> None:
    body = b'{"metadata": {}}' + b" " * 150_000  # in chunks it is more than a server takes in one read
    async with sender(SECRET) as (reader, writer):
        chunks = b"".join(b"1\r\n%c\r\n" % number for number in body)
        writer.write(chunks + b"0\r\nX-Checked: no\r\n\r\n")
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 201 ")
