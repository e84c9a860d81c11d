"""Runs scenarios against a target, one after the other, each bounded in time and judged by its history.

The command and tests call `survive`. Whatever happens it ends by itself, deletes its streams where the server can, and
stops what it started.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from urllib.parse import urlsplit, urlunsplit

from unbroken.errors import InvalidError, UnreachableError
from unbroken.testing.history_events import End
from unbroken.testing.history_report import Rule
from unbroken.testing.ports import free_port
from unbroken.testing.proxy import FaultProxy
from unbroken.testing.survival.actors import Progress
from unbroken.testing.survival.adapter import Capability, Complete, LostError, RefusedError
from unbroken.testing.survival.faults import after_end, apply, late_watchers
from unbroken.testing.survival.process import listening
from unbroken.testing.survival.scenario import FaultKind, Scenario
from unbroken.testing.survival.scorecard import Cell, Outcome, Row, judged, whole
from unbroken.testing.survival.stage import Routes, Stage, Target, insist

__all__ = ["Bounds", "reachable", "running", "survive"]

FINAL_SECONDS = 20.0
LOOK_SECONDS = 0.1
PORT = 80
PORT_TLS = 443
RECEIVE_BYTES = 32 * 1024
"""What the viewers' proxy takes in beyond what it hands on: so a stalled viewer is felt by the server soon."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How long a scenario may take in all, and how long nothing may be acknowledged or arrive before it counts as stuck.

    Once the end was acknowledged, nothing may arrive for `patience_seconds` only.
    """

    scenario_seconds: float = 600.0
    quiet_seconds: float = 30.0
    patience_seconds: float = 15.0


@asynccontextmanager
async def running(target: Target) -> AsyncIterator[Target]:
    """The target while it runs: started in a directory of its own where the kit can start it, else as it is."""
    if target.launcher is None:
        yield target
        return
    with tempfile.TemporaryDirectory(prefix="unbroken-survival-", ignore_cleanup_errors=True) as directory:
        port = urlsplit(target.url).port or free_port()
        url = target.url or f"http://127.0.0.1:{port}"
        started = replace(target, url=url, port=port, directory=Path(directory))
        try:
            await target.launcher.start(port, started.directory)
            yield started
        finally:
            await target.launcher.stop(signal.SIGKILL)


async def survive(
    target: Target,
    wanted: Sequence[Scenario],
    *,
    seed: int,
    label: str,
    bounds: Bounds | None = None,
    on_row: Callable[[Row], None] | None = None,
) -> list[Row]:
    """A row for each scenario, in order; `label` makes the names of this run's streams its own."""
    rows = []
    for scenario in wanted:
        row = _not_asked(scenario, target)
        if row is None:
            stream = f"survival-{label}-{scenario.name}"
            row = await _Run(scenario, target, stream, bounds or Bounds()).row(seed)
        if on_row is not None:
            on_row(row)
        rows.append(row)
    return rows


def _not_asked(scenario: Scenario, target: Target) -> Row | None:
    """Why a scenario cannot be asked of this target, as its row."""
    missing = sorted(scenario.needs - target.claims)
    if missing:
        return whole(scenario, Outcome.NOT_CLAIMED, f"the server does not claim {', '.join(missing)}")
    if scenario.fault is FaultKind.KILL and target.launcher is None:
        return whole(scenario, Outcome.NOT_RUN, "needs a server that the kit may start and kill: --start")
    return None


