"""Who does not read its answers is cut off, and what was kept for it is let go; who reads slowly has them all."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import cast

import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tests.support.speeds import Http, Running, Speed, running_server
from unbroken.identity import Principal
from unbroken.limits import DEFAULT_LIMITS
from unbroken.messages import NewMessage
from unbroken.requests import NewStream

pytestmark = [pytest.mark.anyio, pytest.mark.scenario("SEC-003")]
CEILING_SECONDS = 60.0
TEXT = "x" * 900_000
COUNT = 16
"""Answers: more than a loopback connection holds."""


@asynccontextmanager
async def connected(
    silence_seconds: float, text: str, *, speed: Speed = Speed.STANDALONE, http: Http = "auto"
) -> AsyncIterator[tuple[Running, socket.socket]]:
    """A server with `text` in the stream a, and a socket that takes little at once and has asked for nothing."""
    limits = replace(DEFAULT_LIMITS, silence_seconds_max=silence_seconds)
    async with running_server(speed, limits=limits, http=http) as running, asyncio.timeout(CEILING_SECONDS):
        stream = (await running.services.streams.create(Principal(), "a", NewStream())).stream
        await running.services.streams.append_durably(stream, [NewMessage(kind="message", text=text)])
        with socket.socket() as reader:
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            reader.setblocking(False)
            await asyncio.get_running_loop().sock_connect(reader, ("127.0.0.1", running.port))
            yield running, reader


def request(port: int, *more: str, face: str = "messages") -> str:
    return "\r\n".join([f"GET /v1/{face}/a HTTP/1.1", f"Host: 127.0.0.1:{port}", *more, "", ""])


@asynccontextmanager
async def asked(
    silence_seconds: float, *last: str, speed: Speed = Speed.STANDALONE, http: Http = "auto", face: str = "messages"
) -> AsyncIterator[tuple[Running, socket.socket]]:
    """A socket that has asked for a lot."""
    async with connected(silence_seconds, TEXT, speed=speed, http=http) as (running, reader):
        port = running.port
        asking = request(port, face=face) * (COUNT - 1) + request(port, *last, face=face)
        await asyncio.get_running_loop().sock_sendall(reader, asking.encode())
        yield running, reader


@pytest.mark.parametrize("last", [pytest.param((), id="kept"), pytest.param(("Connection: close",), id="closed")])
async def test_who_takes_nothing_is_cut_off(last: tuple[str, ...]) -> None:
    async with asked(0.4, *last) as (running, reader):
        connections = running.server.server_state.connections
        while not connections:
            await asyncio.sleep(0.005)
        while connections:
            await asyncio.sleep(0.02)
        received = 0
        while part := await asyncio.get_running_loop().sock_recv(reader, 65_536):
            received += len(part)
        assert received < COUNT * len(TEXT)


@pytest.mark.parametrize(("http", "face"), [("h11", "messages"), ("httptools", "messages"), ("httptools", "content")])
async def test_who_takes_nothing_of_an_application_s_own_server_is_cut_off(http: Http, face: str) -> None:
    async with asked(0.4, speed=Speed.TAKEOVER, http=http, face=face) as (running, _):
        connections = running.server.server_state.connections
        while not connections:
            await asyncio.sleep(0.005)
        while connections:
            await asyncio.sleep(0.02)


async def test_who_reads_slowly_gets_everything() -> None:
    async with asked(4.0, "Connection: close") as (_, reader):
        received = 0
        while part := await asyncio.get_running_loop().sock_recv(reader, 65_536):
            received += len(part)
        assert received > COUNT * len(TEXT)


async def test_who_leaves_the_end_of_a_small_answer_is_cut_off_too() -> None:
    async with connected(0.4, "x" * 50_000) as (running, reader):  # the transport never pauses for so little
        connections = running.server.server_state.connections
        while not connections:
            await asyncio.sleep(0.005)
        [protocol] = cast("set[HttpToolsProtocol]", connections)
        asked_for = 0
        while connections:
            answered = running.server.server_state.total_requests == asked_for
            if answered and not protocol.transport.get_write_buffer_size():  # its end does not wait yet: once more
                asked_for += 1
                await asyncio.get_running_loop().sock_sendall(reader, request(running.port).encode())
            await asyncio.sleep(0.005)
