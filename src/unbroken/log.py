"""The one append path: gathers what waits, makes it durable in group commits, acknowledges, tells what was committed.

`Streams` and `StreamStateManager` submit operations; the hub listens. The log never knows who watches, and never
acknowledges or announces anything that the store has not made durable.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from unbroken.errors import (
    CorruptError,
    DrainingError,
    OverloadedError,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
    UnbrokenError,
    UnknownOutcomeError,
)
from unbroken.limits import Limits
from unbroken.messages import START, Epoch, Seq, StreamId, StreamInfo
from unbroken.observe.metrics import Metrics
from unbroken.store.base import (
    Append,
    Appended,
    Created,
    CreateStream,
    DeleteStream,
    Done,
    Rejected,
    SetState,
    StreamingMessageRepository,
    WriteOp,
    WriteResult,
    grows,
)

__all__ = ["Change", "Decided", "Log", "settle", "weight"]

logger = logging.getLogger(__name__)
T = TypeVar("T")

Decided = Callable[[WriteResult | UnbrokenError], None]
"""Told once what became of an operation: its result, or why its commit failed.

Called within the commit's step of the event loop: it must be quick and must not raise."""
_Queued = tuple[WriteOp, int, Decided]
OP_BYTES: Final = 256
"""What an operation is taken to cost in memory besides its messages."""


@dataclass(slots=True)
class Change:
    """What one commit did to one stream: messages `first` to `last` (none when `messages` is empty), and whether more than
    its head changed. `info` is the stream after the commit where the store gave it. With `by_name` it may have been done to
    another stream of the same name.
    """

    stream: StreamId
    epoch: Epoch
    first: Seq
    last: Seq
    messages: list[bytes]
    hash: bytes
    state_changed: bool = False
    info: StreamInfo | None = None
    by_name: bool = False


def weight(op: WriteOp) -> int:
    """The bytes that `op` counts for against the log's bound."""
    if isinstance(op, Append):
        return OP_BYTES + sum(map(len, op.messages))
    if isinstance(op, CreateStream):
        return OP_BYTES + len(op.metadata) + sum(map(len, op.messages))
    return OP_BYTES


class _HungError(Exception):
    """The store was given up."""


