"""One run: its source, its lease, and its one end.

`LocalRuns` makes a `Run` for a stream that it has just created and executes it. Whatever the source does, the stream gets
exactly one terminal state; what it yielded before is kept. It never starts another run.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Final

import msgspec

from unbroken.errors import (
    DrainingError,
    EndedError,
    FencedError,
    NotFoundError,
    OverloadedError,
    StoreError,
    TransitionError,
    UnbrokenError,
)
from unbroken.messages import NewMessage, StreamInfo, StreamState, encode_message
from unbroken.runs.buffer import Buffer
from unbroken.runs.items import Item, as_messages
from unbroken.states import StreamStateManager
from unbroken.store.base import Close, Producer
from unbroken.streams import AppendOptions, Streams

__all__ = ["Run", "leave"]

logger = logging.getLogger(__name__)

QUEUE_MAX: Final = 1_000
RETRY_SECONDS: Final = 0.5
TIME_MS: Final = 10**13
"""Stands for the time of an append where only the size of the message matters."""


class Run:
    """Consumes a source, appends what it yields and renews the lease, in three tasks of one group."""

    def __init__(self, streams: Streams, states: StreamStateManager, stream: StreamInfo, producer: str) -> None:
        self._streams = streams
        self._states = states
        self._limits = limits = streams.limits
        self.stream = stream
        self._producer = producer
        self._seq = 0
        self._buffer = Buffer(messages_max=QUEUE_MAX, bytes_max=limits.run_memory_bytes_max)
        self._consumer: asyncio.Task[None] | None = None
        self._interruption: Close | None = None
        self._give_up_at: float | None = None
        self._close: asyncio.Future[Close] = asyncio.get_running_loop().create_future()

    def observe(self, info: StreamInfo) -> None:
        """Take notice of the stream's state: somebody may have asked for the end."""
        if info.cancel_requested_ms is not None and not info.state.terminal:
            self._interrupt(Close(StreamState.CANCELLED, _reason(by=info.cancel_requested_by or "")))

    def stop(self) -> None:
        """Stop the source because this process stops; a store that stays away is not waited for longer than a drain."""
        self._give_up_at = asyncio.get_running_loop().time() + self._limits.drain_seconds_max
        self._interrupt(Close(StreamState.INTERRUPTED, _reason(cause="server_stopped")))

    def _interrupt(self, close: Close) -> None:
        """End as `close`: the source is cancelled, and has `run_grace_seconds` for its last words."""
        if self._interruption is not None:
            return
        self._interruption = close
        asyncio.get_running_loop().call_later(self._limits.run_grace_seconds, self._abandon, close)
        if self._consumer is not None:
            self._consumer.cancel()

    def _abandon(self, close: Close) -> None:
        if not self._close.done():
            logger.error("run %s does not stop: its stream is ended without it", self.stream.name)
            self._close.set_result(close)

    async def execute(self, source: AsyncIterator[Item]) -> None:
        """Run to the end. Raises nothing for what the source does, or for a stream that others ended or deleted."""
        try:
            async with asyncio.TaskGroup() as tasks:
                renewer = tasks.create_task(self._renew())
                appender = tasks.create_task(self._append_all())
                consumer = tasks.create_task(self._consume(source))
                close = await self._close
                self._buffer.finish()
                await appender
                await self._append([], close)
                renewer.cancel()
                consumer.cancel()
        except* (EndedError, FencedError, NotFoundError) as lost:
            logger.warning("run %s lost its stream: %s", self.stream.name, lost.exceptions[0])
        except* DrainingError:
            logger.warning("run %s could not be ended before the log stopped", self.stream.name)

    # --- the source ---------------------------------------------------------------------------------------------------

    async def _consume(self, source: AsyncIterator[Item]) -> None:
        self._consumer = task = asyncio.current_task()
        close = Close(StreamState.COMPLETED)
        try:
            if self._interruption is None:
                await self._take_all(source)
        except asyncio.CancelledError:
            if self._interruption is None and task is not None and task.cancelling():
                raise  # the stream is lost, and this run with it
            close = Close(StreamState.FAILED, _reason(error="CancelledError"))
        except Exception as error:  # whatever the application's code raises is how its stream ends
            if self._interruption is None:
                logger.warning("run %s failed", self.stream.name, exc_info=True)
            close = Close(StreamState.FAILED, _why(error))
        finally:
            await leave(source, self._limits.run_grace_seconds)
        if not self._close.done():
            self._close.set_result(self._interruption or close)

    async def _take_all(self, source: AsyncIterator[Item]) -> None:
        async for item in source:
            for message in as_messages(item, self._limits):
                await self._buffer.put(message, self._size(message))
            if self._buffer.finished:
                return

    def _size(self, message: NewMessage) -> int:
        """The bytes of the message as it will be stored; raises what is wrong with it."""
        return len(encode_message(message, time_ms=TIME_MS, producer=self._producer, limits=self._limits))

    # --- the log ------------------------------------------------------------------------------------------------------

    async def _append_all(self) -> None:
        """Append what waits, one batch at a time, until the source has ended."""
        limits = self._limits
        while batch := await self._buffer.take(
            messages_max=limits.append_messages_max, bytes_max=limits.run_append_bytes_max
        ):
            await self._append(batch, None)

    async def _append(self, batch: list[NewMessage], close: Close | None) -> None:
        """Append once, however often it takes: a store that is away slows the run down, and loses nothing."""
        options = AppendOptions(producer=Producer(self._producer, 1, self._seq), close=close)
        while True:
            try:
                await self._streams.append_durably(self.stream, batch, options)
            except (StoreError, OverloadedError) as error:
                if not error.retryable:
                    raise
                logger.warning("run %s waits for the store: %s", self.stream.name, error.code)
                await self._pause()
            else:
                self._seq += 1
                return

    async def _pause(self) -> None:
        if self._give_up_at is not None and asyncio.get_running_loop().time() > self._give_up_at:
            raise DrainingError
        await asyncio.sleep(RETRY_SECONDS)

    async def _renew(self) -> None:
        """Keep the lease until the stream has ended; one that is paused has none, and is asked again later."""
        pause = self._limits.lease_seconds / 3
        while True:
            await asyncio.sleep(pause)
            pause = self._limits.lease_seconds / 3
            try:
                await self._states.lease(self.stream, self._producer, 1, None)
            except (StoreError, OverloadedError) as error:
                logger.warning("run %s cannot renew its lease: %s", self.stream.name, error.code)
                pause = min(pause, RETRY_SECONDS)
            except TransitionError:
                logger.info("run %s: its stream is paused and has no lease", self.stream.name)
            except EndedError:
                if not self._close.done():
                    raise
                return


async def leave(source: AsyncIterator[Item], seconds: float) -> None:
    """Close `source`, if it can be closed, within `seconds`; what goes wrong is logged."""
    try:
        close = getattr(source, "aclose", None)
        if close is None:
            return
        async with asyncio.timeout(seconds):
            await close()
    except Exception:  # the source belongs to the application, and its run is over
        logger.warning("a source did not close", exc_info=True)


def _why(error: Exception) -> str:
    """What viewers are told of a failure: its kind. What it says may be a secret, and is in the log only."""
    facts = {"error": type(error).__name__[:100]}
    if isinstance(error, UnbrokenError):
        facts["code"] = error.code
    return _reason(**facts)


def _reason(**facts: str) -> str:
    return msgspec.json.encode(facts).decode()
