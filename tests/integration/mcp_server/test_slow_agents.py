"""Agents that send their requests slowly, or not to the end: each is given up in time, and holds nothing."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import cast

import pytest
import uvicorn

from tests.integration.websocket.test_hostile import until
from tests.support.under_way import UnderWay
from unbroken.limits import DEFAULT_LIMITS, Limits
from unbroken.mcp_server.entry import Entry
from unbroken.mcp_server.remote import Remote
from unbroken.mcp_server.transports import http_server
from unbroken.server.patience import BoundedHttp

pytestmark = [pytest.mark.anyio, pytest.mark.scenario("SEC-003")]
LIST = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}).encode()
SILENT = replace(DEFAULT_LIMITS, silence_seconds_max=0.2)
DRIPPED = replace(DEFAULT_LIMITS, silence_seconds_max=0.4, body_bytes_per_second_min=1_000_000)


@asynccontextmanager
async def running(limits: Limits, token: str | None = None) -> AsyncIterator[uvicorn.Server]:
    """An MCP server over HTTP; it lists its tools without asking anybody."""
    remote = Remote("http://127.0.0.1:1", limits=limits)
    server = http_server(remote, Entry(host="127.0.0.1", port=0, token=token))
    async with asyncio.timeout(30), remote, asyncio.TaskGroup() as tasks:
        tasks.create_task(server._serve())
        while not server.started:
            await asyncio.sleep(0.005)
        try:
            yield server
        finally:
            server.should_exit = True


@asynccontextmanager
async def serving(limits: Limits, token: str | None = None) -> AsyncIterator[int]:
    """The port of such a server."""
    async with running(limits, token) as server:
        yield port_of(server)


def port_of(server: uvicorn.Server) -> int:
    port: int = server.servers[0].sockets[0].getsockname()[1]
    return port


@asynccontextmanager
async def asking(port: int, *, length: int | None, token: str = "none") -> AsyncIterator[Asking]:
    """A request whose body is to come; in chunks when `length` is None."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = ["POST /mcp HTTP/1.1", f"Host: 127.0.0.1:{port}", f"Authorization: Bearer {token}"]
    lines += ["Accept: application/json, text/event-stream", "Content-Type: application/json"]
    lines += ["Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}", "", ""]
    writer.write("\r\n".join(lines).encode())
    try:
        yield Asking(reader, writer)
    finally:
        writer.transport.abort()


class Asking(UnderWay):
    """One agent's request under way."""

    async def status(self) -> int:
        """The status of the answer, as soon as it has begun."""
        return int((await self._reader.readline()).split()[1])

    async def ended(self) -> bool:
        """Whether the server closes behind its answer."""
        await self._reader.read()
        return True


@pytest.mark.parametrize("token", [None, "only-for-this-test"])
@pytest.mark.parametrize("part", [b"", LIST[:-1]])
async def test_a_request_that_does_not_go_on_is_given_up(part: bytes, token: str | None) -> None:
    async with serving(SILENT, token) as port, asking(port, length=len(LIST), token=token or "none") as one:
        await one.send(part)
        assert await one.status() == 408
        assert await one.ended()


async def test_a_request_that_drips_is_given_up_though_it_is_never_silent_for_long() -> None:
    async with serving(DRIPPED) as port, asking(port, length=100_000) as one, asyncio.TaskGroup() as tasks:
        status = tasks.create_task(one.status())
        while not status.done():
            await one.send(b" ")
            await asyncio.wait([status], timeout=0.02)
        assert status.result() == 408


async def test_a_head_that_does_not_end_ends_the_connection() -> None:
    async with serving(replace(DEFAULT_LIMITS, handshake_seconds_max=0.3)) as port:
        for part in (b"", b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(part)
            assert await reader.read() == b""
            writer.transport.abort()


async def test_what_all_of_them_leave_unfinished_is_bounded_and_given_back() -> None:
    size = 10_000
    limits = replace(DEFAULT_LIMITS, body_uncounted_bytes=0, arriving_bytes_max=2 * size)
    async with serving(limits) as port:
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
            asked = [await stack.enter_async_context(asking(port, length=100_000)) for _ in range(3)]
            answers = [tasks.create_task(one.status()) for one in asked]
            for one in asked:
                await one.send(b" " * size)
            done, others = await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED)
            assert [answer.result() for answer in done] == [429], "whichever came last"
            for other in others:
                other.cancel()
        async with asking(port, length=len(LIST)) as one:
            await one.send(LIST)
            assert await one.status() == 200


async def test_a_request_that_comes_in_pieces_is_answered_and_one_that_grows_too_large_is_not() -> None:
    async with serving(DEFAULT_LIMITS) as port:
        async with asking(port, length=len(LIST)) as one:
            await one.send(LIST[:10])
            await one.send(LIST[10:])
            assert await one.status() == 200
        async with asking(port, length=None) as one:
            for _ in range(17):
                await one.send(b"10000\r\n" + b" " * 65_536 + b"\r\n")
            assert await one.status() == 413


async def test_an_agent_that_takes_no_answer_is_cut_off() -> None:
    request = (
        "POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:1\r\nContent-Type: application/json\r\n"
        f"Accept: application/json, text/event-stream\r\nContent-Length: {len(LIST)}\r\n\r\n"
    ).encode() + LIST
    async with running(SILENT) as server:
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port_of(server)))
        _, writer = await asyncio.open_connection(sock=connection, limit=1_024)
        try:
            connections = server.server_state.connections
            await until(lambda: len(connections) == 1)
            protocol = cast("BoundedHttp", next(iter(connections)))
            protocol.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
            writer.write(request)
            await until(lambda: protocol.cycle is not None)
            while not protocol.transport.get_write_buffer_size() and connections:
                await until(lambda: protocol.cycle.response_complete)
                writer.write(request * 10)
                await until(lambda: not protocol.cycle.response_complete or not connections)
            await until(lambda: not connections)
        finally:
            writer.transport.abort()


async def test_strangers_who_only_hold_connections_keep_nobody_out() -> None:
    limits = replace(DEFAULT_LIMITS, agent_calls_max=2)
    async with running(limits, "only-for-this-test") as server:
        port = port_of(server)
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(4 * limits.agent_calls_max)]
        try:
            async with asking(port, length=len(LIST)) as stranger:
                await stranger.send(LIST)
                assert await stranger.status() == 401
            async with asking(port, length=len(LIST), token="only-for-this-test") as owner:
                await owner.send(LIST)
                assert await owner.status() == 200
            await until(lambda: len(server.server_state.connections) == len(idle))
        finally:
            for _, writer in idle:
                writer.transport.abort()


async def test_requests_beyond_as_many_as_may_come_at_once_are_refused_and_taken_when_others_are_done() -> None:
    limits = replace(DEFAULT_LIMITS, agent_calls_max=1)
    async with running(limits, "only-for-this-test") as server, AsyncExitStack() as others:
        port = port_of(server)

        async def asked() -> Asking:
            return await others.enter_async_context(asking(port, length=len(LIST), token="only-for-this-test"))

        first = [await asked() for _ in range(4 * limits.agent_calls_max)]
        await until(lambda: len(server.server_state.tasks) == len(first))
        one = await asked()
        assert await one.status() == 503
        await first[0].send(LIST)
        assert await first[0].status() == 200
        one = await asked()
        await one.send(LIST)
        assert await one.status() == 200
