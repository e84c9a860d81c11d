"""Writing past ASGI: nothing is written to a transport that takes no more, or never again."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from unbroken.server.direct import Direct, piece

pytestmark = pytest.mark.anyio


async def test_nothing_is_written_to_a_transport_that_is_paused_or_closing() -> None:
    came: asyncio.Future[asyncio.StreamWriter] = asyncio.get_running_loop().create_future()

    async def accept(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.set_result(writer)

    async with await asyncio.start_server(accept, "127.0.0.1") as server, asyncio.timeout(20):
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        transport = (await came).transport
        cycle: Any = SimpleNamespace(transport=transport, flow=SimpleNamespace(write_paused=False))
        direct = Direct(cycle)
        assert direct.write(piece(b"0123456789abcdef!"))
        cycle.flow.write_paused = True
        assert not direct.write(piece(b"paused"))
        cycle.flow.write_paused = False
        transport.close()
        assert not direct.write(piece(b"closing"))
        assert await reader.read() == b"11\r\n0123456789abcdef!\r\n"
        writer.close()
