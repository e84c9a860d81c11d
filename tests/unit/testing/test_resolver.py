"""The faulty resolver answers for its names alone, and only while its block lasts."""

from __future__ import annotations

import asyncio
import socket

import pytest

from unbroken.testing import FaultProxy, FaultyResolver

pytestmark = [pytest.mark.anyio, pytest.mark.scenario("INFRA-003")]

NAME = "somewhere.test"


async def address(name: str) -> str:
    found = await asyncio.get_running_loop().getaddrinfo(name, 80, type=socket.SOCK_STREAM)
    return str(found[0][4][0])


async def test_a_name_resolves_fails_and_moves_as_told() -> None:
    with FaultyResolver({NAME: "127.0.0.1"}) as names:
        assert await address(NAME) == "127.0.0.1"
        names.fail(NAME, socket.EAI_AGAIN)
        with pytest.raises(socket.gaierror) as raised:
            await address(NAME)
        assert raised.value.errno == socket.EAI_AGAIN
        names.point(NAME, "127.0.0.2")
        assert await address(NAME) == "127.0.0.2"
        assert await address("127.0.0.3") == "127.0.0.3", "what it was not told of is the system's"
    assert (names.lookups[NAME], names.bites[NAME]) == (3, 1)


async def test_a_resolver_that_hangs_holds_up_whoever_asks_and_nobody_else() -> None:
    with FaultyResolver() as names:
        names.hang(NAME)
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            waiting = group.create_task(address(NAME))
            await names.asked(NAME)
            assert await address("127.0.0.1") == "127.0.0.1"
            assert not waiting.done()
            names.point(NAME, "127.0.0.4")
        assert waiting.result() == "127.0.0.4"


async def test_behind_its_block_names_are_the_systems_again() -> None:
    loop = asyncio.get_running_loop()
    before = loop.getaddrinfo
    with FaultyResolver({NAME: "127.0.0.1"}):
        assert loop.getaddrinfo != before
    assert loop.getaddrinfo == before


async def test_a_proxy_listens_where_it_is_told_so_that_a_name_can_move_to_it() -> None:
    async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with (
            FaultProxy("127.0.0.1", port) as old,
            FaultProxy("127.0.0.1", port, listen=("127.0.0.2", old.port)) as new,
        ):
            assert (old.port, new.url) == (new.port, f"http://127.0.0.2:{old.port}")
            reader, writer = await asyncio.open_connection("127.0.0.2", new.port)
            assert await reader.read() == b""
            writer.close()
            assert (old.accepted, new.accepted) == (0, 1)
