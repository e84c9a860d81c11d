"""Frames that wait to be handled: what they hold is bounded for each owner, and nobody waits for ever or for another."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from tests.integration.websocket.test_hostile import until
from tests.integration.websocket.test_unfinished_frames import peer_of
from tests.support.faulty import FaultyStore
from tests.support.speeds import Peer, Speed, running_server
from unbroken.auth.access import Access
from unbroken.limits import DEFAULT_LIMITS
from unbroken.requests import NewStream

pytestmark = [pytest.mark.anyio, pytest.mark.scenario("SEC-003"), pytest.mark.parametrize("speed", list(Speed))]
ACCESS = Access(token="only-for-this-test")
SIZE = 60_000


def create(number: int, size: int = SIZE) -> str:
    """A frame of `size` bytes that needs the store."""
    return json.dumps({"type": "create", "id": number, "stream": f"s{number}"}).ljust(size)


async def error_of(peer: Peer) -> str:
    """The limit for which a connection was closed, by its last error."""
    error = await peer.receive("error")
    assert (error["code"], error["retryable"]) == ("overloaded", True)
    assert await peer.closed() == 1013
    return str(error["detail"]["limit"])


async def test_who_has_too_much_wait_on_many_connections_loses_some_and_nobody_else_does(speed: Speed) -> None:
    limits = replace(DEFAULT_LIMITS, owner_unfinished_frames_bytes_max=5 * SIZE)
    store = FaultyStore(limits=limits)
    async with running_server(speed, store=store, limits=limits, access=ACCESS) as server, AsyncExitStack() as stack:
        unfinished = server.services.connections.unfinished
        alices = [await peer_of(server, stack, "alice") for _ in range(8)]
        bob = await peer_of(server, stack, "bob")
        store.hold()
        await bob.socket.send(create(100, 2 * SIZE))
        await until(lambda: unfinished.bytes == 2 * SIZE)
        lost = 0
        for number, peer in enumerate(alices):
            await peer.socket.send(create(number))
            lost = max(0, number - 4)
            await until(lambda number=number: unfinished.bytes == (min(number + 1, 5) + 2) * SIZE)  # type: ignore[misc]
            await until(lambda lost=lost: sum(each.socket.close_code is not None for each in alices) == lost)  # type: ignore[misc]
        assert lost == 3
        gone = [peer for peer in alices if peer.socket.close_code is not None]
        assert [await error_of(peer) for peer in gone] == ["owner_unfinished_frames_bytes_max"] * lost
        store.release()
        for peer in [bob, *(peer for peer in alices if peer not in gone)]:
            assert (await peer.receive("result"))["created"]
        await until(lambda: unfinished.bytes == 0)
        assert len(unfinished) == 0


async def test_whoever_has_much_waiting_is_read_no_further_until_it_is_handled_and_loses_nothing(speed: Speed) -> None:
    limits = replace(DEFAULT_LIMITS, owner_unfinished_frames_bytes_max=10 * SIZE)
    store = FaultyStore(limits=limits)
    async with running_server(speed, store=store, limits=limits, access=ACCESS) as server, AsyncExitStack() as stack:
        unfinished = server.services.connections.unfinished
        first, second = [await peer_of(server, stack, "alice") for _ in range(2)]
        held = list(server.services.connections)
        bob = await peer_of(server, stack, "bob")
        store.hold()
        async with asyncio.TaskGroup() as tasks:
            await first.socket.send(create(0, 6 * SIZE))
            await until(lambda: unfinished.bytes == 6 * SIZE)
            for _ in range(10):
                await second.send(type="cancel", id=0, stream="nope")
            for _ in range(10):
                assert (await second.receive("error"))["code"] == "not_found", "it goes on as its own are handled"

            async def flood() -> None:
                for number in range(1, 100):
                    await second.socket.send(create(number, SIZE // 10))

            tasks.create_task(flood())
            await until(lambda: all(connection.held for connection in held))
            assert not any(connection.reading for connection in held), "their silence means nothing"
            await bob.socket.send(create(0))
            await until(lambda: unfinished.bytes >= 7 * SIZE)
            assert not list(server.services.connections)[-1].held
            store.release()
            assert (await bob.receive("result"))["created"]
            for number in range(1, 100):
                assert (await second.receive("result", "error"))["id"] == number
        assert (await first.receive("result"))["created"]
        await until(lambda: unfinished.bytes == 0)


@pytest.mark.parametrize("waits", ["turn", "room"])
@pytest.mark.parametrize("leaves", [False, True])
async def test_a_frame_that_waits_for_its_turn_goes_with_its_connection(speed: Speed, waits: str, leaves: bool) -> None:
    limits = replace(DEFAULT_LIMITS, append_wait_seconds_max=3_600.0, owner_unfinished_frames_bytes_max=3 * SIZE)
    async with running_server(speed, limits=limits, access=ACCESS) as server, AsyncExitStack() as stack:
        unfinished = server.services.connections.unfinished
        peer = await peer_of(server, stack, "alice")
        (connection,) = server.services.connections
        await server.services.streams.create(connection.principal, "a", NewStream())
        now = server.services.quotas.now()
        server.services.quotas.now = lambda: now
        for account in server.services.quotas._of(connection.principal):
            (account.requests if waits == "turn" else account.bytes).take(10**9)
        frame = json.dumps({"type": "append", "id": 1, "stream": "a", "messages": [{"text": "x"}]})
        await peer.socket.send(frame.ljust(SIZE))
        await until(lambda: unfinished.bytes == SIZE)
        if leaves:
            peer.socket.transport.abort()
        else:
            await peer.socket.send(frame.ljust(2 * SIZE + 1))
            assert await error_of(peer) == "owner_unfinished_frames_bytes_max"
        await until(lambda: unfinished.bytes == 0)
        await server.until("connections", 0)
