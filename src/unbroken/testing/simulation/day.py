"""A day of streaming in seconds: heartbeats, leases, retention, tickets, restarts, cuts, and a clock that is set by an hour.

`simulate_day` runs it. Each hour has a stream of its own, which is judged at the end of its hour and then forgotten here, and
deleted by retention there: so neither the record nor the store grows with the length of the day.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from dataclasses import dataclass, field, replace

import httpx2
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from unbroken.client import Client
from unbroken.errors import NotFoundError, TrimmedError
from unbroken.limits import DEFAULT_LIMITS
from unbroken.protocol.negotiation import offer
from unbroken.testing.history import History
from unbroken.testing.simulation.chance import chance_of
from unbroken.testing.simulation.clock import SimulatedClock
from unbroken.testing.simulation.loop import run_virtual
from unbroken.testing.simulation.network import SimulatedNetwork
from unbroken.testing.simulation.run import without_proxies
from unbroken.testing.simulation.server import PORT, SERVER, ServerParts, SimulatedServer
from unbroken.testing.simulation.storage import MemoryDisk
from unbroken.testing.simulation.watching import identify
from unbroken.testing.simulation.world import open_context

__all__ = ["Day", "simulate_day"]

logger = logging.getLogger(__name__)

HOUR = 3_600.0
SECONDS_BETWEEN = 40.0
LEASE_SECONDS = 150.0
TTL_SECONDS = 2 * 3_600
LIVENESS_SECONDS = 300.0
KEPT_MESSAGES = 30
"""How many messages the stream that lasts all day keeps when it is trimmed, every hour."""
LIMITS = replace(
    DEFAULT_LIMITS, reap_interval_seconds=15.0, heartbeat_seconds=50.0, silence_seconds_max=120.0, compact_chunks_min=32
)
"""As usual, but that everything which happens again and again happens three times less often: it costs the time of a day."""
CLOCK_CHANGES = {2: 3_600.0, 5: -3_600.0, 9: -3_600.0, 15: 3_600.0}
"""By how much the server's clock is set in which hour."""
RESTARTS = {6: False, 13: True, 18: True}
"""In which hours the server ends; whether by `kill -9`."""
CUTS_EVERY = 4
"""In every so manieth hour the viewer that watches all day is cut off."""


@dataclass(slots=True)
class Day:
    """What a day gave."""

    hours: int
    delivered: int = 0
    acknowledged: int = 0
    deleted: int = 0
    """Streams whose time to live was over, and which were gone then."""
    streams_most: int = 0
    """The most streams that ever were in the store."""
    faults: Counter[str] = field(default_factory=Counter)
    connections: int = 0
    """How often the viewer that watches all day had to connect."""
    virtual_seconds: float = 0.0


def simulate_day(seed: int, *, hours: int = 24) -> Day:
    """Run a day, or less of one; raises `HistoryError` or an `AssertionError` when a promise is broken."""
    network = SimulatedNetwork(seed, latency_seconds=0.01, jitter_seconds=0.05)
    with without_proxies():
        return run_virtual(_Run(seed, network, hours).run(), network)


