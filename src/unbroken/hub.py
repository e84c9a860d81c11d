"""Live fan-out: who watches which stream, and how they get what was committed.

The log tells the hub what it committed; the hub keeps a bounded ring per watched stream, encoded once for all viewers, and
hands batches to subscriptions. What a viewer missed comes from the ring or the store. Losing anything here costs time,
never messages: the store is the truth.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Protocol

from unbroken.errors import NotFoundError, StoreError, TrimmedError
from unbroken.limits import Limits
from unbroken.messages import Epoch, Seq, StreamId, StreamInfo, join_encoded
from unbroken.protocol.codec import messages_around, messages_prefix
from unbroken.store.base import AWAY, RESYNC, Batch, StreamingMessageRepository
from unbroken.store.batches import merged
from unbroken.store.erasing import check_erased

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from unbroken.log import Change
    from unbroken.observe.metrics import Metrics

__all__ = ["Delta", "Follower", "Hub", "LiveBatch", "LiveStream", "Sink", "Subscription", "facts", "news"]

logger = logging.getLogger(__name__)


class LiveBatch:
    """A committed batch on its way to viewers; what it looks like on a wire is worked out once and shared by all."""

    __slots__ = ("_frame", "body", "durable", "epoch", "first", "hash", "last", "piece", "prefix", "shared", "sse")

    def __init__(self, live: LiveStream, batch: Batch) -> None:
        self.first = batch.first
        self.last = batch.last
        self.body = batch.body
        self.hash = batch.hash
        self.epoch = live.epoch
        self.prefix = live.prefix
        self._frame: bytes | None = None
        self.shared: bytes | None = None
        """The frame with its WebSocket header, kept here by the connections that write to sockets themselves."""
        self.sse: bytes | None = None
        """The batch as SSE events, kept here by the SSE face."""
        self.piece: bytes | None = None
        """Those events as a piece of an HTTP body, kept here by the responses that write to sockets themselves."""
        self.durable: bytes | None = None
        """The batch as an SSE event of Durable Streams, kept here by that face."""

    @property
    def frame(self) -> bytes:
        """The `messages` frame of the native protocol, as JSON text."""
        if self._frame is None:
            self._frame = b"".join(self.pieces)
        return self._frame

    @property
    def pieces(self) -> tuple[bytes, bytes, bytes]:
        """What `frame` is made of: the body as it is stored, and what stands around it."""
        head, tail = messages_around(self.prefix, self.first, self.hash.hex())
        return head, self.body, tail

    def __len__(self) -> int:
        return self.last - self.first + 1


class Sink(Protocol):
    """Where a subscription's messages go: one viewer's connection. All calls come from the event loop and must not block."""

    def offer(self, subscription: Subscription, batch: LiveBatch) -> bool:
        """Take `batch` now, or say that there is no room: then the viewer is behind and pulls later."""
        ...

    def wake(self, subscription: Subscription) -> None:
        """There may be something to pull: messages behind the cursor, or another state."""
        ...


class Subscription:
    """One viewer's cursor on one stream. `cursor` is the seq of the last message handed over."""

    __slots__ = ("cursor", "live", "paused", "sink", "told")

    def __init__(self, live: LiveStream, cursor: Seq, sink: Sink) -> None:
        self.live = live
        self.cursor = cursor
        self.sink = sink
        self.paused = False
        self.told: tuple[object, ...] | None = None
        """The facts of the stream that the viewer was last told, so that it is told changes only."""

    @property
    def behind(self) -> bool:
        """Whether there are messages that were not handed over yet."""
        return self.cursor < self.live.head


class LiveStream:
    """A stream that somebody watches: its newest batches and its viewers."""

    __slots__ = ("epoch", "gone", "head", "id", "info", "name", "prefix", "ring", "ring_bytes", "version", "viewers")

    def __init__(self, info: StreamInfo) -> None:
        self.id: StreamId = info.id
        self.epoch: Epoch = info.epoch
        self.name = info.name
        self.prefix = messages_prefix(info.name, info.epoch)
        self.info = info
        self.version = 0
        """Counts what the log told of the stream, so that an answer of the store that is older is not believed."""
        self.head: Seq = info.head
        self.gone = False
        self.ring: deque[LiveBatch] = deque()
        self.ring_bytes = 0
        self.viewers: dict[Subscription, None] = {}
        """In the order in which they came, so that whoever came first is served first."""

    def after(self, cursor: Seq) -> list[LiveBatch] | None:
        """The batches behind `cursor` if the ring holds the next message, else None."""
        ring = self.ring
        if not ring or cursor + 1 < ring[0].first:
            return None
        found = list(takewhile(lambda batch: batch.last > cursor, reversed(ring)))  # mostly its end is wanted
        found.reverse()
        # a cursor inside a batch is served by the store, which can cut
        return found if found and found[0].first == cursor + 1 else None


