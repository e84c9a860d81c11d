"""The client, a real server and a network that breaks between them: nothing is lost, doubled or swapped."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.recorded import Observer, complete, produce
from tests.support.server import ServerProcess
from unbroken.client import Client
from unbroken.limits import Limits
from unbroken.testing import (
    Bandwidth,
    Direction,
    FaultProxy,
    HalfOpen,
    History,
    Latency,
    ResetPeer,
    Slicer,
    Timeout,
)

pytestmark = [pytest.mark.anyio, pytest.mark.scenario("INFRA-003")]

MESSAGES = 600
AHEAD_MAX = 150
CEILING = 100.0
STREAM = "fault/stream"
# Backoff is kept short so that many faults fit into one test; everything else is as shipped.
LIMITS = Limits(backoff_seconds_min=0.02, backoff_seconds_max=0.3, handshake_seconds_max=3.0)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    """A server that notices silence within about a second."""
    async with ServerProcess(tmp_path, arguments=["--heartbeat", "0.4"]) as process:
        yield process


class Scene:
    """One producer and two observers behind one proxy, all recorded."""

    def __init__(self, server: ServerProcess, proxy: FaultProxy) -> None:
        self.server = server
        self.proxy = proxy
        self.history = History(now=asyncio.get_running_loop().time)
        self.observers = [
            Observer(proxy.url, self.history, STREAM, f"observer-{number}", limits=LIMITS) for number in range(2)
        ]
        self.over = asyncio.Event()
        self.observers[0].on_message = lambda seen: proxy.message()

    async def seen(self, count: int) -> None:
        """Wait until every observer has got so many messages."""
        while min(observer.seen for observer in self.observers) < count:
            await asyncio.sleep(0.005)

    async def connected(self, times: int) -> None:
        """Wait until every observer has had so many connections: a fault on no connection proves nothing."""
        while min(observer.connections for observer in self.observers) < times:
            await asyncio.sleep(0.005)

    async def run(self, faults: Callable[[], Awaitable[None]]) -> None:
        """Stream everything while `faults` does its worst, then judge."""
        async with Client(self.server.url) as direct:
            await direct.create(STREAM)
        async with asyncio.timeout(CEILING), asyncio.TaskGroup() as group:
            for observer in self.observers:
                group.create_task(observer.run())
            producing = group.create_task(self._produce())
            await faults()
            self.over.set()
            self.history.heal()
            count = await producing
        await complete(self.server.url, self.history, STREAM)
        for kind, effect in self.proxy.bites.items():
            self.history.fault(kind, effect)
        report = self.history.check(messages_min=2 * MESSAGES).raise_if_failed()
        assert (report.acknowledged, report.delivered) == (count, 2 * count)

    async def _produce(self) -> int:
        async with Client(self.proxy.url, limits=LIMITS) as client:
            count = await produce(client, self.history, STREAM, "producer", self._go_on)
            await client.close(STREAM)
        return count

    async def _go_on(self, number: int) -> bool:
        """Stay within sight of the slowest observer, and go on slowly until the faults are over."""
        if number >= MESSAGES:
            if self.over.is_set():
                return False
            await asyncio.sleep(0.005)
        while number - min(observer.seen for observer in self.observers) > AHEAD_MAX:
            await asyncio.sleep(0.005)
        return True


@asynccontextmanager
async def scene(server: ServerProcess, *, seed: int = 3) -> AsyncIterator[Scene]:
    async with FaultProxy("127.0.0.1", server.port, seed=seed) as proxy:
        yield Scene(server, proxy)


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
            for observer in stage.observers:
                observer.reconnecting.clear()
            hole = stage.proxy.add(Timeout())
            await hole.bitten()
            for observer in stage.observers:
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
