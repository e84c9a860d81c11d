"""Does the faults of a plan to a world, each when enough has happened, and notes how often each of them really bit.

A fault that met nobody bites 0 times, which makes the run inconclusive. It never decides what is right afterwards.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence

from unbroken.errors import StoreFullError, StoreUnavailableError, UnknownOutcomeError
from unbroken.testing.simulation.network import NetworkPath
from unbroken.testing.simulation.plan import FaultKind, FaultPlan
from unbroken.testing.simulation.server import SimulatedServer
from unbroken.testing.simulation.storage import Trouble
from unbroken.testing.simulation.world import World

__all__ = ["FaultConductor"]

STORE_ERRORS = (StoreUnavailableError, StoreFullError)


class FaultConductor:
    """Carries out faults on the network, the processes, their store and clock; those of one kind one after the other."""

    def __init__(self, world: World, servers: Mapping[str, SimulatedServer], trouble: Trouble) -> None:
        self._world = world
        self._servers = servers
        self._trouble = trouble
        self._turns = {kind: asyncio.Lock() for kind in ("network", "store", *servers)}

    async def carry_out(self, fault: FaultPlan) -> None:
        """Wait for its moment, do it, and undo it."""
        if not await self._world.progress.reach(fault.after):
            self._done(fault, 0)
            return
        match fault.kind:
            case FaultKind.KILL | FaultKind.POWER | FaultKind.RESTART | FaultKind.FREEZE:
                async with self._turns[fault.process]:
                    bites = await self._server_fault(fault)
            case FaultKind.STORE_FAILS | FaultKind.STORE_UNSURE | FaultKind.STORE_HANGS:
                async with self._turns["store"]:
                    bites = await self._store_fault(fault)
            case FaultKind.CLOCK:
                self._world.clock.jump(fault.seconds)
                bites = 1
            case _:
                async with self._turns["network"]:
                    bites = await self._network_fault(fault)
        self._done(fault, bites)

    def _done(self, fault: FaultPlan, bites: int) -> None:
        self._world.note("fault", f"{fault}: bit {bites}")
        for history in self._world.histories.values():
            history.fault(fault.kind, bites)

    def _paths(self, fault: FaultPlan) -> Sequence[NetworkPath]:
        """The path that is meant if anybody uses it now, else all that are used."""
        network = self._world.network
        used = [path for path in network.paths if path.links and path.target in self._servers]
        meant = [path for path in used if path.name == fault.path]
        return meant or used

    async def _network_fault(self, fault: FaultPlan) -> int:
        paths = self._paths(fault)
        self._world.note("fault", f"{fault} begins on {' '.join(path.name for path in paths)}")
        match fault.kind:
            case FaultKind.CUT:
                return sum(path.cut() for path in paths)
            case FaultKind.FLAP:
                cuts = 0
                for _ in range(fault.count + 2):
                    cuts += sum(path.cut() for path in paths)
                    await asyncio.sleep(fault.seconds / 4)
                return cuts
            case FaultKind.HOLE:
                return await self._hole(paths, fault.seconds)
            case FaultKind.REFUSE:
                return await self._refuse(paths, fault.seconds)
            case _:
                for path in paths:
                    path.latency_seconds += fault.seconds / 4
                await asyncio.sleep(fault.seconds * 5)
                for path in paths:
                    path.latency_seconds -= fault.seconds / 4
                return len(paths)

    async def _hole(self, paths: Sequence[NetworkPath], seconds: float) -> int:
        before = sum(path.swallowed for path in paths)
        for path in paths:
            path.swallow()
        await asyncio.sleep(seconds)
        for path in paths:
            path.heal()
        return sum(path.swallowed for path in paths) - before

    async def _refuse(self, paths: Sequence[NetworkPath], seconds: float) -> int:
        closed = [path for path in paths if not path.refusing]
        for path in closed:
            path.refusing = True
            path.cut()
        await asyncio.sleep(seconds)
        for path in closed:
            path.refusing = False
        return len(closed)

    async def _server_fault(self, fault: FaultPlan) -> int:
        self._world.note("fault", f"{fault} begins")
        server = self._servers[fault.process]
        if fault.kind is FaultKind.FREEZE:
            return await server.freeze(fault.seconds)
        if fault.kind is FaultKind.RESTART:
            await server.stop()
        else:
            await server.kill(silent=fault.kind is FaultKind.POWER)
        await asyncio.sleep(fault.seconds)
        await server.start()
        return 1

    async def _store_fault(self, fault: FaultPlan) -> int:
        self._world.note("fault", f"{fault} begins")
        self._world.executions.store_troubled_at = math.inf
        trouble = self._trouble
        before = trouble.bites
        if fault.kind is FaultKind.STORE_HANGS:
            trouble.hanging = asyncio.Event()
            await asyncio.sleep(fault.seconds)
            trouble.hanging.set()
            trouble.hanging = None
        else:
            unsure = fault.kind is FaultKind.STORE_UNSURE
            trouble.error = UnknownOutcomeError if unsure else STORE_ERRORS[fault.count % 2]
            trouble.applied = fault.count % 2 == 1
            trouble.failing = fault.count
            await asyncio.sleep(fault.seconds)
            trouble.failing = 0
        self._world.executions.store_troubled_at = self._world.now()
        return trouble.bites - before