class Delta:
    """What a follower gets in one step: batches in order, and the stream's state when it changed (terminal: the last)."""

    __slots__ = ("batches", "info")

    def __init__(self, batches: Sequence[LiveBatch], info: StreamInfo | None) -> None:
        self.batches = batches
        self.info = info

    def __bool__(self) -> bool:
        return bool(self.batches) or self.info is not None


class Hub:
    """All watched streams of one server. Belongs to one event loop; `run` must be running."""

    def __init__(self, store: StreamingMessageRepository, *, limits: Limits, metrics: Metrics) -> None:
        self._store = store
        self._limits = limits
        self._metrics = metrics
        metrics.lagging.set_function(lambda: self.lagging)
        self._live: dict[StreamId, LiveStream] = {}
        self._viewers = 0
        self._stale: set[StreamId] = set()
        self._refresh = asyncio.Event()
        self.on_away: Callable[[], None] = lambda: None
        """Called again and again while the store cannot be asked what others have written."""

    @property
    def streams(self) -> int:
        """How many streams are watched."""
        return len(self._live)

    @property
    def subscriptions(self) -> int:
        """How many subscriptions there are."""
        return self._viewers

    @property
    def share_bytes(self) -> int:
        """What one subscription may take at once to catch up: its part of what there is for all of them."""
        limits = self._limits
        return max(limits.catch_up_bytes_min, limits.catch_up_bytes_max // max(self._viewers, 1))

    @property
    def lagging(self) -> int:
        """How many subscriptions have not been handed everything yet."""
        return sum(viewer.behind for live in self._live.values() for viewer in live.viewers)

    async def subscribe(self, stream: StreamInfo, cursor: Seq, sink: Sink, *, paused: bool = False) -> Subscription:
        """Watch `stream` behind `cursor`.

        Messages committed from now on reach the ring before anything is read, so that catching up hands over to live
        without a hole. With `paused` nothing is offered and nobody woken until the caller says so: a connection answers
        first. Raises `NotFoundError` when the stream is gone.
        """
        live = self._live.get(stream.id)
        if live is None:
            live = self._live[stream.id] = LiveStream(stream)
        subscription = Subscription(live, cursor, sink)
        subscription.paused = paused
        live.viewers[subscription] = None
        self._viewers += 1
        self._metrics.live_streams.set(len(self._live))
        self._metrics.subscriptions.inc()
        version = live.version
        try:
            info = await self._store.get_by_id(stream.id)
        except BaseException:
            self.unsubscribe(subscription)
            raise
        if info is None or info.deleted or info.erased is not None:
            self.unsubscribe(subscription)
            check_erased(info or stream)
            raise NotFoundError(f"no stream {stream.name!r}", stream=stream.name)
        if live.version == version:
            self._observe(live, info)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Stop watching; idempotent."""
        live = subscription.live
        if subscription not in live.viewers:
            return
        del live.viewers[subscription]
        self._viewers -= 1
        self._metrics.subscriptions.dec()
        if not live.viewers and self._live.get(live.id) is live:
            del self._live[live.id]
            self._stale.discard(live.id)
            self._metrics.live_streams.set(len(self._live))

    async def pull(self, subscription: Subscription, *, bytes_max: int | None = None) -> Sequence[LiveBatch]:
        """The next batches behind the cursor, from the ring or the store; none when the viewer has everything.

        Moves the cursor. Bounded by `bytes_max` (default `read_bytes_max`) and `share_bytes`, but always at least one batch.
        Raises `TrimmedError` or `NotFoundError` when there can be no next message.
        """
        live = subscription.live
        if live.gone:
            raise NotFoundError(f"the stream {live.name!r} was deleted", stream=live.name)
        check_erased(live.info)
        if subscription.cursor >= live.head:
            return ()
        room = min(bytes_max or self._limits.read_bytes_max, self.share_bytes)
        found: Sequence[LiveBatch] | None = live.after(subscription.cursor)
        if found is None:
            found = await self._fetch(subscription, room)
        batches: list[LiveBatch] = []
        for batch in found:
            if batches and room < len(batch.body):
                break
            room -= len(batch.body)
            batches.append(batch)
        if batches:
            self._metrics.delivered_batches += len(batches)
            self._metrics.delivered_messages += batches[-1].last - subscription.cursor
            subscription.cursor = batches[-1].last
        return batches

    async def _fetch(self, subscription: Subscription, bytes_max: int) -> Sequence[LiveBatch]:
        live, after = subscription.live, subscription.cursor
        limits = self._limits
        version = live.version
        read = await self._store.read(live.id, after, messages_max=limits.read_messages_max, bytes_max=bytes_max)
        if live.version == version:
            self._observe(live, read.stream)
        else:
            self._advance(live, read.stream.head)
            self.hint(live.id)  # what was read of its state may be older than what the log told since
        check_erased(read.stream)
        if read.trimmed:
            raise TrimmedError(first=read.stream.first, stream=live.name)
        assert not read.batches or read.batches[0].first == after + 1, "a store skipped messages"
        self._metrics.store_batches.inc(len(read.batches))
        return [LiveBatch(live, batch) for batch in merged(read.batches, limits.read_bytes_max // 16)]

    async def follow(self, stream: StreamInfo, cursor: Seq) -> Follower:
        """A follower behind `cursor`, for a viewer that pulls at its own pace; close it when done."""
        follower = Follower(self)
        follower.subscription = await self.subscribe(stream, cursor, follower)
        return follower

    def committed(self, changes: Sequence[Change]) -> None:
        """The log has made `changes` durable."""
        for change in changes:
            if change.by_name:
                self.hint(None)
            live = self._live.get(change.stream)
            if live is None:
                continue
            if change.messages:
                self._push(live, Batch(change.first, change.last, join_encoded(change.messages), change.hash))
            if change.state_changed:
                live.version += 1
                if change.info is not None and not change.info.deleted:
                    self._observe(live, change.info)
                else:
                    self.hint(live.id)

    def hint(self, stream: StreamId | None) -> None:
        """`stream` (None: any) may have changed behind the log's back: look soon."""
        self._stale.update(self._live if stream is None else (stream,) if stream in self._live else ())
        if self._stale:
            self._refresh.set()

    async def run(self) -> None:
        """Look after streams that changed in other ways than through this server's log, for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._refresh_stale())
            tasks.create_task(self._listen(self._store.hints()))

    async def _listen(self, hints: AsyncIterator[object]) -> None:
        async for hint in hints:
            self.hint(None if hint in {RESYNC, AWAY} else StreamId(hint))  # type: ignore[arg-type]
            if hint is AWAY:
                self.on_away()

    async def _refresh_stale(self) -> None:
        while True:
            await self._refresh.wait()
            self._refresh.clear()
            stale = {stream: live.version for stream in self._stale if (live := self._live.get(stream)) is not None}
            self._stale.clear()
            try:
                found = await self._store.heads(list(stale))
            except StoreError as error:
                logger.warning("cannot refresh %d streams: %s %s", len(stale), error.code, error)
                self._stale.update(stale)
                await asyncio.sleep(self._limits.reap_interval_seconds)
                self._refresh.set()
                continue
            for stream, version in stale.items():
                live = self._live.get(stream)
                if live is not None and live.version == version:
                    self._refreshed(live, found.get(stream))
                elif live is not None:
                    self.hint(stream)

    def _refreshed(self, live: LiveStream, info: StreamInfo | None) -> None:
        if info is None or info.deleted:
            live.gone = True
            for viewer in list(live.viewers):
                viewer.sink.wake(viewer)
        else:
            self._observe(live, info)

    def _push(self, live: LiveStream, batch: Batch) -> None:
        """Put a committed batch into the ring and offer it to every viewer that waits for just this one."""
        ring, limits = live.ring, self._limits
        if batch.first <= live.head:
            return  # seen already, through the store
        if len(batch.body) > limits.ring_bytes_max:
            self._advance(live, batch.last)  # too large for one frame: the store cuts it
            for viewer in live.viewers:
                viewer.sink.wake(viewer)
            return
        if batch.first != live.head + 1 or (ring and ring[-1].last != live.head):
            ring.clear()
            live.ring_bytes = 0
        news = LiveBatch(live, batch)
        ring.append(news)
        live.head = batch.last
        live.ring_bytes += len(batch.body)
        while len(ring) > 1 and (live.ring_bytes > limits.ring_bytes_max or len(ring) > limits.ring_batches_max):
            live.ring_bytes -= len(ring.popleft().body)
        before = batch.first - 1
        last = batch.last
        taken = 0
        for viewer in live.viewers:
            if viewer.paused:
                continue
            if viewer.cursor == before and viewer.sink.offer(viewer, news):
                viewer.cursor = last
                taken += 1
            else:
                viewer.sink.wake(viewer)
        self._metrics.delivered_batches += taken
        self._metrics.delivered_messages += taken * len(news)

    @staticmethod
    def _advance(live: LiveStream, head: Seq) -> None:
        """The stream has grown to `head` by messages that are only in the store."""
        if head > live.head:
            live.head = head
            live.ring.clear()
            live.ring_bytes = 0

    def _observe(self, live: LiveStream, info: StreamInfo) -> None:
        """Take over what the store says of a stream, and wake who has something to be told."""
        if info.head < live.info.head or (live.info.state.terminal and not info.state.terminal):
            return  # older than what is known
        live.info = info
        self._advance(live, info.head)
        if info.erased is not None:
            live.ring.clear()
        for viewer in list(live.viewers):
            if viewer.behind or viewer.told != facts(info):
                viewer.sink.wake(viewer)


def facts(info: StreamInfo) -> tuple[object, ...]:
    """What a viewer is told when it changes (a renewed lease or a new head is no news)."""
    return (info.state, info.cancel_requested_ms, info.first, info.metadata, info.lease_producer, info.erased)


def news(subscription: Subscription) -> StreamInfo | None:
    """The stream's state if the viewer is to be told now: when it changed, and a terminal one after the last message."""
    info = subscription.live.info
    if subscription.told == facts(info):
        return None
    if info.state.terminal and subscription.cursor < info.head:
        return None
    subscription.told = facts(info)
    return info


class Follower:
    """A viewer that pulls: an SSE response, a long poll, an `async for` in the same process.

    One task at a time calls `next`. Use it as a context manager, or call `close`. With `push` set, a batch that comes while
    `next` waits is given to `push` at once instead, unless it says that it has no room: then `next` returns it.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._news = asyncio.Event()
        self._news.set()
        self._pushing: Callable[[LiveBatch], bool] | None = None
        """`push` while `next` waits: everything up to the cursor has been handed over."""
        self.push: Callable[[LiveBatch], bool] | None = None
        self.subscription: Subscription

    def offer(self, subscription: Subscription, batch: LiveBatch) -> bool:
        """Hand `batch` to `push` if it is wanted now."""
        push = self._pushing
        return push is not None and push(batch)

    def wake(self, subscription: Subscription) -> None:
        """Remember that there is something to pull."""
        self._news.set()

    @property
    def cursor(self) -> Seq:
        """The seq of the last message given."""
        return self.subscription.cursor

    @property
    def info(self) -> StreamInfo:
        """The stream as last known."""
        return self.subscription.live.info

    @property
    def ended(self) -> bool:
        """Whether the stream has ended and every message of it was given."""
        info = self.info
        return info.state.terminal and self.cursor >= info.head

    async def next(self, timeout_seconds: float | None = None) -> Delta:
        """The next batches and news of the stream; an empty one after `timeout_seconds` without any.

        Raises `TrimmedError` when the next message was trimmed and `NotFoundError` when the stream was deleted. Safe to
        cancel: nothing is lost, the cursor moves only with what is returned.
        """
        try:
            async with asyncio.timeout(timeout_seconds):
                return await self.wait()
        except TimeoutError:
            return Delta((), None)

    async def wait(self) -> Delta:
        """`next` without a bound in time, for callers that keep one themselves."""
        while True:
            self._news.clear()
            batches = await self._hub.pull(self.subscription)
            delta = Delta(batches, news(self.subscription))
            if delta:
                return delta
            self._pushing = self.push
            try:
                await self._news.wait()
            finally:
                self._pushing = None

    def close(self) -> None:
        """Stop following; idempotent."""
        self._hub.unsubscribe(self.subscription)

    def __enter__(self) -> Follower:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
