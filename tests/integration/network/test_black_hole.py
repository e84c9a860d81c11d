"""A network that swallows everything without a word, and one that flaps: both ends notice, come back, and lose nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Page

from tests.e2e.screen import Screen
from tests.e2e.writer import Writer
from tests.support.metrics import metric, until_metric
from tests.support.scene import Scene
from tests.support.server import ServerProcess
from unbroken.testing import Direction, FaultProxy, Latency, Slicer, Timeout

pytestmark = pytest.mark.anyio

SOCKETS = 'unbroken_connections{face="websocket"}'


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    """A server that notices silence within about a second."""
    async with ServerProcess(tmp_path, arguments=["--heartbeat", "0.4"]) as process:
        yield process


@pytest.mark.scenario("TC-EDGE-001")
@pytest.mark.parametrize("direction", list(Direction))
async def test_a_black_hole_is_noticed_by_both_sides_and_costs_nothing(
    server: ServerProcess, direction: Direction
) -> None:
    async with FaultProxy("127.0.0.1", server.port, seed=11) as proxy:
        scene = Scene(server.url, proxy.url, proxy, messages=200)

        async def black_hole() -> None:
            await scene.seen(60)
            clients = len(scene.sockets) + 1
            assert await metric(server.url, SOCKETS) == clients
            for observer in scene.sockets:
                observer.reconnecting.clear()
            hole = proxy.add(Timeout(), direction=direction)
            await hole.bitten()
            for observer in scene.sockets:
                await observer.reconnecting.wait()  # the client's side: nothing was heard for too long
            if direction is not Direction.DOWNSTREAM:  # what comes from clients that connect anew still arrives there
                await until_metric(
                    server.url, SOCKETS, lambda count: count == 0
                )  # the server's side: neither FIN nor RST ever reached it
            hole.remove()

        await scene.run(black_hole)
        assert all(observer.connections >= 2 for observer in scene.sockets)


@pytest.mark.scenario("TC-EDGE-001")
async def test_the_page_notices_a_black_hole_and_goes_on(server: ServerProcess, page: Page) -> None:
    async with FaultProxy("127.0.0.1", server.port, seed=12) as proxy, Writer(server.url, "hole/page") as writer:
        screen = await Screen.watch(page, proxy.url)
        await writer.create(kind="run")
        await writer.words(20)
        await screen.open(writer.stream)
        await screen.until_words(20)
        hole = proxy.hold()
        await writer.words(20)
        await hole.bitten()
        await screen.until_badge("reconnecting")
        await until_metric(server.url, SOCKETS, lambda count: count == 0)
        assert await screen.words() == list(range(20)), "what was received stays readable"
        hole.remove()
        rules = await screen.until_resumed()
        assert "· 0 lost" in rules[0], rules
        await screen.until_words(writer.acked)
        await writer.close("completed")
        await screen.until_badge("ended")
        assert await screen.words() == list(range(writer.acked))


@pytest.mark.scenario("TC-EDGE-002")
async def test_a_link_that_flaps_lags_and_resets_makes_progress_each_time(server: ServerProcess) -> None:
    async with FaultProxy("127.0.0.1", server.port, seed=13) as proxy:
        scene = Scene(server.url, proxy.url, proxy, sse=True, messages=400)
        proxy.add(Latency(0.005, jitter_seconds=0.005))
        proxy.add(Slicer(300, variation_bytes=250), direction=Direction.DOWNSTREAM)

        async def flap() -> None:
            for number in range(1, 9):
                await scene.seen(40 * number)
                before, failures = scene.connections(), scene.failures()
                if number % 2:
                    assert await proxy.down() > 0
                    await scene.in_vain(failures)
                    await proxy.up()
                else:
                    assert proxy.reset() > 0
                await scene.again(before)

        await scene.run(flap)
        assert proxy.bites["down"] == 4
        assert proxy.bites["reset"] > 4
        assert {"Latency", "Slicer"} <= proxy.bites.keys()
