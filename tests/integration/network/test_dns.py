"""A name that stops resolving and then means another address: the client says so, keeps trying, and goes on."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from tests.support.scene import CEILING, LIMITS, STREAM, Scene
from tests.support.server import ServerProcess
from unbroken.client import Client, ConnectionStatus, StatusEvent
from unbroken.testing import FaultProxy, FaultyResolver

pytestmark = pytest.mark.anyio

NAME = "streams.test"
BEFORE, AFTER = "127.0.0.1", "127.0.0.2"


@pytest.mark.scenario("TC-EDGE-003")
@pytest.mark.parametrize(
    "error", [socket.EAI_NONAME, socket.EAI_AGAIN, None], ids=["no such name", "the resolver fails", "no answer"]
)
async def test_a_name_that_stops_resolving_and_moves_is_followed(tmp_path: Path, error: int | None) -> None:
    async with (
        ServerProcess(tmp_path, arguments=["--anonymous", "--allow-host", NAME]) as server,
        FaultProxy("127.0.0.1", server.port, listen=(BEFORE, 0)) as old,
        FaultProxy("127.0.0.1", server.port, listen=(AFTER, old.port)) as new,
    ):
        entry = f"http://{NAME}:{old.port}"
        scene = Scene(server.url, entry, sse=True, messages=300)
        with FaultyResolver({NAME: BEFORE}) as names:

            async def the_name_moves() -> None:
                await scene.seen(100)
                assert new.accepted == 0
                failures = scene.failures()
                names.hang(NAME) if error is None else names.fail(NAME, error)
                assert await old.down() > 0
                await names.asked(NAME, 6)
                await scene.in_vain(failures)  # also where nobody answers, a try is given up in bounded time
                names.point(NAME, AFTER)
                scene.faults["name moved"] += 1

            await scene.run(the_name_moves)
            assert names.lookups[NAME] > names.bites[NAME] > 0
        assert new.accepted >= len(scene.observers)


@pytest.mark.scenario("TC-EDGE-003")
async def test_the_client_says_why_there_is_no_connection(tmp_path: Path) -> None:
    told: list[StatusEvent] = []
    async with (
        ServerProcess(tmp_path, arguments=["--anonymous", "--allow-host", NAME]) as server,
        asyncio.timeout(CEILING),
    ):
        with FaultyResolver() as names:
            names.fail(NAME)
            async with Client(f"http://{NAME}:{server.port}", limits=LIMITS, on_status=told.append) as client:
                await names.asked(NAME, 4)
                assert client.status is ConnectionStatus.RECONNECTING
                names.point(NAME, BEFORE)
                await client.wait_status(ConnectionStatus.LIVE)
                await client.create(STREAM)
    tries = [event for event in told if event.status is ConnectionStatus.RECONNECTING]
    assert len(tries) >= 3
    assert all("gaierror" in str(event.error) and event.retry_seconds for event in tries)
