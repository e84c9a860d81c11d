"""A slow reader of a long answer is not cut off as long as it goes on taking; one that stops is, however it was before."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal, cast, get_args

import pytest

from tests.integration.websocket.test_hostile import until
from tests.support.certificates import make_certificate, trusting
from tests.support.speeds import LOCAL, Running, Speed, running_server
from unbroken.limits import DEFAULT_LIMITS
from unbroken.messages import NewMessage
from unbroken.requests import NewStream
from unbroken.server import undelivered
from unbroken.server.patience import BoundedHttp

pytestmark = [pytest.mark.anyio, pytest.mark.scenario("SEC-003")]
TEXT = "x" * 900_000
COUNT = 30


Way = Literal["plain", "tls", "untold"]


class Reader:
    """A peer that has asked for a file that is larger than what a loopback connection holds; it takes what it is told to."""

    def __init__(self, stream: asyncio.StreamReader, protocol: BoundedHttp) -> None:
        self._stream = stream
        self.protocol = protocol

    async def take(self, size: int) -> None:
        await self._stream.readexactly(size)
        await until(lambda: self.protocol.flow.write_paused)


@asynccontextmanager
async def downloading(way: Way, tmp_path: Path) -> AsyncIterator[tuple[Running, Reader]]:
    certificate = make_certificate(tmp_path / "server.pem") if way == "tls" else None
    limits = replace(DEFAULT_LIMITS, silence_seconds_max=3_600.0)
    async with (
        running_server(Speed.STANDALONE, limits=limits, certificate=certificate) as running,
        asyncio.timeout(60),
    ):
        stream = (await running.services.streams.create(LOCAL, "a", NewStream())).stream
        for _ in range(COUNT):
            await running.services.streams.append_durably(stream, [NewMessage(text=TEXT)])
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", running.port))
        tls = None if certificate is None else trusting(certificate)
        named = None if tls is None else "127.0.0.1"
        reader, writer = await asyncio.open_connection(sock=connection, ssl=tls, server_hostname=named, limit=16 * 1024)
        try:
            writer.write(f"GET /v1/content/a HTTP/1.1\r\nHost: 127.0.0.1:{running.port}\r\n\r\n".encode())
            connections = running.server.server_state.connections
            await until(lambda: len(connections) == 1)
            protocol = cast("BoundedHttp", next(iter(connections)))
            await until(lambda: protocol.flow.write_paused)
            yield running, Reader(reader, protocol)
        finally:
            writer.transport.abort()


@pytest.mark.parametrize("way", get_args(Way))
async def test_who_takes_a_long_answer_steadily_is_not_cut_off_and_who_stops_is(
    way: Way, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "untold":
        monkeypatch.setattr(undelivered, "_ask", lambda *_: None)
    async with downloading(way, tmp_path) as (running, reader):
        watch = reader.protocol._undelivered
        for _ in range(6):  # a kernel that is not asked is heard of when much of its own buffer is free
            await reader.take(3_000_000 if way == "untold" else 300_000)
            watch._look()
            assert not reader.protocol.transport.is_closing()
        for _ in range(3):
            watch._look()
        assert reader.protocol.transport.is_closing()
        await until(lambda: not running.server.server_state.connections)
