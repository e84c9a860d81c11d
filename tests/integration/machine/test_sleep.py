"""A machine that sleeps, on either side, and a wall clock that jumps: noticed, gone on from, and nobody reaped for it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.e2e.screen import Screen
from tests.e2e.writer import Writer
from tests.support.browser import open_browser
from tests.support.fake_clock import FakeClock
from tests.support.metrics import metric, until_metric
from tests.support.scene import CEILING, LIMITS, STREAM, Scene
from tests.support.server import ServerProcess
from unbroken.client import Client
from unbroken.clock import SystemClock

pytestmark = pytest.mark.anyio

SOCKETS = 'unbroken_connections{face="websocket"}'
HOUR = 3600
ARGUMENTS = ("--heartbeat", "0.4", "--lease", "2")
LEASE_SECONDS = 60
"""Against a clock that is set by hours it is nothing; and a machine that is slow for seconds does not run it out."""


@contextmanager
def suspended(processes: list[psutil.Process]) -> Iterator[None]:
    """Stopped as a whole, and in any case continued."""
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            process.send_signal(signal.SIGCONT)


@pytest.mark.scenario("ENV-006")
async def test_a_server_that_slept_longer_than_the_leases_reaps_nobody_and_loses_nothing(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path, arguments=ARGUMENTS) as server:
        scene = Scene(server.url, server.url, messages=200)
        async with Client(server.url, limits=LIMITS) as owner:
            await owner.create("held")
            async with owner.producer("held", id="holder", lease_seconds=2) as held:
                await held.append("before")

                async def sleep() -> None:
                    await scene.seen(60)
                    before = scene.connections()
                    for observer in scene.sockets:
                        observer.reconnecting.clear()
                    server.freeze()
                    for observer in scene.sockets:
                        await observer.reconnecting.wait()  # the client's side: silence
                        failures = observer.failures
                        while observer.failures < failures + 2:  # each try takes its handshake's whole patience
                            await asyncio.sleep(0.02)
                    server.thaw()
                    await scene.again(before)
                    scene.faults["slept"] += 1

                await scene.run(sleep)
                await held.append("after")
                assert (await owner.state("held")).state == "running"
        async with asyncio.timeout(CEILING):
            while "this machine slept for" not in server.output:
                await asyncio.sleep(0.05)


@pytest.mark.scenario("ENV-006")
async def test_a_page_that_slept_goes_on_where_it_was(tmp_path: Path, chromium_path: Path) -> None:
    async with (
        ServerProcess(tmp_path, arguments=ARGUMENTS) as server,
        open_browser(chromium_path) as browser,
        Writer(server.url, "sleep/page") as writer,
    ):
        page = await browser.new_page()
        screen = await Screen.watch(page, server.url)
        await writer.create(kind="run")
        await writer.words(20)
        await screen.open(writer.stream)
        await screen.until_words(20)
        assert await metric(server.url, SOCKETS) == 1
        with suspended(_browser_processes()):
            await writer.words(40)
            await until_metric(server.url, SOCKETS, lambda count: count == 0)  # the server's side: silence
        rules = await screen.until_resumed()
        assert "· 0 lost" in rules[0], rules
        await screen.until_words(writer.acked)
        assert await screen.words() == list(range(writer.acked))
        await writer.close("completed")
        await screen.until_badge("ended")


def _browser_processes() -> list[psutil.Process]:
    """Every process of the browsers that this test process has started, but not Playwright's driver."""
    children = psutil.Process(os.getpid()).children(recursive=True)
    found = [
        child for child in children if "--headless" in " ".join(_words(child)) or "--type=" in " ".join(_words(child))
    ]
    assert found, "no browser was found"
    return found


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@pytest.mark.scenario("ENV-006")
async def test_a_wall_clock_that_jumps_forward_is_taken_for_sleep(tmp_path: Path, clock: FakeClock) -> None:
    async with (
        asyncio.timeout(CEILING),
        ServerProcess(tmp_path, arguments=ARGUMENTS, environment=clock.environment) as server,
        Client(server.url, limits=LIMITS) as client,
    ):
        await client.create(STREAM)
        async with client.producer(STREAM, id="p", lease_seconds=LEASE_SECONDS) as producer:
            await producer.append("before")
            clock.set(HOUR)
            while "this machine slept for 3" not in server.output:
                await asyncio.sleep(0.05)
            await producer.append("after")
            assert (await client.state(STREAM)).state == "running"
            await producer.close()
        texts = [received.text async for received in client.follow(STREAM)]
    assert texts == ["before", "after"]


async def test_a_clock_that_is_set_back_in_mid_stream_changes_times_and_nothing_else(
    tmp_path: Path, clock: FakeClock
) -> None:
    async with (
        asyncio.timeout(CEILING),
        ServerProcess(tmp_path, arguments=ARGUMENTS, environment=clock.environment) as server,
        Client(server.url, limits=LIMITS) as client,
    ):
        await client.create(STREAM)
        follow = client.follow(STREAM)
        async with client.producer(STREAM, id="p", lease_seconds=LEASE_SECONDS) as producer:
            for shift in (0, -24 * HOUR, HOUR, 0):
                clock.set(shift)
                for number in range(10):
                    await producer.append(f"{shift}/{number}")
            await producer.close()
        received = [message async for message in follow]
        assert (await client.verify(STREAM)).ok
        page = await client.read(STREAM)
    wanted = [f"{shift}/{number}" for shift in (0, -24 * HOUR, HOUR, 0) for number in range(10)]
    assert [message.text for message in received] == wanted, "order is the order of the appends"
    assert [message.seq for message in received] == list(range(1, 41))
    assert [message.text for message in page.received()] == wanted
    now_ms = SystemClock().now_ms()
    for message in received:
        shift = int(str(message.text).split("/")[0])
        assert abs(int(message.message.time) - (now_ms + shift * 1000)) < CEILING * 1000, "times are the clock's"
