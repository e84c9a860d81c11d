"""The client, a real server and a network that breaks between them: nothing is lost, doubled or swapped."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.scene import LIMITS, Scene
from tests.support.server import ServerProcess
from unbroken.limits import Limits
from unbroken.testing import (
    Bandwidth,
    Direction,
    FaultProxy,
    HalfOpen,
    Latency,
    ResetPeer,
    Slicer,
    Timeout,
)

pytestmark = [pytest.mark.anyio, pytest.mark.scenario("INFRA-003")]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    """A server that notices silence within about a second."""
    async with ServerProcess(tmp_path, arguments=["--heartbeat", "0.4"]) as process:
        yield process


@asynccontextmanager
async def scene(server: ServerProcess, *, seed: int = 3) -> AsyncIterator[Scene]:
    async with FaultProxy("127.0.0.1", server.port, seed=seed) as proxy:
        yield Scene(server.url, proxy.url, proxy)


async def test_resets_at_every_stage_lose_nothing(server: ServerProcess) -> None:
    async with scene(server) as stage:
        resets = [
            stage.proxy.add(ResetPeer(), direction=direction, after_messages=60 * number, times=2)
            for number, direction in enumerate(
                [Direction.DOWNSTREAM, Direction.UPSTREAM, Direction.BOTH, Direction.DOWNSTREAM], 1
            )
        ]

        async def all_bitten() -> None:
            for reset in resets:
                await reset.bitten(2)

        await stage.run(all_bitten)
        assert stage.proxy.bites["ResetPeer"] == 8


async def test_a_slow_jittery_sliced_and_resetting_link_loses_nothing(server: ServerProcess) -> None:
    async with scene(server) as stage:
        stage.proxy.add(Latency(0.02, jitter_seconds=0.02))
        stage.proxy.add(Slicer(60, variation_bytes=40), direction=Direction.DOWNSTREAM)
        stage.proxy.add(Bandwidth(400_000), direction=Direction.DOWNSTREAM)
        reset = stage.proxy.add(ResetPeer(), after_messages=150, times=3)
        await stage.run(lambda: reset.bitten(3))
        assert {"Latency", "Slicer", "Bandwidth", "ResetPeer"} <= stage.proxy.bites.keys()


async def test_a_black_hole_is_noticed_by_silence_and_everything_goes_on_when_it_heals(server: ServerProcess) -> None:
    async with scene(server) as stage:

        async def black_hole() -> None:
            await stage.seen(100)
            for observer in stage.sockets:
                observer.reconnecting.clear()
            hole = stage.proxy.add(Timeout())
            await hole.bitten()
            for observer in stage.sockets:
                await observer.reconnecting.wait()
            hole.remove()

        await stage.run(black_hole)
        assert all(observer.connections >= 2 for observer in stage.observers)


async def test_a_half_open_connection_is_replaced(server: ServerProcess) -> None:
    async with scene(server) as stage:
        half = stage.proxy.add(HalfOpen(), direction=Direction.DOWNSTREAM, after_messages=100, times=3)
        await stage.run(lambda: half.bitten(3))
        assert half.bites == 3


async def test_a_flapping_link_makes_progress(server: ServerProcess) -> None:
    async with scene(server) as stage:

        async def flap() -> None:
            for number in range(1, 8):
                await stage.seen(40 * number)
                await stage.connected(number)
                assert await stage.proxy.down() > 0
                await stage.proxy.up()

        await stage.run(flap)
        assert stage.proxy.bites["down"] == 7


@pytest.mark.parametrize("kill", [True, False], ids=["kill -9", "SIGTERM"])
async def test_a_server_restarted_in_mid_stream_loses_nothing(server: ServerProcess, kill: bool) -> None:
    async with scene(server) as stage:

        async def restart() -> None:
            for number in range(1, 4):
                await stage.seen(80 * number)
                await stage.connected(number)
                await server.restart(kill=kill)
                stage.history.fault("restart")
            await stage.connected(4)

        await stage.run(restart)
        assert server.starts == 4
        assert all(observer.connections >= 4 for observer in stage.observers)


async def test_a_run_through_a_proxy_without_faults_is_clean_and_needs_one_connection_each(
    server: ServerProcess,
) -> None:
    async with scene(server) as stage:
        await stage.run(lambda: asyncio.sleep(0))
        assert [observer.connections for observer in stage.observers] == [1, 1]
        assert stage.proxy.bites == {}


async def test_the_limits_of_this_test_differ_from_the_shipped_ones_in_time_only() -> None:
    changed = {
        field.name
        for field in dataclasses.fields(Limits)
        if getattr(LIMITS, field.name) != getattr(Limits(), field.name)
    }
    assert changed == {"backoff_seconds_min", "backoff_seconds_max", "handshake_seconds_max"}
