"""Owns one scene of a fault test: a producer and viewers on their way to a real server, all recorded and judged.

Tests of the client, the network and reverse proxies run it and break the way meanwhile. It never breaks anything itself.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

from tests.support.recorded import Observer, SseViewer, complete, produce
from unbroken.client import Client
from unbroken.limits import Limits
from unbroken.testing import FaultProxy, History

__all__ = ["CEILING", "LIMITS", "MESSAGES", "STREAM", "Scene"]

MESSAGES = 600
AHEAD_MAX = 150
CEILING = 100.0
STREAM = "fault/stream"
LIMITS = Limits(backoff_seconds_min=0.02, backoff_seconds_max=0.3, handshake_seconds_max=3.0)
"""Backoff is kept short so that many faults fit into one test; everything else is as shipped."""


class Scene:
    """One producer and two observers (and one over SSE, if wanted) that reach the server at `url` by way of `entry`.

    `proxy` is the fault proxy on that way, where there is one; what other faults did is counted in `faults`.
    """

    def __init__(
        self, url: str, entry: str, proxy: FaultProxy | None = None, *, sse: bool = False, messages: int = MESSAGES
    ) -> None:
        self.url = url
        self.entry = entry
        self.messages = messages
        self.faults: Counter[str] = Counter()
        self.history = History(now=asyncio.get_running_loop().time)
        self.sockets = [Observer(entry, self.history, STREAM, f"observer-{place}", limits=LIMITS) for place in range(2)]
        self.observers: Sequence[Observer | SseViewer] = list(self.sockets)
        if sse:
            self.observers = [*self.sockets, SseViewer(entry, self.history, STREAM, "sse")]
        self.over = asyncio.Event()
        self.may_go_on = asyncio.Event()
        """While it is not set, nothing is appended."""
        self.may_go_on.set()
        self._proxy = proxy
        if proxy is not None:
            self.sockets[0].on_message = lambda seen: proxy.message()

    @property
    def proxy(self) -> FaultProxy:
        assert self._proxy is not None, "this scene has no fault proxy"
        return self._proxy

    async def seen(self, count: int) -> None:
        """Wait until every observer has got so many messages."""
        while min(observer.seen for observer in self.observers) < count:
            await asyncio.sleep(0.005)

    async def connected(self, times: int) -> None:
        """Wait until every observer has had so many connections: a fault on no connection proves nothing."""
        while min(observer.connections for observer in self.observers) < times:
            await asyncio.sleep(0.005)

    def connections(self) -> list[int]:
        """How many connections each viewer has had."""
        return [viewer.connections for viewer in self.observers]

    async def again(self, before: list[int]) -> None:
        """Wait until every viewer has had more connections than `before`."""
        while any(viewer.connections <= count for viewer, count in zip(self.observers, before, strict=True)):
            await asyncio.sleep(0.01)

    def failures(self) -> list[int]:
        """How often each client over WebSocket was told that there is no connection."""
        return [observer.failures for observer in self.sockets]

    async def in_vain(self, before: list[int]) -> None:
        """Wait until each of them has lost its connection since `before` and then tried to connect in vain."""
        while any(now < count + 2 for now, count in zip(self.failures(), before, strict=True)):
            await asyncio.sleep(0.005)

    async def run(self, faults: Callable[[], Awaitable[None]]) -> None:
        """Stream everything while `faults` does its worst, then judge."""
        async with asyncio.timeout(CEILING), Client(self.url) as direct:
            await direct.create(STREAM)
        async with asyncio.timeout(CEILING), asyncio.TaskGroup() as group:
            for observer in self.observers:
                group.create_task(observer.run())
            producing = group.create_task(self._produce())
            await faults()
            self.over.set()
            self.history.heal()
            count = await producing
        await complete(self.url, self.history, STREAM)
        bites = self.faults if self._proxy is None else self.faults + self._proxy.bites
        for kind, effect in bites.items():
            self.history.fault(kind, effect)
        viewers = len(self.observers)
        report = self.history.check(messages_min=viewers * self.messages).raise_if_failed()
        assert (report.acknowledged, report.delivered) == (count, viewers * count)

    async def _produce(self) -> int:
        async with Client(self.entry, limits=LIMITS) as client:
            count = await produce(client, self.history, STREAM, "producer", self._go_on)
            await client.close(STREAM)
        return count

    async def _go_on(self, number: int) -> bool:
        """Stay within sight of the slowest observer, and go on slowly until the faults are over."""
        if number >= self.messages:
            if self.over.is_set():
                return False
            await asyncio.sleep(0.005)
        await self.may_go_on.wait()
        while number - min(observer.seen for observer in self.observers) > AHEAD_MAX:
            await asyncio.sleep(0.005)
        return True
