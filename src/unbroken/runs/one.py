"""One run: its source, its lease, and its one end.

`LocalRuns` makes a `Run` for a stream that it has just created, the supervisor for one whose lease it has taken. Whatever the
source does, the stream gets exactly one terminal state; what it yielded before is kept. It never starts another run.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

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
from unbroken.limits import Limits
from unbroken.messages import NewMessage, StreamInfo, StreamState, encode_message
from unbroken.requests import AppendOptions
from unbroken.runs.buffer import Buffer
from unbroken.runs.context import RunEnded
from unbroken.runs.history import CONTROL_KINDS
from unbroken.runs.items import Item, as_messages
from unbroken.states import StreamStateManager
from unbroken.store.base import Close, Producer
from unbroken.streams import Streams

__all__ = ["Plan", "Run", "leave", "why"]

T = TypeVar("T")
logger = logging.getLogger(__name__)

QUEUE_MAX: Final = 1_000
RETRY_SECONDS: Final = 0.5
WATCH_SECONDS_MAX: Final = 1.0
PASSING: Final = (asyncio.CancelledError, KeyboardInterrupt, GeneratorExit)
"""What is not the application's failure."""
TIME_MS: Final = 10**13
"""Stands for the time of an append where only the size of the message matters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a run is to be executed. `told`: its end is also its last message, of the kind `result` or of its state."""

    epoch: int = 1
    told: bool = False