class Log:
    """Group commit in front of a store, with bounded waiting.

    Operations take effect in the order of submission. `run` must be running for anything to happen; it is the only task
    that writes. Everything here belongs to one event loop.
    """

    def __init__(self, store: StreamingMessageRepository, *, limits: Limits, metrics: Metrics) -> None:
        self._store = store
        self._limits = limits
        self.metrics = metrics
        metrics.pending_bytes.set_function(lambda: self._pending_bytes)
        self._queue: deque[_Queued] = deque()
        self._pending_bytes = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._work = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._draining = False
        self._hasty = False
        self._suspected = False
        self._ends: float | None = None
        self._life: asyncio.Timeout | None = None
        self.abandoned = False
        """Whether the store was given up because it did not answer."""
        self._degraded: StoreError | None = None
        self._late: StoreError | None = None
        self._listeners: list[Callable[[Sequence[Change]], None]] = []
        self._health_listeners: list[Callable[[StoreError | None], None]] = []

    @property
    def degraded(self) -> StoreError | None:
        """Why nothing can be written, or None when it can, as far as was tried."""
        return self._degraded

    @property
    def pending_bytes(self) -> int:
        """Bytes submitted and not yet durable."""
        return self._pending_bytes

    def on_commit(self, listener: Callable[[Sequence[Change]], None]) -> None:
        """Call `listener` after each commit with what it changed, in order, before the producers are acknowledged."""
        self._listeners.append(listener)

    def on_health(self, listener: Callable[[StoreError | None], None]) -> None:
        """Call `listener` with the error when commits begin to fail, and with None when they work again."""
        self._health_listeners.append(listener)

    def submit(self, op: WriteOp) -> asyncio.Future[WriteResult]:
        """Queue `op` for the next commit and return at once.

        The future gets the result when it is durable, or the `StoreError` of the commit. Cancelling the future does not
        take the operation back. Raises `OverloadedError` when `pending_bytes_max` is reached, `StoreUnavailableError` while
        the store has not answered for `store_seconds_max`, and `DrainingError` after `drain`.
        """
        if self._loop is None:
            self._loop = asyncio.get_running_loop()  # asking each time costs a system call
        future: asyncio.Future[WriteResult] = self._loop.create_future()
        self.submit_to(partial(settle, future), op)
        return future

    def submit_to(self, decided: Decided, op: WriteOp) -> None:
        """As `submit`, with a function in place of a future: for producers that append thousands of times a second."""
        self.check_room()
        size = weight(op)
        self._queue.append((op, size, decided))
        self._pending_bytes += size
        if self._pending_bytes >= self._limits.pending_bytes_max:
            self._room.clear()
        self._idle.clear()
        self._work.set()

    def check_room(self) -> None:
        """Raise what `submit` would raise now."""
        if self._draining:
            raise DrainingError
        if self._late is not None:
            raise StoreUnavailableError(self._late.message)  # each time a new one: a traceback grows with each raise
        if self._pending_bytes >= self._limits.pending_bytes_max:
            raise OverloadedError(
                "too many bytes wait to become durable", limit="pending_bytes_max", retry_after_seconds=1
            )

    async def room(self) -> None:
        """Wait until `submit` has room; `OverloadedError` after `append_wait_seconds_max`."""
        if self._room.is_set():
            return
        try:
            async with asyncio.timeout(self._limits.append_wait_seconds_max):
                while not self._room.is_set():  # others who waited may have filled it again
                    await self._room.wait()
        except TimeoutError:
            raise OverloadedError("the store does not keep up", retry_after_seconds=1) from None

    async def write(self, op: WriteOp) -> WriteResult:
        """Submit `op`, waiting for room, and give its result; a `Rejected` is raised as its error."""
        await self.room()
        result = await self.submit(op)
        if isinstance(result, Rejected):
            raise result.error
        return result

    async def write_all(self, ops: Sequence[WriteOp]) -> list[WriteResult]:
        """Submit all `ops` for one commit and give their results, rejections among them."""
        await self.room()
        return await asyncio.gather(*[self.submit(op) for op in ops])

    def hasten(self) -> None:
        """A stop has begun: from now on the store has `drain_seconds_max` for each commit, and is given up beyond it.

        Giving up decides everything: what the store was asked for with `UnknownOutcomeError`, all else with `DrainingError`.
        """
        if not self._hasty:
            self._hasty = True
            self._bound()

    async def drain(self) -> None:
        """Refuse new operations and wait until everything submitted is decided.

        After `drain_seconds_max` what is still undecided is given up, as `hasten` says.
        """
        self._draining = True
        if self._ends is None:
            self._ends = asyncio.get_running_loop().time() + self._limits.drain_seconds_max
            self._bound()
        await self._idle.wait()

    async def run(self) -> None:
        """Commit what is submitted, for ever. On cancellation everything is given up, as `hasten` says."""
        try:
            while True:
                if self._suspected and self._degraded is None:
                    await self._look()
                elif self._queue:
                    await self._commit(self._take())
                else:
                    await self._rest()
        finally:
            self._give_up([])

    async def _rest(self) -> None:
        """Wait for work; while degraded only for a moment, and then look whether the store works again."""
        self._idle.set()
        self._work.clear()
        try:
            async with asyncio.timeout(None if self._degraded is None else self._limits.probe_seconds):
                await self._work.wait()
        except TimeoutError:
            await self._look()

    def look(self) -> None:
        """Somebody has reason to think that the store does not work: find out soon, also when nobody writes."""
        self._suspected = True
        self._work.set()

    async def _look(self) -> None:
        """Whether the store works is what a small write of its own says."""
        self._suspected = False
        try:
            await self._asked(self._store.probe(), [])
        except StoreError as error:
            self._set_health(error)
        except _HungError:
            self._give_up([])
        else:
            self._set_health(None)

    def _take(self) -> list[_Queued]:
        """The next commit's operations: everything that waits, within the commit's bounds."""
        queue, limits = self._queue, self._limits
        if len(queue) <= limits.commit_messages_max and self._pending_bytes <= limits.commit_bytes_max:
            taken = list(queue)
            queue.clear()
            return taken
        taken = []
        room = limits.commit_bytes_max
        while queue and len(taken) < limits.commit_messages_max and (room > 0 or not taken):
            entry = queue.popleft()
            room -= entry[1]
            taken.append(entry)
        return taken

    async def _commit(self, taken: list[_Queued]) -> None:
        with self.metrics.commit_seconds.time():
            try:
                await self._carry_out(taken)
            finally:
                self._release(taken)

    async def _carry_out(self, taken: list[_Queued]) -> None:
        """Commit `taken` together, or in parts where only some of it cannot be: what needs room, what is damaged."""
        ops = [op for op, _, _ in taken]
        try:
            results = await self._asked(self._store.write(ops), taken)
        except StoreError as error:
            refused, *parts = _apart(taken, error)
            if refused:
                self._failed(refused, error)
            await self._carry_out_each(parts)
            return
        except _HungError:
            self._give_up(taken)
            return
        except BaseException:
            self._give_up(taken)
            raise
        changes = changes_of(ops, results)
        self.metrics.committed(changes)
        self._count_ends(ops, results)
        if self._degraded is not None and (not isinstance(self._degraded, StoreFullError) or any(map(grows, ops))):
            self._set_health(None)
        self._announce(changes)
        for (_, _, decided), result in zip(taken, results, strict=True):
            decided(result)

    def _count_ends(self, ops: Sequence[WriteOp], results: Sequence[WriteResult]) -> None:
        """Count the runs that somebody else than their executor has ended: whoever cancelled them, or the reaper."""
        for op, result in zip(ops, results, strict=True):
            info = result.stream if isinstance(result, Done) else None
            if isinstance(op, SetState) and op.state.terminal and info is not None and info.run is not None:
                self.metrics.run_ends.labels(info.kind, info.state.value).inc()

    async def _carry_out_each(self, parts: list[list[_Queued]]) -> None:
        while parts:
            try:
                await self._carry_out(parts.pop(0))
            except BaseException:
                for part in parts:
                    self._give_up(part)
                raise

    async def _asked(self, work: Coroutine[object, object, T], taken: list[_Queued]) -> T:
        """What the store gives to `taken`; `_HungError` when it was to hurry and did not.

        When it takes longer than `store_seconds_max`, everybody who waits is told, and its answer is waited for all the same.
        """
        late = asyncio.get_running_loop().call_later(self._limits.store_seconds_max, self._is_late, taken)
        life = self._life = asyncio.timeout(None)
        try:
            async with life:
                if self._hasty or self._draining:
                    self._bound()
                return await work
        except TimeoutError:
            if life.expired():
                self.abandoned = True
                raise _HungError from None
            raise
        finally:
            late.cancel()
            self._late = None
            self._life = None

    def _is_late(self, taken: list[_Queued]) -> None:
        """The store hangs: tell those of `taken` that nobody knows, and all others that nothing was written."""
        seconds = self._limits.store_seconds_max
        self._late = StoreUnavailableError(f"the store has not answered for {seconds:g} s; nothing was written")
        waiting = list(self._queue)
        self._queue.clear()
        logger.error("the store has not answered for %g s: %d operations undecided", seconds, len(taken))
        self.metrics.refused(self._late)
        self._set_health(self._late)
        self._release(waiting)
        undecided = [decided for _, _, decided in taken]
        taken[:] = [(op, size, _nobody) for op, size, _ in taken]
        for decided in undecided:
            decided(UnknownOutcomeError(f"the store has not answered for {seconds:g} s"))
        for _, _, decided in waiting:
            decided(self._late)

    def _bound(self) -> None:
        """Bound what the store is asked for now, if it is."""
        life = self._life
        if life is not None and not life.expired():
            ends = asyncio.get_running_loop().time() + self._limits.drain_seconds_max
            bounds = (life.when(), self._ends, ends)
            life.reschedule(min(bound for bound in bounds if bound is not None))

    def _give_up(self, taken: list[_Queued]) -> None:
        """Nobody will commit anything any more: decide `taken`, which the store may have, and what waits."""
        self._draining = True
        waiting = list(self._queue)
        self._queue.clear()
        if taken or waiting:
            logger.error(
                "stopping with %d operations undecided and %d not begun%s",
                len(taken),
                len(waiting),
                ": the store did not answer" if self.abandoned else "",
            )
        self._release(waiting)
        for _, _, decided in taken:
            decided(UnknownOutcomeError("the server stopped before the store had answered"))
        for _, _, decided in waiting:
            decided(DrainingError())
        self._idle.set()

    def _release(self, taken: list[_Queued]) -> None:
        self._pending_bytes -= sum(size for _, size, _ in taken)
        if self._pending_bytes < self._limits.pending_bytes_max:
            self._room.set()

    def _failed(self, taken: list[_Queued], error: StoreError) -> None:
        self.metrics.refused(error)
        if isinstance(error, CorruptError):
            self.look()  # one stream's damage is that stream's alone; but is it?
        else:
            self._set_health(error)
        if isinstance(error, UnknownOutcomeError):
            changes: dict[StreamId, Change] = {}
            for op, _, _ in taken:
                _unsure(changes, stream := getattr(op, "stream", None))
                if isinstance(op, Append) and op.name_of is not None and stream is not None:
                    changes[stream].by_name = True
            self._announce(list(changes.values()))
        for _, _, decided in taken:
            decided(error)

    def _announce(self, changes: list[Change]) -> None:
        for listener in self._listeners:
            listener(changes)

    def _set_health(self, error: StoreError | None) -> None:
        changed = (self._degraded is None) != (error is None)
        self._degraded = error
        if changed:
            for listener in self._health_listeners:
                listener(error)


