"""The real server in a simulated world: every face over uvicorn, log, hub, reaper, retention, supervisor; and its deaths.

A process of it begins with `start` and ends by `kill`, which leaves nothing but what the store holds, or by `stop`, the
graceful way. The world asks it for nothing else; clients reach it over the network alone.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import uvicorn
from uvicorn.server import ServerState

from unbroken.auth.access import Access
from unbroken.errors import StoreError
from unbroken.server.app import build_app, build_services
from unbroken.server.engine import Engine
from unbroken.server.standalone import standalone_protocol
from unbroken.testing.simulation.chance import chance_of
from unbroken.testing.simulation.clock import SimulatedClock
from unbroken.testing.simulation.freezing import Freezer
from unbroken.testing.simulation.network import Listener, SimulatedNetwork
from unbroken.testing.simulation.plan import SERVER
from unbroken.testing.simulation.storage import Committed, Disk, StoreHandle, Trouble

if TYPE_CHECKING:
    from unbroken.limits import Limits
    from unbroken.runs.catalog import Catalog
    from unbroken.server.services import Services

__all__ = ["PORT", "SERVER", "Life", "ServerParts", "SimulatedServer"]

logger = logging.getLogger(__name__)

PORT = 80
RESTART_SECONDS = 1.0


class Life:
    """One process from its start to its end, for whoever wants to know what it could do when."""

    def __init__(self, name: str, freezer: Freezer) -> None:
        self.name = name
        self.freezer = freezer
        self.dead = False

    def able_since(self) -> float:
        """Since when it runs undisturbed, by the loop's clock; infinite while it is frozen."""
        return math.inf if self.freezer.frozen else self.freezer.thawed_at or 0.0


@dataclass(frozen=True, slots=True)
class ServerParts:
    """What a server is made of that outlives its processes."""

    seed: int | str
    network: SimulatedNetwork
    disk: Disk
    clock: SimulatedClock
    limits: Limits
    committed: Committed
    catalog: Callable[[Life], Catalog | None]
    standalone: bool = True
    """Whether WebSockets are answered without ASGI, as `unbroken serve` does, or taken over as inside an application."""
    trouble: Trouble = field(default_factory=Trouble)


@dataclass(slots=True)
class _Process:
    """One incarnation."""

    life: Life
    handle: StoreHandle
    engine: Engine
    over: asyncio.Event = field(default_factory=asyncio.Event)
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    listener: Listener | None = None
    task: asyncio.Task[None] | None = None
    refused: bool = False
    """Whether it could not begin, because the store did not do what was asked."""


class SimulatedServer:
    """A server that can die and come back; its processes are tasks of `tasks`. Without `faces` it is a worker."""

    def __init__(self, parts: ServerParts, tasks: asyncio.TaskGroup, name: str = SERVER, *, faces: bool = True) -> None:
        self._parts = parts
        self._tasks = tasks
        self.name = name
        self._faces = faces
        self._process: _Process | None = None
        self._dead: list[asyncio.Task[None]] = []
        self.starts = 0

    @property
    def services(self) -> Services | None:
        """The parts of the process that runs now."""
        return None if self._process is None else self._process.engine.services

    def pending_bytes(self) -> int:
        """How much waits in the process that runs now to become durable."""
        return 0 if self._process is None else self._process.engine.services.log.pending_bytes

    async def start(self) -> None:
        """Start a process and wait until it listens; one that cannot use the store ends, and is started again."""
        assert self._process is None, "it runs already"
        while (process := await self._begin()).refused:
            await process.handle.detach()
            await asyncio.sleep(RESTART_SECONDS)
        self._process = process

    async def _begin(self) -> _Process:
        parts = self._parts
        self.starts += 1
        number = str(self.starts) if self.name == SERVER else f"{self.name} {self.starts}"
        freezer = Freezer(asyncio.get_running_loop())
        life = Life(f"{self.name} {self.starts}", freezer)
        handle = StoreHandle(parts.disk, chance_of(parts.seed, f"store {number}"), parts.trouble, parts.committed)
        services = build_services(
            handle,
            Access(allow_hosts=frozenset({"*"})),
            limits=parts.limits,
            clock=parts.clock,
            catalog=parts.catalog(life),
        )
        process = _Process(life, handle, Engine(services))
        parts.network.on(self.name)
        process.task = self._tasks.create_task(
            self._live(process), name=f"{self.name} {self.starts}", context=freezer.context()
        )
        await process.ready.wait()
        return process

    async def kill(self, *, silent: bool = False) -> None:
        """Death in this very moment: of the process, or with `silent` of the whole machine."""
        process, self._process = self._process, None
        if process is None:
            return
        process.handle.dead = process.life.dead = True
        self._parts.network.kill(self.name, silent=silent)
        assert process.task is not None
        process.task.cancel()
        self._dead.append(process.task)
        process.life.freezer.thaw()
        await process.handle.detach()

    async def stop(self) -> None:
        """The graceful end: viewers are sent away, what was accepted becomes durable."""
        process, self._process = self._process, None
        if process is not None:
            process.over.set()
            assert process.task is not None
            await asyncio.wait([process.task])
            process.life.dead = True
            self._parts.network.kill(self.name)
            await process.handle.detach()

    async def freeze(self, seconds: float) -> int:
        """Stop the process as SIGSTOP does, for so long; how many of its steps had to wait, none if it died meanwhile."""
        process = self._process
        if process is None:
            return 0
        freezer = process.life.freezer
        freezer.freeze()
        await asyncio.sleep(seconds)
        if freezer.frozen:
            freezer.thaw()
        return freezer.bites

    async def _live(self, process: _Process) -> None:
        try:
            async with process.engine.running():
                if self._faces:
                    process.listener = await self._listen(process.engine)
                process.ready.set()
                await process.over.wait()
                if process.listener is not None:
                    process.listener.close()
                await process.engine.drain()
        except asyncio.CancelledError:
            if not process.handle.dead:
                raise
        except StoreError:
            process.refused = not process.ready.is_set()
            if not process.refused and not process.handle.dead:
                raise
        except Exception:
            if not process.handle.dead:
                raise
            logger.debug("a dead process unwound", exc_info=True)
        finally:
            process.ready.set()

    async def _listen(self, engine: Engine) -> Listener:
        """As `unbroken serve` sets uvicorn up, on the simulated network."""
        parts = self._parts
        config = uvicorn.Config(
            build_app(engine),
            ws=standalone_protocol(engine.services) if parts.standalone else "websockets-sansio",  # type: ignore[arg-type]
            http="httptools",
            ws_per_message_deflate=False,
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            lifespan="off",
        )
        config.load()
        state = ServerState()

        def protocol() -> asyncio.BaseProtocol:
            kind = config.http_protocol_class
            return kind(config=config, server_state=state, app_state={})  # type: ignore[call-arg]

        return parts.network.listen(protocol, self.name, PORT)