class _Run:
    """One day."""

    def __init__(self, seed: int, network: SimulatedNetwork, hours: int) -> None:
        self._seed = seed
        self._network = network
        self._clock = SimulatedClock(chance_of(seed, "server clock"))
        self._server: SimulatedServer
        self._day = Day(hours)

    async def run(self) -> Day:
        day = self._day
        parts = ServerParts(
            seed=self._seed,
            network=self._network,
            disk=MemoryDisk(LIMITS),
            clock=self._clock,
            limits=LIMITS,
            committed=lambda _ops, _results: None,
            catalog=lambda _life: None,
        )
        async with asyncio.TaskGroup() as tasks:
            server = self._server = SimulatedServer(parts, tasks)
            await server.start()
            async with self._client("founder") as client:
                await client.create("all-day")
            over = asyncio.Event()
            all_day = tasks.create_task(self._all_day(over))
            for hour in range(day.hours):
                await self._hour(hour)
            over.set()
            await all_day
            await server.stop()
        day.virtual_seconds = asyncio.get_running_loop().time()
        return day

    def _client(self, name: str) -> Client:
        self._network.alias(name, SERVER)
        clock = SimulatedClock(chance_of(self._seed, f"client {name}"))
        return Client(f"http://{name}:{PORT}", limits=LIMITS, clock=clock, ssl=open_context())

    # --- one hour ----------------------------------------------------------------------------------------------------

    async def _hour(self, hour: int) -> None:
        """A stream that lasts an hour, its producer and two viewers, and what goes wrong in it; then its verdict."""
        loop = asyncio.get_running_loop()
        name = f"hour/{hour:02}"
        history = History(now=loop.time)
        ends = (hour + 1) * HOUR
        async with self._client(f"reader-{hour}") as reader:
            await reader.create(name, ttl_seconds=TTL_SECONDS)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._produce(name, history, ends))
                tasks.create_task(self._watch(name, f"viewer-{hour}", history))
                tasks.create_task(self._come_and_go(name, f"visitor-{hour}", history))
                tasks.create_task(self._disturb(hour, history))
            await self._judge(reader, name, history)
            await self._look_at_the_old(reader, hour)
        await self._use_tickets(hour)

    async def _produce(self, name: str, history: History, ends: float) -> None:
        loop = asyncio.get_running_loop()
        async with (
            self._client(f"{name.replace('/', '-')}-producer") as client,
            client.producer(name, id="p", lease_seconds=LEASE_SECONDS) as producer,
        ):
            number = 0
            while loop.time() < ends - SECONDS_BETWEEN:
                await asyncio.sleep(SECONDS_BETWEEN)
                text = f"{name}/{number}"
                history.invoke("p", text, text)
                history.ack(text, (await producer.append(text)).first)
                number += 1
            await producer.close("completed")

    async def _watch(self, name: str, observer: str, history: History) -> None:
        async with self._client(observer) as client:
            history.open(observer, 0)
            follow = client.follow(name)
            async for received in follow:
                history.deliver(observer, received.seq, *identify(history, received.seq, received.message))
            assert follow.state is not None
            history.end(observer, follow.state.state)

    async def _come_and_go(self, name: str, observer: str, history: History) -> None:
        """Looks every ten minutes at what is new, over HTTP, and stays for the end."""
        cursor, last, state = "start", 0, ""
        async with self._client(observer) as client:
            while not state:
                told = history.read(observer)
                page = await client.read(name, cursor)
                history.open(observer, last)
                for received in page.received():
                    history.deliver(observer, received.seq, *identify(history, received.seq, received.message))
                    last = received.seq
                cursor = page.cursor
                told(last)
                if page.stream.ended is not None:
                    state = page.stream.state
                else:
                    await asyncio.sleep(600)
            history.end(observer, state)

    async def _disturb(self, hour: int, history: History) -> None:
        """What goes wrong in this hour, in the middle of it."""
        await asyncio.sleep(HOUR / 2)
        if hour in CLOCK_CHANGES:
            self._clock.jump(CLOCK_CHANGES[hour])
            self._bit("clock", history)
        if hour % CUTS_EVERY == CUTS_EVERY - 1:
            assert self._network.path("all-day-viewer").cut() == 1
            self._bit("cut", history)
        if hour in RESTARTS:
            if RESTARTS[hour]:
                await self._server.kill()
            else:
                await self._server.stop()
            await asyncio.sleep(30)
            await self._server.start()
            self._bit("kill" if RESTARTS[hour] else "restart", history)
        history.heal()

    def _bit(self, kind: str, history: History) -> None:
        history.fault(kind, 1)
        self._day.faults[kind] += 1

    async def _judge(self, reader: Client, name: str, history: History) -> None:
        state = await self._read_all(reader, name, history)
        report = history.check().raise_if_failed()
        assert state == "completed", f"{name} ended as {state}"
        self._day.delivered += report.delivered
        self._day.acknowledged += report.acknowledged

    @staticmethod
    async def _read_all(reader: Client, name: str, history: History) -> str:
        """What somebody new reads, with its hash chain; the state in which it ended."""
        follow = reader.follow(name, verify=True)
        history.final(
            [(one.seq, *identify(history, one.seq, one.message)) async for one in follow],
            state="" if follow.state is None else follow.state.state,
        )
        assert follow.state is not None
        return follow.state.state

    async def _look_at_the_old(self, reader: Client, hour: int) -> None:
        """What has had its time is gone, whatever the clock did; what is newer is there."""
        streams = (await reader.list()).streams
        self._day.streams_most = max(self._day.streams_most, len(streams))
        assert f"hour/{hour:02}" in {stream.stream for stream in streams}
        old = hour - 4  # two hours to live, and a clock that may have been set back meanwhile
        if old >= 0:
            try:
                await reader.state(f"hour/{old:02}")
            except NotFoundError:
                self._day.deleted += 1
            else:
                raise AssertionError(f"hour/{old:02} outlived its time")

    async def _use_tickets(self, hour: int) -> None:
        """A ticket lets in once, within its time, and not because the clock went back."""
        url = f"http://page-{hour}:{PORT}"
        self._network.alias(f"page-{hour}", SERVER)
        async with httpx2.AsyncClient(base_url=url, trust_env=False, verify=open_context()) as page:
            old = (await page.post("/v1/tickets")).json()["ticket"]
            await asyncio.sleep(LIMITS.ticket_seconds + 1)
            fresh = (await page.post("/v1/tickets")).json()["ticket"]
        let_in = [await _lets_in(url, ticket) for ticket in (old, fresh, fresh)]
        assert let_in == [False, True, False], f"tickets let in {let_in}"

    # --- the stream that lasts all day -------------------------------------------------------------------------------

    async def _all_day(self, over: asyncio.Event) -> None:
        """One stream from morning to night: trimmed every hour, and watched over one connection as long as that lasts."""
        loop = asyncio.get_running_loop()
        history = History(now=loop.time)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._write_all_day(history, over))
            tasks.create_task(self._watch_all_day(history))
        async with self._client("all-day-judge") as client:
            await self._read_all(client, "all-day", history)
            view = await client.state("all-day")
            assert view.head - view.first <= KEPT_MESSAGES + HOUR / 60, "it was not trimmed"
        history.check().raise_if_failed()

    async def _write_all_day(self, history: History, over: asyncio.Event) -> None:
        async with (
            self._client("all-day-producer") as client,
            client.producer("all-day", id="p", lease_seconds=LEASE_SECONDS) as producer,
        ):
            number = 0
            while not over.is_set():
                await asyncio.sleep(60)
                text = f"all-day/{number}"
                history.invoke("p", text, text)
                acked = await producer.append(text)
                history.ack(text, acked.first)
                number += 1
                if number % 60 == 0:
                    first = acked.first - KEPT_MESSAGES
                    history.trim(first)
                    await client.trim("all-day", first)
            await producer.close("completed")

    async def _watch_all_day(self, history: History) -> None:
        async with self._client("all-day-viewer") as client:
            history.open("all-day-viewer", 0)
            follow = client.follow("all-day")
            try:
                async for received in follow:
                    name, content = identify(history, received.seq, received.message)
                    history.deliver("all-day-viewer", received.seq, name, content)
            except TrimmedError as error:
                raise AssertionError("a viewer that was there was told that messages are gone") from error
            assert follow.state is not None
            history.end("all-day-viewer", follow.state.state)
        self._day.connections = self._network.path("all-day-viewer").connected


async def _lets_in(url: str, ticket: str) -> bool:
    """Whether a page comes in with a ticket."""
    address = url.replace("http:", "ws:") + "/v1/ws"
    try:
        async with connect(address, subprotocols=[Subprotocol(name) for name in offer(ticket)], compression=None):
            return True
    except InvalidStatus:
        return False
