"""One seed from its plan to its verdict: the real server and real clients in a simulated world, judged by their histories.

`simulate` is the way in; `simulate_plan` runs a plan that somebody has changed. The same plan gives the same record, byte for
byte.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import traceback
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from unbroken.errors import NotFoundError, UnbrokenError
from unbroken.testing.history_report import Report, Verdict
from unbroken.testing.simulation.faults import FaultConductor
from unbroken.testing.simulation.loop import run_virtual
from unbroken.testing.simulation.names import Forks, ReusedName
from unbroken.testing.simulation.network import SimulatedNetwork
from unbroken.testing.simulation.plan import OF_PROCESS, FaultKind, Plan, StreamKind, StreamPlan, ViewerKind, plan_of
from unbroken.testing.simulation.server import ServerParts, SimulatedServer
from unbroken.testing.simulation.storage import MemoryDisk, SQLiteDisk, Trouble
from unbroken.testing.simulation.watching import Watcher, identify, trim
from unbroken.testing.simulation.world import World
from unbroken.testing.simulation.writing import catalog_of, write

__all__ = ["Outcome", "simulate", "simulate_plan", "without_proxies"]

LIVENESS_SECONDS = 300.0
"""After the last fault and the last message everybody must have been told of the end; a backoff takes 30 s at most."""
WORLD_SECONDS_MAX = 1_500.0
HTTP = frozenset({ViewerKind.READING, ViewerKind.EVENTS})
HTTP_BUFFER_BYTES = 64 * 1024
"""What uvicorn lets wait for a viewer over HTTP before it holds the response back."""
FAST = Path("/dev/shm")  # noqa: S108 - a directory of our own is made in it


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one seed."""

    plan: Plan
    verdict: Verdict
    violations: tuple[str, ...]
    """What was broken, in words; empty unless the verdict is `fail`."""
    doubts: tuple[str, ...]
    reports: Mapping[str, Report]
    lines: tuple[bytes, ...]
    """The record of everything that happened."""
    delivered: int
    virtual_seconds: float

    @property
    def seed(self) -> int:
        return self.plan.seed

    @property
    def digest(self) -> str:
        """Of the record: equal for equal runs."""
        return sha256(b"\n".join(self.lines)).hexdigest()


def simulate(seed: int) -> Outcome:
    """Run one seed."""
    return simulate_plan(plan_of(seed))


def simulate_plan(plan: Plan) -> Outcome:
    """Run one plan."""
    network = SimulatedNetwork(plan.seed, latency_seconds=plan.latency_seconds, jitter_seconds=plan.jitter_seconds)
    network.sliced, network.window_bytes = plan.sliced, plan.window_bytes
    with without_proxies():
        if not plan.sqlite:
            return run_virtual(_Run(plan, network, None).run(), network)
        where = FAST if FAST.is_dir() else None
        with tempfile.TemporaryDirectory(prefix="unbroken-simulation-", dir=where) as directory:
            return run_virtual(_Run(plan, network, Path(directory)).run(), network)


@contextmanager
def without_proxies() -> Iterator[None]:
    """A proxy that this machine is told to use is not there in the simulated world."""
    before = os.environ.get("NO_PROXY")
    os.environ["NO_PROXY"] = "*"
    try:
        yield
    finally:
        if before is None:
            del os.environ["NO_PROXY"]
        else:
            os.environ["NO_PROXY"] = before


