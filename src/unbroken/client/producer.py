"""`Producer`: a pipelined, exactly-once writer of one stream, with its lease.

`Client.producer` makes it and runs its two tasks. It never has more than its bound waiting, and never reorders.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from unbroken.client.budget import Budget
from unbroken.client.link import Link, Outcome
from unbroken.client.values import Appended, Json, Payload, append_bytes_max, as_messages, encoded_bytes, raw_json
from unbroken.errors import DrainingError, EndedError, FencedError, TooLargeError, TransitionError, UnbrokenError
from unbroken.limits import Limits
from unbroken.messages import NewMessage
from unbroken.protocol import client_outputs as out
from unbroken.protocol.client_outputs import Output
from unbroken.protocol.client_requests import RENEWALS
from unbroken.protocol.frames import AppendFrame, CloseSpec, LeaseFrame, ProducerSpec, StreamView

__all__ = ["Producer"]


@dataclass(slots=True, eq=False)
class _Item:
    """Messages that one call handed over; they stay in one append."""

    messages: list[NewMessage]
    size: int
    acknowledged: asyncio.Future[Appended] | None


class Producer:
    """Appends to one stream as `id`, in the order of the calls, each message once, over any number of connections.

    `send` returns when the message is queued, `append` when it is durable, `flush` when everything before it is. What
    waits is batched into appends, several of which are on the way at a time; when `limits.client_pending_messages_max`
    messages or `limits.client_pending_bytes_max` bytes are unacknowledged, `send` and `append` wait. The first append
    that is refused for good ends the producer: that error is raised by every call that waits and every later one.

    As a context manager it takes the lease, renews it in the background (so that a dead producer is found; a lost
    connection is tried again in time for that), and at the end flushes and gives it back; when the body raised, the
    stream is closed as `failed`, and when it ended after a request to stop, as `cancelled`. Cancelling the body leaves
    the stream as it is: its lease runs out.
    """

    def __init__(
        self, link: Link, stream: str, producer: ProducerSpec, *, lease_seconds: float | None, limits: Limits
    ) -> None:
        self.stream = stream
        self.id = producer.id
        self.epoch = producer.epoch
        self.cancel_requested = asyncio.Event()
        """Set when somebody asked this stream's producer to stop; end the work and close."""
        self.closed = False
        self.error: UnbrokenError | None = None
        self._link = link
        self._lease_seconds = lease_seconds
        self._limits = limits
        self._seq = producer.seq
        self._queue: deque[_Item] = deque()
        self._budget = Budget(limits.client_pending_messages_max, limits.client_pending_bytes_max)
        self._in_flight = 0
        self._ready = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._failed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def send(self, payload: Payload | Iterable[Payload], *, kind: str = "message") -> None:
        """Queue messages of one append; returns before they are durable. Waits while too much is unacknowledged."""
        await self._enqueue(payload, kind, acknowledged=None)

    async def append(self, payload: Payload | Iterable[Payload], *, kind: str = "message") -> Appended:
        """Queue messages of one append and wait until they are durable.

        Cancelling only waits no longer: the messages stay queued.
        """
        acknowledged: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()
        await self._enqueue(payload, kind, acknowledged=acknowledged)
        return await acknowledged

    async def flush(self) -> None:
        """Wait until everything queued so far is durable; raises what ended the producer."""
        await self._idle.wait()
        self._raise_if_over()

    async def close(self, state: str = "completed", reason: Mapping[str, Json] | None = None) -> Appended:
        """Flush, then end the stream in a terminal state; no message follows."""
        await self.flush()
        close = CloseSpec(state=state, reason=raw_json(reason))
        frame = AppendFrame(id=0, stream=self.stream, producer=self._number(), close=close)
        outcome = await self._link.request(frame)
        assert isinstance(outcome, Appended)
        self.closed = True
        return outcome

    async def __aenter__(self) -> Self:
        if self._lease_seconds is not None:
            try:
                await self._lease(self._lease_seconds)
            except BaseException:
                await self.stop()
                raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._leave(error)
        finally:
            await self.stop()

    async def _leave(self, error: BaseException | None) -> None:
        """What becomes of a stream that the body did not close."""
        if self.closed or self.error is not None or (error is not None and not isinstance(error, Exception)):
            return
        if error is not None:
            await self._close_quietly({"error": type(error).__name__})
        elif self.cancel_requested.is_set():
            await self.close("cancelled")
        else:
            await self.flush()
            if self._lease_seconds is not None:
                await self._lease(0)

    async def _close_quietly(self, reason: Mapping[str, Json]) -> None:
        """Close as failed; the body's own error matters more than one of this."""
        try:
            await self.close("failed", reason)
        except UnbrokenError as error:
            self._fail(error)

    # --- run by the client -------------------------------------------------------------------------------------------

    def start(self, group: asyncio.TaskGroup) -> None:
        """Begin to send, to renew the lease and to listen for requests to stop."""
        self._tasks.append(group.create_task(self._pump()))
        if self._lease_seconds is not None:
            self._tasks.append(group.create_task(self._renew(self._lease_seconds)))
            self._link.hold(self.stream, self._lease_seconds)
        self._link.follow(self.stream, "now", self._on_output)

    async def stop(self) -> None:
        """End the tasks; what is still queued fails with `draining`."""
        if self._link.watched_by(self.stream, self._on_output):
            self._link.unfollow(self.stream)
        if self._lease_seconds is not None:
            self._link.let_go(self.stream)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._tasks.clear()
        self._fail(DrainingError("the producer was closed"))

    async def _pump(self) -> None:
        """Send what waits, as few appends as possible, not more on the way than the window."""
        while True:
            await self._ready.wait()
            self._ready.clear()
            while self._queue and self._in_flight < self._limits.client_window_appends_max and self.error is None:
                self._send_batch()

    async def _renew(self, seconds: float) -> None:
        """Renew `RENEWALS` times as often as needed; the server decides when a lease has run out."""
        while self.error is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds / RENEWALS):
                    await self._failed.wait()
            if self.error is None:
                await self._renew_once(seconds)

    async def _renew_once(self, seconds: float) -> None:
        try:
            await self._lease(seconds)
        except TransitionError:
            return  # the stream is paused and has no lease; once it is resumed, the next renewal takes it again
        except UnbrokenError as error:
            if not error.retryable:
                self._fail(error)

    async def _lease(self, seconds: float) -> None:
        producer = ProducerSpec(id=self.id, epoch=self.epoch)
        outcome = await self._link.request(LeaseFrame(id=0, stream=self.stream, producer=producer, seconds=seconds))
        assert isinstance(outcome, tuple)
        self._look_at(outcome[0])

    def _on_output(self, output: Output) -> None:
        match output:
            case out.SubscriptionStands(_, _, view) | out.StateChanged(view):
                self._look_at(view)
            case out.Ended(view) if not self.closed:
                self._look_at(view)
            case _:
                return  # its own messages come back here; what fails the subscription fails the lease or an append too

    def _look_at(self, view: StreamView) -> None:
        if view.cancel_requested:
            self.cancel_requested.set()

    # --- the queue ---------------------------------------------------------------------------------------------------

    async def _enqueue(
        self, payload: Payload | Iterable[Payload], kind: str, *, acknowledged: asyncio.Future[Appended] | None
    ) -> None:
        messages = as_messages(payload, self._limits, kind=kind)
        size = sum([encoded_bytes(message, self._limits) for message in messages])
        if size > append_bytes_max(self._limits):
            raise TooLargeError(f"the append has {size} bytes, the limit is lower", limit="append_bytes_max")
        self._raise_if_over()
        await self._budget.take(len(messages), size)
        if self.error is not None or self.closed:
            self._budget.give(len(messages), size)
            self._raise_if_over()
        self._queue.append(_Item(messages, size, acknowledged))
        self._idle.clear()
        self._ready.set()

    def _send_batch(self) -> None:
        hello = self._link.session.hello
        most = self._limits.append_messages_max
        most = most if hello is None else min(most, hello.append_messages_max)
        items = [self._queue.popleft()]
        count, size = len(items[0].messages), items[0].size
        while self._queue and count + len(self._queue[0].messages) <= most:
            if size + self._queue[0].size > append_bytes_max(self._limits):
                break
            item = self._queue.popleft()
            items.append(item)
            count, size = count + len(item.messages), size + item.size
        messages = [message for item in items for message in item.messages]
        frame = AppendFrame(id=0, stream=self.stream, messages=messages, producer=self._number())
        self._in_flight += 1
        _, future = self._link.begin(frame)
        future.add_done_callback(lambda done: self._answered(items, done))

    def _number(self) -> ProducerSpec:
        number = ProducerSpec(id=self.id, epoch=self.epoch, seq=self._seq)
        self._seq += 1
        return number

    def _answered(self, items: list[_Item], done: asyncio.Future[Outcome]) -> None:
        self._in_flight -= 1
        for item in items:
            self._budget.give(len(item.messages), item.size)
        error = None if done.cancelled() else done.exception()
        if done.cancelled() or error is not None:
            failure = error if isinstance(error, UnbrokenError) else DrainingError("the client was closed")
            self._settle(items, failure)
            self._fail(failure)
        else:
            self._acknowledge(items, done.result())
        if not self._queue and not self._in_flight:
            self._idle.set()
        self._ready.set()

    def _acknowledge(self, items: list[_Item], outcome: Outcome) -> None:
        assert isinstance(outcome, Appended)
        first = outcome.first
        for item in items:
            count = len(item.messages)
            last = first + count - 1 if outcome.first else 0
            if item.acknowledged is not None and not item.acknowledged.done():
                item.acknowledged.set_result(Appended(first, last, outcome.duplicate))
            first = last + 1 if outcome.first else 0

    def _fail(self, error: UnbrokenError) -> None:
        """The first failure counts: everything queued gets it."""
        if self.error is not None:
            return
        self.error = error
        self._failed.set()
        items = list(self._queue)
        self._queue.clear()
        self._settle(items, error)
        for item in items:
            self._budget.give(len(item.messages), item.size)
        if not self._in_flight:
            self._idle.set()

    @staticmethod
    def _settle(items: list[_Item], error: UnbrokenError) -> None:
        for item in items:
            if item.acknowledged is not None and not item.acknowledged.done():
                item.acknowledged.set_exception(error)

    def _raise_if_over(self) -> None:
        if self.closed:
            raise EndedError(f"{self.stream} was closed by this producer", stream=self.stream)
        if self.error is not None:
            raise self.error

    @property
    def fenced(self) -> bool:
        """Whether a newer incarnation of this producer has taken over."""
        return isinstance(self.error, FencedError)
