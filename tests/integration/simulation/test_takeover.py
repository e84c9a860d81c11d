"""Several processes on one store, in virtual time: whoever lives and works keeps its run, whatever the clock says."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from random import Random

import pytest

from unbroken.auth.access import Access
from unbroken.errors import StoreUnavailableError
from unbroken.identity import Principal, Verb
from unbroken.limits import DEFAULT_LIMITS
from unbroken.messages import StreamInfo, StreamState
from unbroken.requests import NewStream
from unbroken.runs.catalog import Catalog
from unbroken.runs.context import RunContext
from unbroken.runs.spec import RunRequest
from unbroken.runs.task import TaskOptions, Tasks, task
from unbroken.server.app import build_services
from unbroken.server.engine import Engine
from unbroken.server.services import Services
from unbroken.testing.simulation import SimulatedClock, SimulatedNetwork, run_virtual
from unbroken.testing.simulation.storage import MemoryDisk, StoreHandle, Trouble

HOUR = 3_600.0
MANY = 20
LIMITS = replace(DEFAULT_LIMITS, page_items_max=MANY)
LEASE = DEFAULT_LIMITS.lease_seconds
ME = Principal()


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """The server's complaints about the clock are not what is tested."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


class Processes:
    """Processes with a supervisor each, on one store and one machine's clock."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self._disk = MemoryDisk(LIMITS, shared=True)
        self._handles: dict[str, StoreHandle] = {}
        self.clock = SimulatedClock(Random(1))
        self.trouble = Trouble()
        self.executions: list[str] = []

    async def start(self, name: str) -> Services:
        """One more process."""
        chance = Random(len(self._handles))
        handle = self._handles[name] = StoreHandle(self._disk, chance, self.trouble, lambda _ops, _results: None)
        services = build_services(handle, Access(), limits=LIMITS, clock=self.clock, catalog=self._catalog(name))
        await self._stack.enter_async_context(Engine(services).running())
        return services

    def kill(self, name: str) -> None:
        """Nothing of what the process still does counts."""
        self._handles[name].dead = True

    def _catalog(self, name: str) -> Catalog:
        @task(options=TaskOptions(name="work", resume="start"))
        async def work(run: RunContext) -> AsyncIterator[str]:
            self.executions.append(name)
            while True:
                await asyncio.sleep(0.1)
                yield name

        return Catalog([Tasks([work])])


def in_virtual_time(scene: Callable[[Processes], Awaitable[None]]) -> None:
    """Play a scene."""

    async def main() -> None:
        async with AsyncExitStack() as stack:
            await scene(Processes(stack))

    run_virtual(main(), SimulatedNetwork(1))


async def begun(services: Services) -> StreamInfo:
    """A run that is executed by somebody."""
    created = await services.desk.start(ME, RunRequest(task="work"))
    while True:
        await asyncio.sleep(1)
        stream = await services.streams.get(ME, created.stream.name, may=Verb.READ)
        if stream.state is StreamState.RUNNING and stream.head > 3:
            return stream


@pytest.mark.parametrize("seconds", [LEASE / 2, LEASE + 1, HOUR])
@pytest.mark.parametrize("late", [0.3, 1.1])
def test_a_clock_that_jumps_forward_takes_no_run_from_whoever_executes_it(seconds: float, late: float) -> None:
    async def scene(processes: Processes) -> None:
        first = await processes.start("first")
        await begun(first)
        await processes.start("second")
        await asyncio.sleep(3 * LEASE + late)
        processes.clock.jump(seconds)
        await asyncio.sleep(3 * LEASE)
        assert processes.executions == ["first"]

    in_virtual_time(scene)


@pytest.mark.parametrize("after", [0.0, 0.7, 1.4])
@pytest.mark.parametrize("away", [LEASE + 1, 3 * LEASE])
def test_after_the_store_was_away_whoever_executed_a_run_goes_on_with_it(after: float, away: float) -> None:
    async def scene(processes: Processes) -> None:
        await begun(await processes.start("first"))
        await processes.start("second")
        await processes.start("third")
        for _ in range(5):
            await asyncio.sleep(3 * LEASE + after)
            processes.trouble.error, processes.trouble.failing = StoreUnavailableError, 1_000_000
            await asyncio.sleep(away)
            processes.trouble.failing = 0
        assert processes.trouble.bites > 10
        await asyncio.sleep(3 * LEASE)
        assert processes.executions == ["first"]

    in_virtual_time(scene)


def test_a_run_that_is_resumed_stays_with_its_process_though_the_clock_jumps() -> None:
    async def scene(processes: Processes) -> None:
        stream = await begun(await processes.start("first"))
        second = await processes.start("second")
        for phase in range(12):
            await second.states.pause(stream)
            await asyncio.sleep(LEASE + phase / 11)
            stream = await second.states.resume(await second.streams.get(ME, stream.name, may=Verb.READ))
            await asyncio.sleep(0.01)
            processes.clock.jump(HOUR)
            await asyncio.sleep(LEASE)
        assert processes.executions == ["first"]
        assert (await second.streams.get(ME, stream.name, may=Verb.READ)).head > stream.head, "it goes on"

    in_virtual_time(scene)


def test_a_run_whose_process_has_died_is_taken_over_within_a_lease_and_a_little() -> None:
    async def scene(processes: Processes) -> None:
        await begun(await processes.start("first"))
        await processes.start("second")
        await asyncio.sleep(LEASE)
        processes.kill("first")
        await asyncio.sleep(LEASE + 2 * DEFAULT_LIMITS.run_poll_seconds)
        assert processes.executions == ["first", "second"]

    in_virtual_time(scene)


@pytest.mark.parametrize("back", [-24 * HOUR, -3.0])
def test_a_lease_taken_while_the_clock_was_wrong_for_a_moment_kills_nobody(back: float) -> None:
    async def scene(processes: Processes) -> None:
        server = await processes.start("server")
        stream = (await server.streams.create(ME, "held", NewStream())).stream
        for phase in range(20):
            await asyncio.sleep(0.95)
            await server.states.lease(stream, "p", 1, 2)
            processes.clock.jump(back)  # between two looks of the reaper, which sees nothing of it
            if phase % 2:
                await server.states.lease(stream, "p", 1, 2)
            await asyncio.sleep(0.1)
            processes.clock.jump(-back)
        assert (await server.streams.get(ME, "held", may=Verb.READ)).state is StreamState.RUNNING
        await asyncio.sleep(3 * LEASE)
        assert (await server.streams.get(ME, "held", may=Verb.READ)).state is StreamState.INTERRUPTED, (
            "it is found all the same"
        )

    in_virtual_time(scene)


def test_many_that_die_at_once_are_all_found() -> None:
    async def scene(processes: Processes) -> None:
        server = await processes.start("server")
        for number in range(2 * MANY + 1):
            stream = (await server.streams.create(ME, f"held/{number}", NewStream())).stream
            await server.states.lease(stream, "p", 1, 2)
        await asyncio.sleep(2 + 5 * DEFAULT_LIMITS.reap_interval_seconds)
        states = {
            (await server.streams.get(ME, f"held/{number}", may=Verb.READ)).state for number in range(2 * MANY + 1)
        }
        assert states == {StreamState.INTERRUPTED}

    in_virtual_time(scene)


@pytest.mark.parametrize("back", [1.0, HOUR])
def test_a_clock_that_is_set_back_does_not_keep_the_dead(back: float) -> None:
    async def scene(processes: Processes) -> None:
        server = await processes.start("server")
        stream = (await server.streams.create(ME, "held", NewStream())).stream
        await server.states.lease(stream, "p", 1, 2)
        processes.clock.jump(-back)
        await asyncio.sleep(LEASE + 3 * DEFAULT_LIMITS.reap_interval_seconds)
        assert (await server.streams.get(ME, "held", may=Verb.READ)).state is StreamState.INTERRUPTED

    in_virtual_time(scene)


@pytest.mark.parametrize("before", [0.0, 0.3, 0.6])
@pytest.mark.parametrize("away", [0.7, 1.1, 10.0])
def test_a_producer_that_could_not_renew_because_the_store_was_away_is_not_reaped(before: float, away: float) -> None:
    async def scene(processes: Processes) -> None:
        server = await processes.start("server")
        stream = (await server.streams.create(ME, "held", NewStream())).stream
        await asyncio.sleep(before)
        await server.states.lease(stream, "p", 1, 2)
        processes.trouble.error, processes.trouble.failing = StoreUnavailableError, 1_000_000
        with pytest.raises(StoreUnavailableError):
            await server.states.lease(stream, "p", 1, 2)
        await asyncio.sleep(away)
        processes.trouble.failing = 0
        await asyncio.sleep(1.9)
        await server.states.lease(stream, "p", 1, 2)
        assert (await server.streams.get(ME, "held", may=Verb.READ)).state is StreamState.RUNNING

    in_virtual_time(scene)


@pytest.mark.parametrize("down", [0.5, 1.5, 1.9, 10.0])
def test_a_producer_that_could_not_renew_because_the_server_was_down_is_not_reaped(down: float) -> None:
    async def scene(processes: Processes) -> None:
        server = await processes.start("before")
        stream = (await server.streams.create(ME, "held", NewStream())).stream
        await server.states.lease(stream, "p", 1, 2)
        processes.kill("before")
        await asyncio.sleep(down)
        server = await processes.start("after")
        await asyncio.sleep(1.9)
        await server.states.lease(stream, "p", 1, 2)
        assert (await server.streams.get(ME, "held", may=Verb.READ)).state is StreamState.RUNNING

    in_virtual_time(scene)
