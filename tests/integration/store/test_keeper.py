"""When checkpoints are made, what they cover, and what is never signed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.integration.store.opening import ENCRYPTED, keyed
from tests.integration.store.test_tampering import Forger, edit, rewrite, zero_head
from tests.support.database import connect
from tests.support.parts import ManualClock, Parts, running_parts, texts
from unbroken.checkpoints.book import FILE_NAME, Book, Entry, read_book
from unbroken.checkpoints.checkpoint import Checkpoint
from unbroken.checkpoints.compare import compare
from unbroken.checkpoints.keeper import CheckpointKeeper
from unbroken.checkpoints.notes import Signer
from unbroken.limits import DEFAULT_LIMITS, Limits
from unbroken.messages import Seq, StreamInfo, StreamState
from unbroken.requests import AppendOptions, NewStream
from unbroken.store.base import Close, Durability, Fork
from unbroken.store.sqlite import SQLiteStore

pytestmark = pytest.mark.anyio

FAKE = Signer("example.com/fake", bytes(range(32)))
SELDOM = replace(DEFAULT_LIMITS, checkpoint_messages=3, checkpoint_seconds=1e9, store_ballast_bytes=0)
AT_ONCE = replace(SELDOM, checkpoint_seconds=0.0)


@dataclass
class Kept:
    """A server's parts with a keeper, which a test lets go step by step."""

    parts: Parts
    keeper: CheckpointKeeper
    directory: Path
    killed: bool = False
    """Whether it has no time to finish."""

    def checkpoints(self) -> list[Checkpoint]:
        found = list(read_book(self.directory / FILE_NAME, FAKE.verifier))
        return [entry.checkpoint for entry in found if isinstance(entry, Entry)]

    async def append(self, stream: StreamInfo, *values: str, end: bool = False) -> None:
        options = AppendOptions(close=Close(StreamState.COMPLETED) if end else None)
        await self.parts.streams.append_durably(stream, texts(*values), options)

    async def now(self, stream: StreamInfo) -> StreamInfo:
        found = await self.parts.store.get_by_id(stream.id)
        assert found is not None
        return found


@asynccontextmanager
async def kept(path: Path, limits: Limits, *, encrypted: bool = ENCRYPTED) -> AsyncIterator[Kept]:
    store = keyed(SQLiteStore(path, durability=Durability.PROCESS, limits=limits), encrypted=encrypted)
    clock = ManualClock()
    async with running_parts(store, limits=limits, clock=clock) as parts:
        directory = path.parent / "notes"
        keeper = CheckpointKeeper(store, parts.log, Book(directory, FAKE), limits=limits, clock=clock)
        running = asyncio.create_task(keeper.run())  # noqa: TID251 - it opens the file, and is ended below
        while not keeper.ready and not running.done():
            await asyncio.sleep(0)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        it = Kept(parts, keeper, directory)
        yield it
        if not it.killed:
            await keeper.finish()


def seqs(checkpoints: Sequence[Checkpoint]) -> list[tuple[int, int, str | None]]:
    return [(one.base, one.seq, one.ended) for one in checkpoints]


async def test_a_checkpoint_is_made_after_so_many_messages_and_at_the_end(path: Path) -> None:
    async with kept(path, SELDOM) as it:
        stream = await it.parts.stream()
        await it.append(stream, "1", "2")
        await it.keeper.step(everything=False)
        assert it.checkpoints() == []
        await it.append(stream, "3")
        await it.keeper.step(everything=False)
        assert seqs(it.checkpoints()) == [(0, 3, None)]
        await it.append(stream, "4", end=True)
        await it.keeper.step(everything=True)
        await it.keeper.step(everything=True)
        assert seqs(it.checkpoints()) == [(0, 3, None), (0, 4, "completed")]
        found = await compare(it.parts.streams, await it.now(stream), it.checkpoints())
        assert (found.covered, found.reason) == (4, None)


async def test_after_so_long_and_at_a_graceful_stop(path: Path) -> None:
    async with kept(path, AT_ONCE) as it:
        stream = await it.parts.stream()
        await it.append(stream, "1")
        await it.keeper.step(everything=False)
        assert seqs(it.checkpoints()) == [(0, 1, None)]
    async with kept(path, SELDOM) as it:
        await it.append(stream, "2")
    assert seqs(it.checkpoints()) == [(0, 1, None), (0, 2, None)]


