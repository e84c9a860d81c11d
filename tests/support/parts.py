"""The parts of a server without any face: log, streams, states and hub around a store, running."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random

from unbroken.clock import Clock
from unbroken.hub import Hub
from unbroken.identity import Principal
from unbroken.limits import DEFAULT_LIMITS, Limits
from unbroken.log import Log
from unbroken.messages import NewMessage, StreamInfo
from unbroken.observe.metrics import Metrics
from unbroken.requests import NewStream
from unbroken.states import StreamStateManager
from unbroken.store.base import StreamingMessageRepository
from unbroken.streams import Streams

__all__ = ["ALICE", "BOB", "ManualClock", "Parts", "running_parts", "texts"]

ALICE = Principal("local", "alice")
BOB = Principal("other", "bob")


@dataclass
class ManualClock:
    """A clock that a test sets."""

    ms: int = 1_764_000_000_000
    random: Random = field(default_factory=lambda: Random(7))

    def now_ms(self) -> int:
        return self.ms

    def advance(self, seconds: float) -> None:
        self.ms += int(seconds * 1000)


@dataclass(frozen=True)
class Parts:
    store: StreamingMessageRepository
    log: Log
    streams: Streams
    states: StreamStateManager
    hub: Hub
    metrics: Metrics

    async def stream(self, name: str = "a", new: NewStream | None = None) -> StreamInfo:
        """A new stream of Alice's."""
        return (await self.streams.create(ALICE, name, new or NewStream())).stream


def texts(*values: str) -> list[NewMessage]:
    """Text messages."""
    return [NewMessage(text=value) for value in values]


@asynccontextmanager
async def running_parts(
    store: StreamingMessageRepository, *, limits: Limits = DEFAULT_LIMITS, clock: Clock | None = None
) -> AsyncIterator[Parts]:
    """Everything below the faces, running until the block is left."""
    metrics = Metrics()
    log = Log(store, limits=limits, metrics=metrics)
    streams = Streams(log, store, limits=limits, clock=clock or ManualClock())
    hub = Hub(store, limits=limits, metrics=metrics)
    log.on_commit(hub.committed)
    await store.open()
    try:
        async with asyncio.TaskGroup() as tasks:
            background = [tasks.create_task(log.run()), tasks.create_task(hub.run())]
            yield Parts(store, log, streams, StreamStateManager(streams), hub, metrics)
            for task in background:
                task.cancel()
    finally:
        await store.close()