class _Run:
    """One run of a plan."""

    def __init__(self, plan: Plan, network: SimulatedNetwork, directory: Path | None) -> None:
        self._plan = plan
        self._network = network
        self._directory = directory
        self._world: World
        self._watchers: list[Watcher] = []
        self._acting: dict[str, None] = {}
        self._forks: Forks | None = None

    async def run(self) -> Outcome:
        world = self._world = World(self._plan, self._network)
        limits = self._plan.limits
        plan, directory = self._plan, self._directory
        memory = MemoryDisk(limits, shared=plan.fleet)
        disk = memory if directory is None else SQLiteDisk(directory, limits, world.clock)
        parts = ServerParts(
            seed=self._plan.seed,
            network=self._network,
            disk=disk,
            clock=world.clock,
            limits=limits,
            committed=world.committed,
            catalog=lambda life: catalog_of(world, life),
            standalone=self._plan.standalone,
        )
        try:
            async with asyncio.timeout(WORLD_SECONDS_MAX), asyncio.TaskGroup() as tasks:
                servers = {name: SimulatedServer(parts, tasks, name) for name in plan.servers}
                servers |= {name: SimulatedServer(parts, tasks, name, faces=False) for name in plan.workers}
                world.pending_bytes = lambda: max(server.pending_bytes() for server in servers.values())
                for server in servers.values():
                    await server.start()
                await self._live(servers, parts.trouble)
                await self._read_all()
                if self._forks is not None:
                    await self._forks.judge()
                for server in servers.values():
                    await server.stop()
        except* TimeoutError:
            world.violated(f"after {WORLD_SECONDS_MAX:.0f} s these still wait: {' '.join(self._acting)}")
        except* Exception as group:  # noqa: BLE001 - a defect, of the server or of this world: the seed is kept, and shows it
            world.violated("".join(traceback.format_exception(group)))
        return self._outcome()

    async def _live(self, servers: Mapping[str, SimulatedServer], trouble: Trouble) -> None:
        """Everything between the first message and the last viewer's end."""
        world, plan = self._world, self._plan
        async with world.client("founder") as client:
            for stream in plan.streams:
                if stream.kind is not StreamKind.RUN:
                    await client.create(stream.name)
        conductor = FaultConductor(world, servers, trouble)
        async with asyncio.TaskGroup() as faults:
            async with asyncio.TaskGroup() as actors:
                healed = [faults.create_task(conductor.carry_out(fault)) for fault in plan.faults]
                for stream in plan.streams:
                    self._act(actors, f"{stream.name}-writer", write(world, stream))
                    for viewer in stream.viewers:
                        watcher = Watcher(world, stream, viewer)
                        self._watchers.append(watcher)
                        self._act(actors, viewer.name, watcher.run())
                    if stream.trims:
                        self._act(actors, f"{stream.name}-janitor", trim(world, stream))
                self._act_on_names(actors)
                actors.create_task(self._heal(healed))
            world.progress.finish()

    def _act_on_names(self, actors: asyncio.TaskGroup) -> None:
        """What names mean while all this goes on."""
        if self._plan.reuses:
            reused = ReusedName(self._world)
            self._act(actors, "again-writer", reused.write())
            for viewer in ("again-viewer-0", "again-viewer-1"):
                self._act(actors, viewer, reused.watch(viewer))
        if self._plan.forks:
            self._forks = Forks(self._world)
            self._act(actors, "forker", self._forks.branch_off())

    async def _heal(self, faults: list[asyncio.Task[None]]) -> None:
        """When nothing is broken any more and all is written, the time runs in which everybody must get to the end."""
        for written in self._world.written.values():
            await written.wait()
        self._world.progress.finish()
        if faults:
            await asyncio.wait(faults)
        for history in self._world.histories.values():
            history.heal()

    def _act(self, tasks: asyncio.TaskGroup, name: str, work: Coroutine[object, object, None]) -> None:
        tasks.create_task(self._guard(name, work), name=name)

    async def _guard(self, name: str, work: Coroutine[object, object, None]) -> None:
        self._acting[name] = None
        try:
            await work
            del self._acting[name]
        except* UnbrokenError as group:
            for error in group.exceptions:
                self._world.violated(f"{name} was told {type(error).__name__}: {error}")

    async def _read_all(self) -> None:
        """What is there at the end, read by somebody new, with its hash chain."""
        world = self._world
        for stream in self._plan.streams:
            history = world.histories[stream.name]
            async with world.client(f"{stream.name}-judge") as client:
                try:
                    state = await client.state(stream.name)
                except NotFoundError:
                    world.violated(f"{stream.name} is gone")
                    continue
                follow = client.follow(stream.name, verify=True)
                rows = []
                async for received in follow:
                    name, content = identify(history, received.seq, received.message)
                    rows.append((received.seq, name, content))
                history.final(rows, state=state.state)
                self._check_state(stream, state.state)
                if not (await client.verify(stream.name)).ok:
                    world.violated(f"the hash chain of {stream.name} does not hold")

    def _check_state(self, stream: StreamPlan, state: str) -> None:
        """A producer that could always reach the server is never taken for dead."""
        away = {FaultKind.HOLE, FaultKind.REFUSE, FaultKind.LATENCY, FaultKind.FLAP}
        if self._plan.fleet:  # others reap whose server is away
            away |= OF_PROCESS
        excused = any(fault.kind in away for fault in self._plan.faults)
        if state != stream.ending and not (excused and state == "interrupted"):
            self._world.violated(f"{stream.name} ended as {state}, not {stream.ending}")

    def _overflows(self) -> list[str]:
        """What grew beyond its bound: in the clients, on the server's side of connections, in front of the store."""
        limits = self._plan.limits
        messages = 2 * (limits.client_follow_messages_max + limits.read_messages_max)
        over_http = {viewer.name for stream in self._plan.streams for viewer in stream.viewers if viewer.kind in HTTP}
        found = [
            f"{watcher.waiting_most} messages waited in a client"
            for watcher in self._watchers
            if watcher.waiting_most > messages
        ]
        found += [
            f"{path.waiting_most} bytes waited for {path.name}"
            for path in self._network.paths
            if path.waiting_most
            > (HTTP_BUFFER_BYTES if path.name in over_http else limits.connection_buffer_bytes_max)
            + 2 * limits.read_bytes_max
        ]
        if self._world.pending_most > limits.pending_bytes_max + limits.append_bytes_max:
            found.append(f"{self._world.pending_most} bytes waited to become durable")
        return found

    def _outcome(self) -> Outcome:
        world = self._world
        reports = {name: history.check(liveness_seconds=LIVENESS_SECONDS) for name, history in world.histories.items()}
        for name, report in reports.items():
            if report.verdict is Verdict.FAIL:
                world.violations.append(f"{name}: {report}")
        world.violations += self._overflows()
        doubts = tuple(doubt for report in reports.values() for doubt in report.doubts)
        verdict = Verdict.PASS
        if world.violations:
            verdict = Verdict.FAIL
        elif any(report.verdict is not Verdict.PASS for report in reports.values()):
            verdict = Verdict.INCONCLUSIVE
        return Outcome(
            plan=self._plan,
            verdict=verdict,
            violations=tuple(world.violations),
            doubts=tuple(dict.fromkeys(doubts)),
            reports=reports,
            lines=tuple(world.lines()),
            delivered=sum(report.delivered for report in reports.values()),
            virtual_seconds=world.now(),
        )