class _Run:
    """One scenario from its stream's creation to its deletion."""

    def __init__(self, scenario: Scenario, target: Target, stream: str, bounds: Bounds) -> None:
        self._scenario = scenario
        self._target = target
        self._stream = stream
        self._bounds = bounds
        self._notes: list[str] = []
        self._slow = False

    async def row(self, seed: int) -> Row:
        """Carry it out and judge it; a server that cannot even make a stream gives an inconclusive row."""
        begun = asyncio.get_running_loop().time()
        async with AsyncExitStack() as stack:
            routes = await self._routes(stack, seed)
            random = Random(f"{seed}/{self._scenario.id}")  # noqa: S311 - repeatable, no secret
            stage = Stage(self._scenario, self._target, routes, self._stream, random)
            try:
                async with asyncio.timeout(FINAL_SECONDS):
                    await insist(lambda: routes.direct.create(self._stream))
            except (TimeoutError, RefusedError) as error:
                return whole(self._scenario, Outcome.INCONCLUSIVE, f"no stream could be made: {_why(error)}")
            await self._traffic(stage)
            row = await self._judge(stage)
            await self._delete(stage)
        return replace(row, seconds=asyncio.get_running_loop().time() - begun, notes=tuple(self._notes))

    async def _routes(self, stack: AsyncExitStack, seed: int) -> Routes:
        parts = urlsplit(self._target.url)
        if parts.hostname is None:
            raise InvalidError("a server's address is http(s)://host[:port][/prefix]", field="url")
        port = _port(self._target)
        stalls = self._scenario.fault is FaultKind.STALL
        near = FaultProxy(parts.hostname, port, seed=seed, receive_bytes=RECEIVE_BYTES if stalls else None)
        far = FaultProxy(parts.hostname, port, seed=seed + 1)
        for proxy in (near, far):
            await stack.enter_async_context(proxy)
        url, at = self._target.url, self._target.at
        direct = await stack.enter_async_context(at(url))
        viewing = await stack.enter_async_context(at(_through(url, near)))
        producing = await stack.enter_async_context(at(_through(url, far)))
        return Routes(direct, viewing, producing, near, far)

    async def _traffic(self, stage: Stage) -> None:
        """Everybody at work, until the end, or until nothing happens any more, or it has taken too long."""
        bounds = self._bounds
        bound = asyncio.timeout(bounds.quiet_seconds)
        try:
            async with bound, asyncio.TaskGroup() as group:
                moving = group.create_task(self._put_off(bound, stage.progress))
                watching = [
                    group.create_task(watcher.run(last_is_end=not stage.tells_end))
                    for watcher in stage.first_watchers()
                ]
                joining = group.create_task(late_watchers(stage, group))
                fault = group.create_task(self._fault(stage))
                producing = [group.create_task(stage.produce(number)) for number in range(self._scenario.producers)]
                await asyncio.wait(producing)
                watching += await joining
                fault.cancel()
                for proxy in (stage.routes.near, stage.routes.far):
                    proxy.heal()
                stage.recording.history.heal()
                if await self._ended(stage):
                    watching += await after_end(stage, group)
                    await self._arriving(stage.progress, watching)
                for task in (*watching, moving):
                    task.cancel()
        except TimeoutError:
            said = (
                f"{bounds.scenario_seconds:g} s" if self._slow else f"{bounds.quiet_seconds:g} s without any progress"
            )
            self._notes.append(f"not finished within {said}")

    async def _put_off(self, bound: asyncio.Timeout, progress: Progress) -> None:
        """As long as something happens, or the kit itself starts the server, nothing is stuck: the bound is put off.

        What still happens when the scenario's time is over is slow, and the bound is now.
        """
        loop, moved = asyncio.get_running_loop(), -1
        ends = loop.time() + self._bounds.scenario_seconds
        while not bound.expired():
            if progress.moved != moved or progress.restarting:
                moved, now = progress.moved, loop.time()
                self._slow = now >= ends
                bound.reschedule(now if self._slow else now + self._bounds.quiet_seconds)
            await asyncio.sleep(LOOK_SECONDS)

    async def _arriving(self, progress: Progress, watching: Sequence[asyncio.Task[None]]) -> None:
        """Wait for all these viewers, as long as anything arrives."""
        pending, moved = set(watching), -1
        while pending and progress.moved != moved:
            moved = progress.moved
            _, pending = await asyncio.wait(pending, timeout=self._bounds.patience_seconds)

    async def _fault(self, stage: Stage) -> None:
        """The scenario's fault; a server that does not come back after it is the server's failure, and no end of the run."""
        try:
            await apply(stage)
        except UnreachableError as error:
            self._notes.append(f"the server did not start again: {error}")
            stage.progress.fault_over = True
            stage.progress.tell()

    async def _ended(self, stage: Stage) -> bool:
        try:
            await stage.finish()
        except RefusedError as error:
            self._notes.append(f"the stream could not be ended: {error}")
            return False
        return True

    async def _judge(self, stage: Stage) -> Row:
        """Read everything once more and hold all that was recorded against it."""
        scenario, recording = self._scenario, stage.recording
        complete = await self._final(stage)
        if scenario.fault is not FaultKind.NONE:
            recording.history.fault(scenario.fault.value, stage.bites)
        if complete is None:
            history = recording.history  # what is there at the end nobody knows, so nothing is held to be lost
        else:
            history = recording.finished(complete, complete.state or (_told(stage) if stage.progress.ended else ""))
        report = history.check(
            messages_min=scenario.messages // 2, without=self._without(stage, read=complete is not None)
        )
        cells = judged(report)
        if complete is None and not recording.told:
            cells["unbroken"] = Cell(Outcome.INCONCLUSIVE)
        if not stage.progress.ended:
            said = f"({stage.progress.acknowledged} of {scenario.messages} messages were acknowledged)"
            stuck = Cell(Outcome.FAIL, Rule.LIVE.name.lower(), f"stuck {said}")
            cells["arrives"] = Cell(Outcome.INCONCLUSIVE, evidence=f"slow {said}") if self._slow else stuck
        self._notes += report.doubts
        failed = any(cell.outcome is Outcome.FAIL for cell in cells.values())
        return Row(
            scenario,
            cells,
            acknowledged=report.acknowledged,
            delivered=report.delivered,
            bites=stage.bites,
            history=tuple(history.lines()) if failed else (),
        )

    async def _final(self, stage: Stage) -> Complete | None:
        """The truth at the end; a stream that is not there any more is an empty one. None: there was no answer."""
        found: list[Complete] = []

        async def read() -> None:
            found.append(await stage.routes.direct.read_all(self._stream))

        try:
            async with asyncio.timeout(FINAL_SECONDS):
                await insist(read)
        except TimeoutError as error:
            self._notes.append(f"the stream could not be read at the end: {_why(error)}")
            return None
        except RefusedError as error:
            self._notes.append(f"the stream could not be read at the end: {error}")
            return Complete(())
        return found[0]

    def _without(self, stage: Stage, *, read: bool) -> frozenset[Rule]:
        """The rules that say nothing here; without a position and without a last read nobody knows where messages stand."""
        found = set() if stage.recording.told else {Rule.ONE_PLACE}
        if not stage.recording.told and not read:
            found |= {Rule.DENSE, Rule.CURSOR}
        if not stage.tells_end:
            found.add(Rule.ONE_END)
        if Capability.IDEMPOTENT_APPEND not in self._target.claims and self._scenario.fault is FaultKind.KILL:
            found.add(Rule.ONCE)
        return frozenset(found)

    async def _delete(self, stage: Stage) -> None:
        if Capability.DELETE not in self._target.claims:
            return
        try:
            with contextlib.suppress(RefusedError):
                async with asyncio.timeout(FINAL_SECONDS):
                    await stage.routes.direct.delete(self._stream)
        except (TimeoutError, LostError) as error:
            self._notes.append(f"the stream {self._stream} could not be deleted: {_why(error)}")


def _told(stage: Stage) -> str:
    """How the stream ended as viewers were told; where nobody was, that it was ended all the same."""
    states = [event.state for event in stage.recording.history.events if isinstance(event, End)]
    return states[0] if states else "ended"


def _why(error: Exception) -> str:
    return str(error) or "no answer"


def _through(url: str, proxy: FaultProxy) -> str:
    """The same address by way of a proxy."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"127.0.0.1:{proxy.port}"))


def _port(target: Target) -> int:
    return urlsplit(target.url).port or (PORT if target.secure is None else PORT_TLS)


async def reachable(target: Target) -> bool:
    """Whether somebody listens at the address. `UnreachableError` where the certificate shown there is not trusted."""
    host = urlsplit(target.url).hostname
    return host is not None and await listening(host, _port(target), target.secure)
