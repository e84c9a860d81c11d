"""Makes checkpoints of streams beside the log: when enough was appended, when enough time has passed, and at the end.

The engine runs it. It recomputes what it signs from what is stored, away from the event loop and behind the appends, and
signs nothing that does not follow from what it signed before.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import NamedTuple

from unbroken.checkpoints.book import Book
from unbroken.checkpoints.checkpoint import Checkpoint
from unbroken.checkpoints.merkle import MerkleRange
from unbroken.clock import Clock
from unbroken.errors import CorruptError, UnbrokenError
from unbroken.limits import Limits
from unbroken.log import Change, Log
from unbroken.messages import Seq, StreamId, StreamInfo
from unbroken.store.base import Batch, StreamingMessageRepository
from unbroken.store.recompute import Recomputing

__all__ = ["CheckpointKeeper"]

logger = logging.getLogger(__name__)


class _Waiting(NamedTuple):
    """What a stream has got since its latest checkpoint: how many messages, and since when (the loop's time)."""

    messages: int
    since: float
    now: bool


class CheckpointKeeper:
    """Keeps the checkpoints of a server's streams in `book`."""

    def __init__(
        self, store: StreamingMessageRepository, log: Log, book: Book, *, limits: Limits, clock: Clock
    ) -> None:
        self._store = store
        self._book = book
        self._limits = limits
        self._clock = clock
        self._waiting: dict[StreamId, _Waiting] = {}
        self._latest: dict[int, Checkpoint] = {}
        """Of each stream that has not ended, by its epoch."""
        self._ended: set[int] = set()
        self._refused: set[int] = set()
        self._opened = False
        self.ready = False
        """Whether everything that was stored when it began has its checkpoint."""
        log.on_commit(self._committed)

    def _committed(self, changes: Sequence[Change]) -> None:
        for change in changes:
            if change.messages or change.state_changed:
                ended = change.state_changed and (change.info is None or change.info.state.terminal)
                self._count(change.stream, len(change.messages), now=ended)

    def _count(self, stream: StreamId, messages: int, *, now: bool) -> None:
        known = self._waiting.get(stream)
        if known is None:
            self._waiting[stream] = _Waiting(messages, asyncio.get_running_loop().time(), now)
        else:
            self._waiting[stream] = _Waiting(known.messages + messages, known.since, known.now or now)

    async def run(self) -> None:
        """Make checkpoints for ever. A file that does not hold stops it, loudly, and nothing else."""
        if not await self._open():
            return
        caught_up = False
        while True:
            try:
                if not caught_up:
                    await self._catch_up()
                    caught_up = self.ready = True
                await self.step(everything=False)
            except UnbrokenError as error:
                logger.warning("cannot make checkpoints now: %s", error)
            await asyncio.sleep(self._limits.reap_interval_seconds)

    async def finish(self) -> None:
        """At a graceful stop: make those that are due to what was appended, of which there is none yet."""
        if self._opened:
            await self.step(everything=True)
            self._opened = False

    async def _open(self) -> bool:
        try:
            self._latest, self._ended = await asyncio.to_thread(self._book.open)
        except (UnbrokenError, OSError) as error:
            logger.warning("no checkpoints are made: %s", error)
            return False
        self._opened = True
        return True

    async def _catch_up(self) -> None:
        """Make the checkpoints that are missing since this server, or another, was stopped in the midst of its work."""
        after, most = StreamId(0), self._limits.page_items_max
        while streams := await self._store.all_streams(after, limit=most):
            after = streams[-1].id
            for stream in streams:
                self._count(stream.id, 0, now=True)
            await self.step(everything=False)

    async def step(self, *, everything: bool) -> None:
        """Make the checkpoints that are due, or one of every stream that has something new."""
        due = list(self._waiting) if everything else self._due()
        most = self._limits.page_items_max
        for start in range(0, len(due), most):
            part = due[start : start + most]
            waiting = {stream: self._waiting.pop(stream) for stream in part}
            try:
                found = await self._store.heads(part)
                for stream in part:
                    if stream in found:
                        await self._look_after(found[stream])
                    del waiting[stream]
            except (UnbrokenError, OSError) as error:
                logger.warning("cannot make checkpoints now: %s", error)
            for stream, rest in waiting.items():
                self._count(stream, rest.messages, now=rest.now)

    def _due(self) -> list[StreamId]:
        now, limits = asyncio.get_running_loop().time(), self._limits
        return [
            stream
            for stream, waiting in self._waiting.items()
            if waiting.now
            or waiting.messages >= limits.checkpoint_messages
            or now - waiting.since >= limits.checkpoint_seconds
        ]

    async def _look_after(self, stream: StreamInfo) -> None:
        """Make the stream's checkpoint, unless nothing is new, or what is stored does not follow from the latest one."""
        if stream.epoch in self._refused or stream.epoch in self._ended:
            return
        latest = self._latest.get(stream.epoch)
        ended = stream.state.value if stream.state.terminal else None
        if latest is not None and latest.seq == stream.head and ended is None:
            return
        if latest is None and stream.head == stream.fork_seq and ended is None:
            return
        try:
            tree, base, head = await self._follow(stream, latest)
        except CorruptError as error:
            self._refused.add(stream.epoch)
            logger.warning("no checkpoint is made of the stream %s any more: %s", stream.name, error)
            return
        serial, previous = self._book.place
        checkpoint = Checkpoint(
            log=self._book.log,
            epoch=stream.epoch,
            base=base,
            tree=tree,
            head=head,
            time_ms=self._clock.now_ms(),
            serial=serial,
            previous=previous,
            ended=ended,
        )
        await asyncio.to_thread(self._book.write, checkpoint)
        if ended is None:
            self._latest[stream.epoch] = checkpoint
        else:
            self._latest.pop(stream.epoch, None)
            self._ended.add(stream.epoch)

    async def _follow(self, stream: StreamInfo, latest: Checkpoint | None) -> tuple[MerkleRange, int, bytes]:
        """The tree up to the stream's head, what it begins behind, and the chain there; `CorruptError` where it cannot be."""
        if latest is not None and latest.seq > stream.head:
            raise CorruptError(
                f"it has {stream.head} messages, and had {latest.seq}", stream=stream.name, seq=stream.head + 1
            )
        if latest is None or latest.seq < stream.first - 1:  # what is gone already is in no tree
            base = stream.first - 1
            tree, check = MerkleRange(), Recomputing(stream, Seq(base), await self._store.hash_at(stream.id, Seq(base)))
        else:
            base, tree = latest.base, MerkleRange(latest.tree.size, latest.tree.encoded)
            check = Recomputing(stream, Seq(latest.seq), latest.head)
        limits = self._limits
        while check.seq < stream.head:
            count = min(limits.read_messages_max, stream.head - check.seq)
            read = await self._store.read(stream.id, check.seq, messages_max=count, bytes_max=limits.read_bytes_max)
            if not read.batches:
                raise UnbrokenError(f"the stream {stream.name} was trimmed meanwhile")
            await asyncio.to_thread(_advance, check, tree, read.batches)
        if check.head != stream.hash:
            raise CorruptError("its head is not what its messages lead to", stream=stream.name, seq=stream.head)
        return tree, base, check.head


def _advance(check: Recomputing, tree: MerkleRange, batches: Sequence[Batch]) -> None:
    for batch in batches:
        broken = check.take(batch)
        if broken is not None:
            raise CorruptError(f"message {broken.bad} is not what was appended", seq=broken.bad)
        tree.extend(check.leaves)
