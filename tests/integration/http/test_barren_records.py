"""Records of TLS that carry nothing hold up nobody, and those that carry little are read like any other."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx2
import pytest

from tests.support.certificates import make_certificate, trusting
from tests.support.new_keys import NewKeys
from tests.support.speeds import Running, Speed, running_server
from unbroken.server.encrypted import Measured

pytestmark = [pytest.mark.anyio, pytest.mark.scenario("SEC-003")]
CEILING_SECONDS = 30.0
GET = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"
TICKETS_BYTES_MAX, ANSWER_BYTES_MIN = 600, 300
"""What the server says by itself, and what it answers."""
ALLOWED = 100
FLOOD = 5_000
"""Times 27 bytes: four times of what is allowed in a second."""


@asynccontextmanager
async def peer(directory: Path) -> AsyncIterator[tuple[Running, NewKeys]]:
    certificate = make_certificate(directory / "server.pem")
    async with (
        running_server(Speed.STANDALONE, certificate=certificate) as running,
        asyncio.timeout(CEILING_SECONDS),
    ):
        peer = NewKeys(*await asyncio.open_connection("127.0.0.1", running.port))
        await peer.shake_hands(trusting(certificate), directory / "secrets")
        try:
            yield running, peer
        finally:
            peer.writer.transport.abort()


@pytest.mark.parametrize("back", [False, True])
async def test_whoever_has_new_keys_without_end_is_cut_off(tmp_path: Path, *, back: bool) -> None:
    async with peer(tmp_path) as (_, flooding):
        flooding.writer.write(b"".join(flooding.new_key(back=back) for _ in range(FLOOD)) + flooding.data(GET))
        got = b""
        with suppress(ConnectionResetError):
            while part := await flooding.reader.read(65_536):
                got += part
        assert len(got) < FLOOD * 27, "all of them were answered"


async def test_some_new_keys_and_many_small_records_are_taken(tmp_path: Path) -> None:
    async with peer(tmp_path) as (_, ordinary):
        for _ in range(3):
            ordinary.writer.write(b"".join(ordinary.new_key(back=False) for _ in range(ALLOWED)))
            head = GET[:-2] + b"X-Long: " + b"x" * 5_000 + b"\r\n\r\n"
            ordinary.writer.write(b"".join(ordinary.data(head[place : place + 1]) for place in range(len(head))))
        await ordinary.reader.readexactly(TICKETS_BYTES_MAX + 3 * ANSWER_BYTES_MIN)


async def test_large_bodies_are_taken_whole(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path / "server.pem")
    async with (
        running_server(Speed.STANDALONE, certificate=certificate) as running,
        asyncio.timeout(CEILING_SECONDS),
        httpx2.AsyncClient(verify=trusting(certificate), base_url=f"https://127.0.0.1:{running.port}") as client,
    ):
        await client.put("/v1/streams/large", json={})
        messages = {"messages": [{"text": "x" * 900_000} for _ in range(5)]}
        assert (await client.post("/v1/messages/large", json=messages)).status_code == 200


def test_nothing_is_negotiated_twice() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.options &= ~ssl.OP_NO_RENEGOTIATION
    Measured(context)
    assert context.options & ssl.OP_NO_RENEGOTIATION