async def test_what_was_appended_before_a_crash_is_caught_up_with_and_the_file_goes_on(path: Path) -> None:
    async with kept(path, SELDOM) as it:
        stream, other = await it.parts.stream(), await it.parts.stream("other")
        await it.append(stream, "1", "2", "3")
        await it.keeper.step(everything=False)
        await it.append(stream, "4")
        await it.append(other, "5")
        it.killed = True
    async with kept(path, SELDOM) as it:
        assert seqs(it.checkpoints()) == [(0, 3, None), (0, 4, None), (0, 1, None)]
        assert [one.serial for one in it.checkpoints()] == [1, 2, 3]
        found = await compare(it.parts.streams, await it.now(stream), it.checkpoints()[:2])
        assert (found.covered, found.reason) == (4, None), "the tree was continued, not begun anew"


async def test_of_a_stream_whose_begin_is_gone_the_log_begins_behind_it(path: Path) -> None:
    async with kept(path, SELDOM) as it:
        stream = await it.parts.stream()
        await it.append(stream, "1", "2")
        await it.append(stream, "3", "4")
        await it.parts.streams.trim(await it.now(stream), 3)
        await it.keeper.step(everything=True)
        await it.append(stream, "5")
        await it.keeper.step(everything=True)
        assert seqs(it.checkpoints()) == [(2, 4, None), (2, 5, None)]
        assert it.checkpoints()[0].origin.endswith("-from-2")
        await it.parts.streams.trim(await it.now(stream), 4)
        found = await compare(it.parts.streams, await it.now(stream), it.checkpoints())
        assert (found.covered, found.reason) == (5, None)


async def test_a_fork_has_a_log_of_its_own_from_message_1(path: Path) -> None:
    async with kept(path, SELDOM) as it:
        source = await it.parts.stream()
        await it.append(source, "1", "2", "3")
        fork = await it.parts.stream("fork", NewStream(fork=Fork(source.id, Seq(2))))
        await it.append(fork, "own")
        await it.keeper.step(everything=True)
        mine = [one for one in it.checkpoints() if one.epoch == fork.epoch]
        assert seqs(mine) == [(0, 3, None)]
        assert (await compare(it.parts.streams, await it.now(fork), mine)).covered == 3


def zero_hash(forger: Forger) -> None:
    first, second, *rest = forger.batches()
    forger.keep([first, replace(second, hash=bytes(32)), *rest], head=False)


@pytest.mark.parametrize(
    "tamper",
    [edit(rb"no 004", rb"no 999"), rewrite, zero_head, zero_hash],
    ids=["a message", "the whole log", "the head", "a stored hash"],
)
async def test_what_was_tampered_with_is_not_signed(
    path: Path, tamper: Callable[[Forger], None], caplog: pytest.LogCaptureFixture
) -> None:
    async with kept(path, SELDOM) as it:
        stream = await it.parts.stream()
        await it.append(stream, "no 001.", "no 002.", "no 003.")
        await it.keeper.step(everything=True)
        await it.append(stream, "no 004.")
        await it.append(stream, "no 005.")
        await asyncio.to_thread(lambda: tamper(Forger(path)))
        with caplog.at_level(logging.WARNING):
            await it.keeper.step(everything=True)
        assert "no checkpoint is made of the stream a any more" in caplog.text
        await it.append(stream, "6", end=True)
        await it.keeper.step(everything=True)
        assert seqs(it.checkpoints()) == [(0, 3, None)]


async def test_nothing_is_written_behind_what_does_not_hold(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with kept(path, SELDOM) as it:
        stream = await it.parts.stream()
        await it.append(stream, "1", "2", "3")
        await it.keeper.step(everything=True)
    file = path.parent / "notes" / FILE_NAME
    changed = file.read_bytes().replace(b"\n3\n", b"\n2\n", 1)
    file.write_bytes(changed)
    async with kept(path, SELDOM) as it:
        await it.append(stream, "4", end=True)
        assert "no checkpoints are made" in caplog.text
    assert file.read_bytes() == changed


async def test_a_stream_whose_key_is_gone_keeps_no_other_from_its_checkpoint(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with kept(path, SELDOM, encrypted=True) as it:
        lost, other = await it.parts.stream(), await it.parts.stream("other")
        await it.append(lost, "1")
        await it.append(other, "2")
        it.killed = True
    connection = connect(path)
    connection.execute("DELETE FROM stream_key WHERE stream_id = ?", (lost.id,))
    connection.close()
    async with asyncio.timeout(60), kept(path, SELDOM, encrypted=True) as it:
        assert [(one.epoch, one.seq) for one in it.checkpoints()] == [(other.epoch, 1)]
        await it.append(other, "3")
    assert seqs(it.checkpoints()) == [(0, 1, None), (0, 2, None)]
    assert "no checkpoint is made of the stream a any more" in caplog.text
