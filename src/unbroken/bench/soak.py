"""A real server under load for as long as one likes, killed and cut off again and again, and judged all the way.

`unbroken soak` runs it: a server process, real sockets through a fault proxy, a real SQLite file. It goes in rounds, whose
streams are judged, deleted and forgotten at their end, so that neither this process nor the database grows with the time.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

from unbroken.client import Client, Producer
from unbroken.demo.server import DemoServer
from unbroken.limits import DEFAULT_LIMITS
from unbroken.testing import FaultProxy, History, Verdict
from unbroken.testing.progress import Progress

__all__ = ["SoakReport", "soak"]

EAGER = replace(DEFAULT_LIMITS, backoff_seconds_max=0.5)
"""Clients that come back at once: with the usual backoff they would mostly wait."""
MESSAGES = 150
"""What each stream of a round gets, at least."""
BURST = 5
LEASE_SECONDS = 10.0
VIEWERS = 2
RELOAD_AFTER = 40
"""After how many messages the viewers that reload do so."""
ABANDON_EVERY = 5
"""In every so manieth round one producer vanishes, and its stream has to end as interrupted."""
ROUND_SECONDS_MAX = 120.0
Say = Callable[[str], None]


@dataclass(slots=True)
class SoakReport:
    """What a soak gave. It has passed when nothing failed, and something was killed and cut."""

    seed: int
    rounds: int = 0
    streams: int = 0
    acknowledged: int = 0
    delivered: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    slowest_seconds: float = 0.0
    """The longest time from the last fault of a round to the end of a viewer's stream."""
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether every promise was kept under faults that really bit."""
        return not self.failures and self.faults["kill -9"] > 0 and self.faults["cut"] > 0

    def __str__(self) -> str:
        faults = ", ".join(f"{kind} x{count}" for kind, count in sorted(self.faults.items())) or "none"
        verdict = "pass" if self.passed else "fail" if self.failures else "inconclusive: no fault bit"
        return (
            f"soak: {verdict}; {self.rounds} rounds, {self.streams} streams, {self.acknowledged} acknowledged, "
            f"{self.delivered} delivered in {self.seconds:.1f} s; slowest end {self.slowest_seconds:.1f} s after a fault\n"
            f"faults that bit: {faults}; chance from seed {self.seed}"
        )


async def soak(
    directory: Path, seconds: float, *, seed: int, streams: int = 4, say: Say = lambda _: None
) -> SoakReport:
    """Run rounds for `seconds`, and at least one; the last one is finished, so it ends some seconds later."""
    report, began = SoakReport(seed), time.monotonic()
    chance = Random(seed)  # noqa: S311 - repeatable faults, not secrets
    arguments = ("--allow-host", "127.0.0.1", "--lease", str(LEASE_SECONDS))
    async with DemoServer(directory, arguments=arguments) as server:
        port = int(server.url.rpartition(":")[2])
        async with FaultProxy("127.0.0.1", port, seed=seed) as proxy:
            while not report.failures and (not report.rounds or time.monotonic() - began < seconds):
                await _Round(report, server, proxy, chance, streams).run()
                report.seconds = time.monotonic() - began
                say(f"round {report.rounds}: {report.acknowledged} acknowledged, {report.delivered} delivered")
    return report


class _Round:
    """Some streams from their beginning to their verdict."""

    def __init__(self, report: SoakReport, server: DemoServer, proxy: FaultProxy, chance: Random, streams: int) -> None:
        self._report = report
        self._server = server
        self._proxy = proxy
        self._chance = chance
        names = [f"soak/{report.rounds}/{number}" for number in range(streams)]
        self._histories = {name: History(now=time.monotonic) for name in names}
        self._abandoned = names[0] if report.rounds % ABANDON_EVERY == ABANDON_EVERY - 1 else ""
        self._progress = Progress()
        self._healed = asyncio.Event()

    async def run(self) -> None:
        report = self._report
        async with Client(self._server.url, limits=EAGER) as client:
            for name in self._histories:
                await client.create(name)
            async with asyncio.timeout(ROUND_SECONDS_MAX), asyncio.TaskGroup() as tasks:
                for name, history in self._histories.items():
                    tasks.create_task(self._produce(name, history))
                    for number in range(VIEWERS):
                        tasks.create_task(self._view(name, f"viewer-{number}", history, reloads=number % 2 == 1))
                tasks.create_task(self._break())
            for name, history in self._histories.items():
                await self._judge(client, name, history)
                await client.delete(name)
        report.rounds += 1
        report.streams += len(self._histories)

    async def _break(self) -> None:
        """Kill the server once, and cut everybody off twice, each when enough has happened since."""
        goal = 0
        expected = MESSAGES * len(self._histories)
        for kind in self._chance.sample(("kill -9", "cut", "cut"), 3):
            goal += self._chance.randint(expected // 8, expected // 2)
            await self._progress.reach(goal)
            bites = 1
            if kind == "cut":
                bites = self._proxy.reset()
            else:
                await self._server.kill()
                await self._server.start()
            self._report.faults[kind] += bites
            for history in self._histories.values():
                history.fault(kind, bites)
        for history in self._histories.values():
            history.heal()
        self._healed.set()

    async def _produce(self, name: str, history: History) -> None:
        """Append in bursts until the faults are over and there are enough, then end the stream."""
        async with Client(self._proxy.url, limits=EAGER) as client:
            producer = client.producer(name, id="p", lease_seconds=LEASE_SECONDS)
            await producer.__aenter__()
            try:
                number = 0
                while number < MESSAGES or not self._healed.is_set():
                    async with asyncio.TaskGroup() as tasks:
                        for place in range(number, number + BURST):
                            tasks.create_task(self._append(producer, f"{name}/{place}", history))
                    number += BURST
                if name != self._abandoned:
                    await producer.close("completed", {"count": number})
            finally:
                await producer.stop()

    async def _append(self, producer: Producer, text: str, history: History) -> None:
        history.invoke("p", text, text)
        history.ack(text, (await producer.append(text)).first)
        self._progress.step()

    async def _view(self, name: str, observer: str, history: History, *, reloads: bool) -> None:
        """Follow to the end; one that reloads leaves now and then, and comes back with its cursor."""
        cursor, last, state = "start", 0, ""
        while not state:
            async with Client(self._proxy.url, limits=EAGER) as client:
                history.open(observer, last)
                follow = client.follow(name, cursor)
                number = 0
                async for received in follow:
                    text = received.text or ""
                    history.deliver(observer, received.seq, text, text)
                    cursor, last = str(received.cursor), received.seq
                    self._progress.step()
                    number += 1
                    if reloads and number == RELOAD_AFTER:
                        break
                else:
                    assert follow.state is not None
                    state = follow.state.state
        history.end(observer, state)

    async def _judge(self, client: Client, name: str, history: History) -> None:
        """Hold everything against a complete fresh read of the stream and of its hash chain."""
        report = self._report
        follow = client.follow(name, verify=True)
        rows = [(received.seq, received.text or "", received.text or "") async for received in follow]
        assert follow.state is not None
        state = follow.state.state
        history.final(rows, state=state)
        verdict = history.check()
        report.delivered += verdict.delivered
        report.acknowledged += verdict.acknowledged
        report.slowest_seconds = max(report.slowest_seconds, verdict.lag_seconds or 0.0)
        if verdict.verdict is Verdict.FAIL:
            report.failures.append(f"{name}: {verdict}")
        expected = "interrupted" if name == self._abandoned else "completed"
        if state != expected:
            report.failures.append(f"{name} ended as {state}, not {expected}")
        if not (await client.verify(name)).ok:
            report.failures.append(f"the hash chain of {name} does not hold")
