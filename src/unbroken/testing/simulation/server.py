"""The real server in a simulated world: every face over uvicorn, log, hub, reaper, retention, supervisor; and its deaths.

A process of it begins with `start` and ends by `kill`, which leaves nothing but what the store holds, or by `stop`, the
graceful way. The world asks it for nothing else; clients reach it over the network alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import uvicorn
from uvicorn.server import ServerState

from unbroken.auth.access import Access
from unbroken.server.app import build_app, build_services
from unbroken.server.engine import Engine
from unbroken.server.standalone import standalone_protocol
from unbroken.testing.simulation.chance import chance_of
from unbroken.testing.simulation.clock import SimulatedClock
from unbroken.testing.simulation.network import Listener, SimulatedNetwork
from unbroken.testing.simulation.storage import Committed, Disk, StoreHandle, Trouble

if TYPE_CHECKING:
    from unbroken.limits import Limits
    from unbroken.runs.catalog import Catalog
    from unbroken.server.services import Services

__all__ = ["PORT", "SERVER", "ServerParts", "SimulatedServer"]

logger = logging.getLogger(__name__)

SERVER = "server"
PORT = 80


@dataclass(frozen=True, slots=True)
class ServerParts:
    """What a server is made of that outlives its processes."""

    seed: int | str
    network: SimulatedNetwork
    disk: Disk
    clock: SimulatedClock
    limits: Limits
    committed: Committed
    catalog: Callable[[], Catalog | None]
    standalone: bool = True
    """Whether WebSockets are answered without ASGI, as `unbroken serve` does, or taken over as inside an application."""
    trouble: Trouble = field(default_factory=Trouble)


@dataclass(slots=True)
class _Process:
    """One incarnation."""

    handle: StoreHandle
    engine: Engine
    over: asyncio.Event = field(default_factory=asyncio.Event)
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    listener: Listener | None = None
    task: asyncio.Task[None] | None = None


class SimulatedServer:
    """A server that can die and come back; its processes are tasks of `tasks`."""

    def __init__(self, parts: ServerParts, tasks: asyncio.TaskGroup) -> None:
        self._parts = parts
        self._tasks = tasks
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
        """Start a process and wait until it listens."""
        assert self._process is None, "it runs already"
        parts = self._parts
        self.starts += 1
        chance = chance_of(parts.seed, f"store {self.starts}")
        handle = StoreHandle(parts.disk.attach(), chance, parts.trouble, parts.committed)
        services = build_services(
            handle,
            Access(allow_hosts=frozenset({"*"})),
            limits=parts.limits,
            clock=parts.clock,
            catalog=parts.catalog(),
        )
        process = self._process = _Process(handle, Engine(services))
        parts.network.on(SERVER)
        process.task = self._tasks.create_task(self._live(process), name=f"server {self.starts}")
        await process.ready.wait()

    async def kill(self, *, silent: bool = False) -> None:
        """Death in this very moment: of the process, or with `silent` of the whole machine."""
        process, self._process = self._process, None
        if process is None:
            return
        process.handle.dead = True
        self._parts.network.kill(SERVER, silent=silent)
        assert process.task is not None
        process.task.cancel()
        self._dead.append(process.task)
        await self._parts.disk.detach()

    async def stop(self) -> None:
        """The graceful end: viewers are sent away, what was accepted becomes durable."""
        process, self._process = self._process, None
        if process is not None:
            process.over.set()
            assert process.task is not None
            await asyncio.wait([process.task])
            self._parts.network.kill(SERVER)
            await self._parts.disk.detach()

    async def _live(self, process: _Process) -> None:
        try:
            async with process.engine.running():
                process.listener = await self._listen(process.engine)
                process.ready.set()
                await process.over.wait()
                process.listener.close()
                await process.engine.drain()
        except asyncio.CancelledError:
            if not process.handle.dead:
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

        return parts.network.listen(protocol, SERVER, PORT)
