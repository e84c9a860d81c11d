"""The running parts of a server: one task group that owns every background task.

`running` is the lifespan of everything below the faces; `drain` is the first half of a graceful stop. It opens the store,
recovers what a crash left, and closes the store last.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, nullcontext

from unbroken.hub import Hub
from unbroken.retention import Retention
from unbroken.server.services import Services

__all__ = ["Engine"]

logger = logging.getLogger(__name__)


class Engine:
    """Starts and stops the parts of `services`, in order."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self._retention = Retention(services.streams)
        services.log.on_commit(services.hub.committed)
        services.hub.on_away = services.log.look
        services.log.on_health(services.connections.health_changed)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Everything runs inside the block. When it is left, what was accepted is made durable first."""
        services = self.services
        await services.store.open()
        try:
            extended = await services.states.recover()
            if extended:
                logger.info("%d leases continue after the restart", extended)
            async with asyncio.TaskGroup() as tasks:
                background = [tasks.create_task(work, name=name) for name, work in self._work()]
                services.started = True
                try:
                    supervisor = services.supervisor
                    async with nullcontext() if supervisor is None else supervisor.running():
                        yield
                        await self.drain()
                    await services.log.drain()
                    await self._last_checkpoints()
                finally:
                    services.started = False
                    for task in background:
                        task.cancel()
        finally:
            services.audit.close()
            await self._close_store()

    def _work(self) -> Iterator[tuple[str, Coroutine[object, object, None]]]:
        """What goes on for as long as the server runs."""
        services = self.services
        hub: Hub = services.hub
        yield "log", services.log.run()
        yield "hub", hub.run()
        yield "quotas", services.quotas.run()
        yield "audit", services.audit.run()
        yield "connections", services.connections.run()
        yield "reaper", services.states.run()
        yield "retention", self._retention.run()
        yield "credentials", services.live.run()
        if services.keeper is not None:
            yield "checkpoints", services.keeper.run()
        if services.access.provider is not None:
            yield "identity provider", services.access.provider.run()

    async def drain(self) -> None:
        """Send every viewer away to come back later; from now on nobody waits for long for a store that hangs. Idempotent."""
        if not self.services.draining:
            self.services.draining = True
            self.services.log.hasten()
            await self.services.connections.drain()

    async def _last_checkpoints(self) -> None:
        """Of what was appended since; for a bounded time, because a directory far away may hang."""
        if self.services.keeper is None:
            return
        try:
            async with asyncio.timeout(self.services.limits.drain_seconds_max):
                await self.services.keeper.finish()
        except TimeoutError:
            logger.warning("the last checkpoints could not be written in time; the next start makes them")

    async def _close_store(self) -> None:
        """Close the store; one that hangs is left to the end of the process, and to the recovery of the next start."""
        services = self.services
        try:
            async with asyncio.timeout(0 if services.log.abandoned else services.limits.drain_seconds_max):
                await services.store.close()
        except TimeoutError:
            logger.warning("the store does not close; what was acknowledged is in it")
