"""The running parts of a server: one task group that owns every background task.

`running` is the lifespan of everything below the faces; `drain` is the first half of a graceful stop. It opens the store,
recovers what a crash left, and closes the store last.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

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
                hub: Hub = services.hub
                background = [
                    tasks.create_task(work, name=name)
                    for name, work in (
                        ("log", services.log.run()),
                        ("hub", hub.run()),
                        ("connections", services.connections.run()),
                        ("reaper", services.states.run()),
                        ("retention", self._retention.run()),
                    )
                ]
                services.started = True
                try:
                    yield
                    await self.drain()
                    await services.log.drain()
                finally:
                    services.started = False
                    for task in background:
                        task.cancel()
        finally:
            await services.store.close()

    async def drain(self) -> None:
        """Send every viewer away to come back later, and let what was appended become durable; idempotent."""
        if not self.services.draining:
            self.services.draining = True
            await self.services.connections.drain()
