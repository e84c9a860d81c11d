"""Runs in this process: an async iterator becomes a durable stream, whoever watches.

`LocalRuns` starts each run under one task group, holds its lease, batches what it yields, and always ends the stream: completed,
failed, cancelled, or interrupted when the process stops. It knows no transport; starting is not attaching.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final

import msgspec

from unbroken.errors import (
    DrainingError,
    EndedError,
    FencedError,
    LifespanError,
    NotFoundError,
    OverloadedError,
    StoreError,
)
from unbroken.log import Change
from unbroken.messages import NewMessage, Principal, StreamId, StreamInfo, StreamState
from unbroken.states import StreamStateManager
from unbroken.store.base import Close, Producer
from unbroken.streams import AppendOptions, NewStream, Streams

__all__ = ["Item", "LocalRuns", "as_message"]

logger = logging.getLogger(__name__)

Item = str | bytes | NewMessage | Mapping[str, object] | Sequence[object] | int | float | bool | None
"""What a run may yield: text, bytes, a message of any kind, or any other value as JSON."""

QUEUE_MAX: Final = 256
RETRY_SECONDS: Final = 0.5


def as_message(item: Item) -> NewMessage:
    """The message for what a run yielded."""
    if isinstance(item, NewMessage):
        return item
    if isinstance(item, str):
        return NewMessage(kind="text", text=item)
    if isinstance(item, (bytes, bytearray, memoryview)):
        return NewMessage(kind="data", data=bytes(item))
    return NewMessage(kind="json", json=msgspec.Raw(msgspec.json.encode(item)))


class LocalRuns:
    """All runs of this process. `running` must be entered before `start`."""

    def __init__(self, streams: Streams, states: StreamStateManager) -> None:
        self._streams = streams
        self._states = states
        self._runs: dict[StreamId, _Run] = {}
        self._tasks: asyncio.TaskGroup | None = None
        streams.log.on_commit(self._committed)

    def __len__(self) -> int:
        return len(self._runs)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Runs may be started inside the block; those left at its end are stopped and marked as interrupted."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            try:
                yield
            finally:
                self._tasks = None
                for run in self._runs.values():
                    run.stop()

    async def start(
        self, principal: Principal, name: str, source: AsyncIterable[Item], new: NewStream | None = None
    ) -> StreamInfo:
        """Run `source` into the stream `name`, or attach to the stream that already has the name.

        Returns when the stream exists durably; the run goes on by itself. When the name is taken, `source` is not begun.
        Raises `LifespanError` outside `running`, and what `Streams.create` raises.
        """
        if self._tasks is None:
            raise LifespanError
        producer = f"run-{secrets.token_hex(6)}"
        leased = replace(new or NewStream(kind="text"), lease=Producer(producer, 1, 0))
        created = await self._streams.create(principal, name, leased)
        if created.created:
            run = _Run(self._streams, self._states, created.stream, producer)
            self._runs[created.stream.id] = run
            self._tasks.create_task(self._execute(run, source))
        else:
            close = getattr(source, "aclose", None)
            if close is not None:
                await close()
        return created.stream

    async def _execute(self, run: _Run, source: AsyncIterable[Item]) -> None:
        try:
            await run.execute(source)
        finally:
            self._runs.pop(run.stream.id, None)

    def _committed(self, changes: Sequence[Change]) -> None:
        """A cancel that somebody asked for reaches its run at once."""
        for change in changes:
            run = self._runs.get(change.stream)
            if run is not None and change.info is not None and change.info.cancel_requested_ms is not None:
                run.cancel(change.info.cancel_requested_by or "")


class _Run:
    """One run: a task that consumes the source, one that appends, one that renews the lease."""

    def __init__(self, streams: Streams, states: StreamStateManager, stream: StreamInfo, producer: str) -> None:
        self._streams = streams
        self._states = states
        self.stream = stream
        self._producer = producer
        self._seq = 0
        self._queue: asyncio.Queue[NewMessage | None] = asyncio.Queue(QUEUE_MAX)
        self._consumer: asyncio.Task[Close] | None = None
        self._cancelled_by: str | None = None
        self._stopping = False

    def cancel(self, by: str) -> None:
        """Stop the source because somebody asked; what it yielded is kept."""
        if self._cancelled_by is None and self._consumer is not None:
            self._cancelled_by = by
            self._consumer.cancel()

    def stop(self) -> None:
        """Stop the source because this process stops."""
        if self._consumer is not None:
            self._stopping = True
            self._consumer.cancel()

    async def execute(self, source: AsyncIterable[Item]) -> None:
        """Run to the end. Never raises for what the source does; the stream's state says it."""
        try:
            async with asyncio.TaskGroup() as tasks:
                renewer = tasks.create_task(self._renew())
                appender = tasks.create_task(self._append_all())
                self._consumer = tasks.create_task(self._consume(source))
                close = await self._consumer
                await self._queue.put(None)
                await appender
                renewer.cancel()
                await self._append([], close)
        except* (EndedError, FencedError, NotFoundError) as lost:
            logger.warning("run %s lost its stream: %s", self.stream.name, lost.exceptions[0])
        except* DrainingError:
            logger.warning("run %s could not be ended before the log stopped", self.stream.name)

    async def _consume(self, source: AsyncIterable[Item]) -> Close:
        try:
            async for item in source:
                await self._queue.put(as_message(item))
        except asyncio.CancelledError:
            if self._cancelled_by is not None:
                return Close(StreamState.CANCELLED, _reason(by=self._cancelled_by))
            if self._stopping:
                return Close(StreamState.INTERRUPTED, _reason(cause="server_stopped"))
            raise
        except Exception as error:
            logger.warning("run %s failed", self.stream.name, exc_info=True)
            return Close(StreamState.FAILED, _reason(error=type(error).__name__, message=str(error)[:1000]))
        finally:
            close = getattr(source, "aclose", None)
            if close is not None:
                await close()
        return Close(StreamState.COMPLETED)

    async def _append_all(self) -> None:
        """Append what waits, one batch at a time, until the source has ended."""
        queue = self._queue
        most = self._streams.limits.append_messages_max
        ended = False
        while not ended:
            batch: list[NewMessage] = []
            item = await queue.get()
            while item is not None and len(batch) < most:
                batch.append(item)
                if queue.empty():
                    break
                item = queue.get_nowait()
            ended = item is None
            if batch:
                await self._append(batch, None)

    async def _append(self, batch: list[NewMessage], close: Close | None) -> None:
        """Append once, however often it takes: a store that is away slows the run down, and loses nothing."""
        options = AppendOptions(producer=Producer(self._producer, 1, self._seq), close=close)
        while True:
            try:
                await self._streams.append_durably(self.stream, batch, options)
            except (StoreError, OverloadedError) as error:
                logger.warning("run %s waits for the store: %s", self.stream.name, error.code)
                await asyncio.sleep(RETRY_SECONDS)
            else:
                self._seq += 1
                return

    async def _renew(self) -> None:
        seconds = self._streams.limits.lease_seconds
        while True:
            await asyncio.sleep(seconds / 3)
            try:
                await self._states.lease(self.stream, self._producer, 1, None)
            except (StoreError, OverloadedError) as error:
                logger.warning("run %s cannot renew its lease: %s", self.stream.name, error.code)


def _reason(**facts: str) -> str:
    return msgspec.json.encode(facts).decode()
