"""One scenario while it runs: its routes to the server, its actors, and what its fault did.

The runner builds it, `faults` work on it. It never judges.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from unbroken.testing.proxy import FaultProxy
from unbroken.testing.survival.actors import LAST, Producer, Progress, Watcher, pause, payload_of
from unbroken.testing.survival.adapter import Adapter, Capability, LostError
from unbroken.testing.survival.process import Launcher
from unbroken.testing.survival.recording import Recording
from unbroken.testing.survival.scenario import FaultKind, Scenario
from unbroken.testing.survival.secure import Secure

__all__ = ["Routes", "Stage", "Target"]

AHEAD_MAX = 12
"""How far producers go ahead of the slowest viewer, so that faults meet live traffic."""
PACE_SECONDS = 2.0
"""How long producers wait for viewers that stand still, once; a server that lost what they have must not hold up all."""
MORE = 4
"""So many times the messages of a scenario are appended at most while its fault has not bitten enough."""


@dataclass(slots=True)
class Target:
    """The server under test: how to reach it, what it claims, and who can restart it."""

    url: str
    at: Callable[[str], Adapter]
    """An adapter for a route."""
    claims: frozenset[Capability]
    launcher: Launcher | None = None
    port: int = 0
    directory: Path = field(default_factory=Path)
    secure: Secure | None = None
    """How it proves who it is, where it speaks TLS."""


@dataclass(frozen=True, slots=True)
class Routes:
    """Three ways to the same server: without faults, the viewers' and the producers'."""

    direct: Adapter
    viewing: Adapter
    producing: Adapter
    near: FaultProxy
    far: FaultProxy


class Stage:
    """One scenario, one stream."""

    def __init__(self, scenario: Scenario, target: Target, routes: Routes, stream: str, random: Random) -> None:
        self.scenario = scenario
        self.target = target
        self.routes = routes
        self.stream = stream
        self.random = random
        self.progress = Progress()
        self.recording = Recording(asyncio.get_running_loop().time)
        self.watchers: list[Watcher] = []
        self.bites = 0
        self._paced = True

    @property
    def tells_end(self) -> bool:
        return Capability.TERMINAL_EVENT in self.target.claims

    def watcher(self, name: str, adapter: Adapter | None = None) -> Watcher:
        """A further viewer from the beginning."""
        route = self.routes.viewing if adapter is None else adapter
        watcher = Watcher(name, self.stream, route, self.recording, self.progress)
        self.watchers.append(watcher)
        return watcher

    def first_watchers(self) -> list[Watcher]:
        """The viewers of the beginning; where one is stalled, the others have a way of their own."""
        found = []
        for number in range(self.scenario.observers):
            apart = self.scenario.fault is FaultKind.STALL and number > 0
            watcher = self.watcher(f"viewer-{number + 1}", self.routes.direct if apart else None)
            if self.scenario.every:
                watcher.every = self.scenario.every[number % len(self.scenario.every)]
            found.append(watcher)
        return found

    async def produce(self, number: int) -> None:
        """Append until there is enough, within sight of the viewers."""
        name = f"producer-{number + 1}"
        retries = Capability.IDEMPOTENT_APPEND in self.target.claims
        route = self.routes.producing
        producer = Producer(name, self.stream, route, self.recording, self.progress, retries=retries)
        progress, pacing = self.progress, self._pacing()
        while self._more():
            count = progress.begun
            progress.begun += 1
            await self._pace(pacing)
            await producer.append(payload_of(f"m{count}", self.scenario.payload_bytes, self.random))

    async def _pace(self, names: list[str]) -> None:
        progress = self.progress
        if not self._paced:
            return
        try:
            async with asyncio.timeout(PACE_SECONDS):
                await progress.until(lambda: progress.acknowledged - progress.slowest(names) <= AHEAD_MAX)
        except TimeoutError:
            self._paced = False

    def _more(self) -> bool:
        wanted = self.scenario.messages
        return self.progress.begun < wanted or (not self.progress.fault_over and self.progress.begun < MORE * wanted)

    def _pacing(self) -> list[str]:
        """For whom producers wait: everybody of the beginning who is not held up on purpose."""
        names = [watcher.name for watcher in self.watchers]
        return names[1:] if self.scenario.fault is FaultKind.STALL else names

    async def finish(self) -> None:
        """End the stream; a server that tells no end gets a last message by which viewers know.

        Raises `RefusedError` where the server does not know the stream any more.
        """
        if self.tells_end:
            await insist(lambda: self.routes.direct.end(self.stream))
        else:
            route = self.routes.direct
            closing = Producer("closing", self.stream, route, self.recording, self.progress, retries=False)
            await closing.append(payload_of(LAST, self.scenario.payload_bytes, self.random))
        self.progress.ended = True
        self.progress.tell()


async def insist(attempt: Callable[[], Awaitable[None]]) -> None:
    """Try until there is an outcome; for what may be done twice."""
    failures = 0
    while True:
        try:
            await attempt()
        except LostError:
            failures += 1
            await pause(failures)
        else:
            return