class Run:
    """Consumes a source, appends what it yields and renews the lease, in tasks of one group.

    It is the `Outlet` of what its source says besides.
    """

    def __init__(
        self, streams: Streams, states: StreamStateManager, stream: StreamInfo, producer: str, plan: Plan | None = None
    ) -> None:
        self._streams = streams
        self._states = states
        self._limits = limits = streams.limits
        self.stream = stream
        self.plan = plan or Plan()
        self.skip = 0
        """How many of the messages that it yields next are stored already."""
        self.excused = 0
        """Above 0 while it may be silent, because it waits for somebody."""
        self.on_interrupt: Callable[[], None] = _nothing
        self.on_put: Callable[[NewMessage], None] = _nothing
        self._producer = producer
        self._seq = 0
        self._buffer = Buffer(messages_max=QUEUE_MAX, bytes_max=limits.run_memory_bytes_max)
        self._put = 0
        self._stored = 0
        self._stored_more = asyncio.Event()
        self._progress: msgspec.Raw | None = None
        self._progress_news = asyncio.Event()
        self._running = asyncio.Event()
        self._running.set()
        self._renew_now = asyncio.Event()
        self._consumer: asyncio.Task[None] | None = None
        self._interruption: _End | None = None
        self._give_up_at: float | None = None
        self._end: asyncio.Future[_End] = asyncio.get_running_loop().create_future()
        self._heard_at = asyncio.get_running_loop().time()
        self._tasks: asyncio.TaskGroup | None = None
        self._helpers: list[asyncio.Task[None]] = []
        self._idle_seconds: float | None = None
        self._ends_at: float | None = None
        self._total_seconds: float | None = None
        self._timed = asyncio.Event()

    # --- what others tell it ------------------------------------------------------------------------------------------

    def observe(self, info: StreamInfo) -> None:
        """Take notice of the stream's state: somebody may have asked for the end, or for a pause."""
        if info.state.terminal:
            return
        if info.cancel_requested_ms is not None:
            self._interrupt(_End(StreamState.CANCELLED, {"by": info.cancel_requested_by or ""}))
        elif info.state is StreamState.PAUSED:
            self._running.clear()
        elif not self._running.is_set():
            self._heard_at = asyncio.get_running_loop().time()
            self._running.set()
            self._renew_now.set()

    def stop(self, *, release: bool = False) -> None:
        """Stop the source because this process stops; a store that stays away is not waited for longer than a drain.

        With `release` the stream does not end: its lease is given back, so that another worker goes on with it.
        """
        self._give_up_at = asyncio.get_running_loop().time() + self._limits.drain_seconds_max
        self._interrupt(_End(StreamState.INTERRUPTED, {"cause": "server_stopped"}, release=release))

    def limit(self, idle_seconds: float | None, total_seconds: float | None) -> None:
        """From now on it may be silent for `idle_seconds` and last for `total_seconds`; a pause is no silence."""
        now = asyncio.get_running_loop().time()
        self._heard_at = now
        self._idle_seconds, self._total_seconds = idle_seconds, total_seconds
        self._ends_at = None if total_seconds is None else now + total_seconds
        self._timed.set()

    @property
    def ending(self) -> StreamState | None:
        """The state in which it is made to end, for good; None while it runs, and where another worker goes on with it."""
        end = self._interruption
        return None if end is None or end.release else end.state

    def lost(self) -> None:
        """The stream is not ours any more: stop the source."""
        self._interrupt(_End(StreamState.INTERRUPTED, {"cause": "stream_lost"}))

    def _interrupt(self, end: _End) -> None:
        """End as `end` says: the source is cancelled, and has `run_grace_seconds` for its last words."""
        if self._interruption is not None:
            return
        self._interruption = end
        self.on_interrupt()
        self._running.set()
        asyncio.get_running_loop().call_later(self._limits.run_grace_seconds, self._abandon, end)
        if self._consumer is not None:
            self._consumer.cancel()

    def _abandon(self, end: _End) -> None:
        if not self._end.done():
            logger.error("run %s does not stop: its stream is ended without it", self.stream.name)
            self._end.set_result(end)

    # --- Outlet -------------------------------------------------------------------------------------------------------

    async def put(self, message: NewMessage) -> None:
        """Add a message, however many come; waits while the buffer is full."""
        size = len(encode_message(message, time_ms=TIME_MS, producer=self._producer, limits=self._limits))
        self._heard_at = asyncio.get_running_loop().time()
        self._put += 1
        self.on_put(message)
        await self._buffer.put(message, size)

    def note_progress(self, body: Mapping[str, object]) -> None:
        """Keep the newest progress, to be stored soon; never waits. Raises `TypeError` for what is no JSON value."""
        self._heard_at = asyncio.get_running_loop().time()
        self._progress = msgspec.Raw(msgspec.json.encode(body))
        self._progress_news.set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Begin `work` as a task that is cancelled when the run ends, and ends it as failed with what it raises."""
        assert self._tasks is not None, "a run spawns while it executes"
        task = self._tasks.create_task(self._beside(work))
        self._helpers = [helper for helper in self._helpers if not helper.done()]
        self._helpers.append(task)
        return task

    async def _beside(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except PASSING:
            raise
        except BaseException as error:  # as in `_consume`
            if self._interruption is None:
                logger.warning("run %s failed beside its source", self.stream.name, exc_info=True)
            self._interrupt(_End(StreamState.FAILED, why(error)))

    async def durable(self) -> None:
        """Wait until everything put so far is durable."""
        target = self._put
        while self._stored < target and not self._buffer.finished:
            self._stored_more.clear()
            await self._stored_more.wait()

    async def execute(self, source: AsyncIterator[Item]) -> None:
        """Run to the end. Raises nothing for what the source does, or for a stream that others ended or deleted."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                self._helpers = [
                    tasks.create_task(work) for work in (self._renew(), self._tell_progress(), self._watch())
                ]
                appender = tasks.create_task(self._append_all())
                self._helpers.append(tasks.create_task(self._consume(source)))
                end = await self._end
                await self._flush_progress()
                self._buffer.finish()
                await appender
                await self._finish(end)
                for helper in self._helpers:
                    helper.cancel()
        except* (EndedError, FencedError, NotFoundError) as lost:
            logger.warning("run %s lost its stream: %s", self.stream.name, lost.exceptions[0])
        except* DrainingError:
            logger.warning("run %s could not be ended before the log stopped", self.stream.name)

    async def _finish(self, end: _End) -> None:
        if end.release:
            await self._states.lease(self.stream, self._producer, self.plan.epoch, 0)
            return
        last = [end.message] if self.plan.told and end.tells else []
        await self._append(last, Close(end.state, _reason(end.reason, self._limits)))
        if self.stream.run is not None:
            self._streams.log.metrics.run_ends.labels(self.stream.kind, end.state.value).inc()

    # --- the source ---------------------------------------------------------------------------------------------------

    async def _consume(self, source: AsyncIterator[Item]) -> None:
        self._consumer = task = asyncio.current_task()
        end = _End(StreamState.COMPLETED)
        try:
            if self._interruption is None:
                await self._take_all(source)
        except asyncio.CancelledError:
            if self._interruption is None and task is not None and task.cancelling():
                raise  # the stream is lost, and this run with it
            end = _End(StreamState.FAILED, {"error": "CancelledError"})
        except RunEnded as ended:
            end = self._tellable(_End(ended.state, ended.reason, ended.body))
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except (
            BaseException
        ) as error:  # whatever the application's code raises is how its stream ends, `SystemExit` too
            if self._interruption is None:
                logger.warning("run %s failed", self.stream.name, exc_info=True)
            end = _End(StreamState.FAILED, why(error))
        finally:
            await leave(source, self._limits.run_grace_seconds)
        if not self._end.done():
            self._end.set_result(self._interruption or end)

    def _tellable(self, end: _End) -> _End:
        """`end`, or the failure that it is when its last message cannot be stored."""
        try:
            encode_message(end.message, time_ms=TIME_MS, producer=self._producer, limits=self._limits)
        except (TypeError, ValueError, UnbrokenError) as error:
            logger.warning("run %s ends with what cannot be stored", self.stream.name, exc_info=True)
            return _End(StreamState.FAILED, why(error))
        return end

    async def _take_all(self, source: AsyncIterator[Item]) -> None:
        async for item in source:
            for message in as_messages(item, self._limits):
                if self.skip and message.kind not in CONTROL_KINDS:
                    self.skip -= 1
                    continue
                await self.put(message)
            await self._running.wait()
            if self._buffer.finished:
                return

    # --- progress and time --------------------------------------------------------------------------------------------

    async def _tell_progress(self) -> None:
        """Store the newest progress, at most every `run_progress_seconds`."""
        while True:
            await self._progress_news.wait()
            await self._flush_progress()
            await asyncio.sleep(self._limits.run_progress_seconds)

    async def _flush_progress(self) -> None:
        body, self._progress = self._progress, None
        self._progress_news.clear()
        if body is not None:
            await self.put(NewMessage(kind="progress", json=body))

    async def _watch(self) -> None:
        """Time the run out when it is silent or lasts for too long."""
        loop = asyncio.get_running_loop()
        await self._timed.wait()
        while True:
            now = loop.time()
            if self.excused or not self._running.is_set():
                self._heard_at = now
            if self._ends_at is not None and self._ends_at <= now:
                return self._interrupt(_End(StreamState.TIMED_OUT, {"limit": "total", "seconds": self._total_seconds}))
            if self._idle_seconds is not None and self._heard_at + self._idle_seconds <= now:
                return self._interrupt(_End(StreamState.TIMED_OUT, {"limit": "idle", "seconds": self._idle_seconds}))
            until = [WATCH_SECONDS_MAX]
            until += [] if self._ends_at is None else [self._ends_at - now]
            until += [] if self._idle_seconds is None else [self._heard_at + self._idle_seconds - now]
            await asyncio.sleep(min(until))

    # --- the log ------------------------------------------------------------------------------------------------------

    async def _append_all(self) -> None:
        """Append what waits, one batch at a time, until the source has ended."""
        limits = self._limits
        while batch := await self._buffer.take(
            messages_max=limits.append_messages_max, bytes_max=limits.run_append_bytes_max
        ):
            await self._append(batch, None)

    async def _append(self, batch: list[NewMessage], close: Close | None) -> None:
        """Append once, patiently."""
        if not batch and close is None:
            return
        options = AppendOptions(producer=Producer(self._producer, self.plan.epoch, self._seq), close=close)
        await self.patiently(lambda: self._streams.append_durably(self.stream, batch, options))
        self._seq += 1
        self._stored += len(batch)
        self._stored_more.set()

    async def patiently(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do `work`, however often it takes: a store that is away slows the run down, and loses nothing."""
        while True:
            try:
                return await work()
            except (StoreError, OverloadedError) as error:
                if not error.retryable:
                    raise
                logger.warning("run %s waits for the store: %s", self.stream.name, error.code)
                await self._pause()

    async def _pause(self) -> None:
        if self._give_up_at is not None and asyncio.get_running_loop().time() > self._give_up_at:
            raise DrainingError
        await asyncio.sleep(RETRY_SECONDS)

    async def _renew(self) -> None:
        """Keep the lease until the stream has ended; one that is paused has none, and is asked again later."""
        pause = self._limits.lease_seconds / 3
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._renew_now.wait()
            self._renew_now.clear()
            pause = self._limits.lease_seconds / 3
            try:
                await self._states.lease(self.stream, self._producer, self.plan.epoch, None)
            except (StoreError, OverloadedError) as error:
                logger.warning("run %s cannot renew its lease: %s", self.stream.name, error.code)
                pause = min(pause, RETRY_SECONDS)
            except TransitionError:
                logger.info("run %s: its stream is paused and has no lease", self.stream.name)
            except EndedError:
                if not self._end.done():
                    raise
                return


def _nothing(*_: object) -> None:
    """Nobody wants to be told."""


async def leave(source: AsyncIterator[Item], seconds: float) -> None:
    """Close `source`, if it can be closed, within `seconds`; what goes wrong is logged."""
    try:
        close = getattr(source, "aclose", None)
        if close is None:
            return
        async with asyncio.timeout(seconds):
            await close()
    except PASSING:
        raise
    except BaseException:  # the source belongs to the application, and its run is over
        logger.warning("a source did not close", exc_info=True)


@dataclass(frozen=True, slots=True)
class _End:
    """How a run ends. `body` is its last message where that says more than the reason."""

    state: StreamState
    reason: Mapping[str, object] = field(default_factory=dict)
    body: Mapping[str, object] | None = None
    release: bool = False

    @property
    def tells(self) -> bool:
        """Whether there is a last message: an ordinary end without a result has none."""
        return self.state is not StreamState.COMPLETED or self.body is not None

    @property
    def message(self) -> NewMessage:
        kind = "result" if self.state is StreamState.COMPLETED else self.state.value
        body = self.reason if self.body is None else self.body
        return NewMessage(kind=kind, json=msgspec.Raw(msgspec.json.encode(body)))


def why(error: BaseException) -> dict[str, object]:
    """What viewers are told of a failure: its kind. What it says may be a secret, and is in the log only."""
    facts: dict[str, object] = {"error": type(error).__name__[:100]}
    if isinstance(error, UnbrokenError):
        facts["code"] = error.code
    return facts


def _reason(facts: Mapping[str, object], limits: Limits) -> str:
    encoded = msgspec.json.encode(facts)
    return encoded.decode() if len(encoded) <= limits.reason_bytes_max else "{}"