def _apart(taken: list[_Queued], error: StoreError) -> list[list[_Queued]]:
    """What of a commit that failed is refused, and then the parts that are to be tried again by themselves."""
    if isinstance(error, StoreFullError):
        growing = [entry for entry in taken if grows(entry[0])]
        if 0 < len(growing) < len(taken):
            return [growing, [entry for entry in taken if not grows(entry[0])]]
    if isinstance(error, CorruptError) and len(taken) > 1:
        middle = len(taken) // 2
        return [[], taken[:middle], taken[middle:]]
    return [taken]


def _nobody(_outcome: WriteResult | UnbrokenError) -> None:
    """Whoever waited has been told already."""


def settle(future: asyncio.Future[WriteResult], outcome: WriteResult | UnbrokenError) -> None:
    """Hand an outcome to whoever waits, if anybody still does."""
    if future.done():
        return
    if isinstance(outcome, UnbrokenError):
        future.set_exception(outcome)
        future.exception()  # a producer that has gone must not turn this into a warning
    else:
        future.set_result(outcome)


def changes_of(ops: Sequence[WriteOp], results: Sequence[WriteResult]) -> list[Change]:
    """What a commit changed, one entry per stream, in the order of first touch."""
    changes: dict[StreamId, Change] = {}
    for op, result in zip(ops, results, strict=True):
        if isinstance(op, Append):
            if isinstance(result, Appended) and not result.duplicate:
                _merge_append(changes, op, result)
            elif isinstance(result, Appended):
                _unsure(changes, _place(op, result)[0])  # the first time may have been a commit that nobody was told of
        elif isinstance(op, DeleteStream):
            if isinstance(result, Done):
                changes[op.stream] = Change(op.stream, op.epoch, START, START, [], b"", state_changed=True)
        elif isinstance(result, (Done, Created)) and result.stream is not None:
            info = result.stream
            change = changes.get(info.id)
            if change is None:
                change = Change(info.id, info.epoch, Seq(info.head + 1), info.head, [], info.hash)
                changes[info.id] = change
            change.state_changed = True
            change.info = info
    return list(changes.values())


def _place(op: Append, result: Appended) -> tuple[StreamId, Epoch]:
    """The stream that took the append."""
    return (op.stream, op.epoch) if result.moved_to is None else result.moved_to


def _unsure(changes: dict[StreamId, Change], stream: StreamId | None) -> None:
    """The stream may have changed: whoever watches it had better look."""
    if stream is not None and stream not in changes:
        changes[stream] = Change(stream, Epoch(0), START, START, [], b"", state_changed=True)


def _merge_append(changes: dict[StreamId, Change], op: Append, result: Appended) -> None:
    stream, epoch = _place(op, result)
    change = changes.get(stream)
    if change is None:
        change = Change(stream, epoch, result.first, result.last, list(op.messages), result.hash)
        changes[stream] = change
    elif op.messages:
        if not change.messages:
            change.first = result.first
        change.messages += op.messages
        change.last = result.last
        change.hash = result.hash
    if op.close is not None:
        change.state_changed = True
        change.info = None
