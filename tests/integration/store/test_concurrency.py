"""Many writers at once: tasks in one loop, threads with a store each, processes on one file."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest

from tests.integration.store.opening import keyed
from tests.support.builders import ALICE, NOW_MS, append, appending, create, encoded, read_all
from unbroken.errors import ConflictError, StoreUnavailableError
from unbroken.limits import DEFAULT_LIMITS
from unbroken.messages import Seq, StreamInfo
from unbroken.protocol.chain import chain
from unbroken.store.base import Appended, Durability, Producer, Rejected, StreamingMessageRepository
from unbroken.store.sqlite import SQLiteStore

pytestmark = pytest.mark.anyio
Store = StreamingMessageRepository
WRITER = Path(__file__).with_name("writing_process.py")
ROOT = Path(__file__).resolve().parents[3]


async def produce(store: Store, stream: StreamInfo, name: str, count: int) -> None:
    """Append `count` messages one by one, each of them twice as after a lost answer, and go on through a busy store."""
    for seq in range(count):
        op = appending(stream, [encoded(f"{name}:{seq}")], producer=Producer(name, 1, seq))
        for attempt in range(2):
            (result,) = await patiently(store, op)
            assert isinstance(result, Appended)
            assert result.duplicate is (attempt == 1)


async def patiently(store: Store, op: object) -> list[object]:
    for _ in range(100):
        try:
            return list(await store.write([op]))  # type: ignore[list-item]
        except StoreUnavailableError:
            await asyncio.sleep(0.01)
    raise AssertionError("the store stayed busy")


async def assert_complete(store: Store, stream: StreamInfo, writers: int, count: int) -> None:
    """Contiguous, nothing lost, nothing doubled, each producer in its own order, and the chain holds."""
    found = await read_all(store, stream.id)
    now = await store.get_by_id(stream.id)
    assert now is not None
    assert now.head == len(found) == writers * count
    assert max(Counter(found).values()) == 1
    by_writer: dict[str, list[int]] = {}
    for text in found:
        name, seq = text.split(":")
        by_writer.setdefault(name, []).append(int(seq))
    assert len(by_writer) == writers
    assert all(seqs == list(range(count)) for seqs in by_writer.values())
    assert now.hash == chain(now.genesis, 1, [encoded(text) for text in found])


@pytest.mark.scenario("TC-UT-002c")
async def test_many_tasks_on_one_stream_and_on_many(store: Store) -> None:
    one = await create(store, "one")
    many = [await create(store, f"{n}") for n in range(10)]
    async with asyncio.TaskGroup() as group:
        for n in range(10):
            group.create_task(produce(store, one, f"p{n}", 20))
            group.create_task(produce(store, many[n], "p", 20))
    await assert_complete(store, one, 10, 20)
    for stream in many:
        await assert_complete(store, stream, 1, 20)


async def test_of_writers_that_expect_the_same_head_exactly_one_wins_each_place(store: Store) -> None:
    stream = await create(store, "a")
    won: list[int] = []

    async def compete(name: int) -> None:
        head = 0
        while head < 30:
            op = appending(stream, [encoded(f"{name}:{head}")], expected_head=Seq(head))
            (result,) = await store.write([op])
            if isinstance(result, Appended):
                won.append(result.first)
                head = result.head
            else:
                assert isinstance(result, Rejected)
                assert isinstance(result.error, ConflictError)
                head = int(result.error.detail["head"] or 0)

    async with asyncio.TaskGroup() as group:
        for n in range(5):
            group.create_task(compete(n))
    assert won == list(range(1, len(won) + 1))
    assert len(await read_all(store, stream.id)) == len(won) >= 30


async def test_a_cancelled_caller_leaves_a_whole_write_or_none(store: Store) -> None:
    streams = [await create(store, f"{n}") for n in range(3)]
    for attempt in range(20):
        ops = [appending(stream, [encoded(f"{attempt}")], producer=Producer("p", attempt, 0)) for stream in streams]
        async with asyncio.TaskGroup() as group:
            task = group.create_task(store.write(ops))
            for _ in range(attempt % 4):
                await asyncio.sleep(0)
            task.cancel()
    await append(store, await create(store, "barrier"), [encoded("written after all of them")])
    contents = [await read_all(store, stream.id) for stream in streams]
    assert contents[0] == contents[1] == contents[2]


@pytest.mark.scenario("TC-UT-002c")
async def test_threads_with_a_store_each_share_one_file(sqlite: SQLiteStore, path: Path) -> None:
    one = await create(sqlite, "one")
    failures: list[BaseException] = []

    async def work(name: str) -> None:
        store = keyed(SQLiteStore(path, durability=Durability.PROCESS))
        await store.open()
        try:
            own = await create(store, f"own/{name}")
            await produce(store, one, name, 20)
            await produce(store, own, name, 5)
        finally:
            await store.close()

    def run(name: str) -> None:
        try:
            asyncio.run(work(name))
        except BaseException as error:  # noqa: BLE001 - told to the test
            failures.append(error)

    threads = [threading.Thread(target=run, args=(f"t{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    await produce(sqlite, one, "here", 20)
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert failures == []
    await assert_complete(sqlite, one, 5, 20)
    for n in range(4):
        own = await sqlite.get(ALICE, f"own/t{n}")
        assert own is not None
        await assert_complete(sqlite, own, 1, 5)


@pytest.mark.scenario("TC-UT-002c")
async def test_processes_share_one_file(sqlite: SQLiteStore, path: Path) -> None:
    one = await create(sqlite, "one")
    children = [
        subprocess.Popen(  # noqa: ASYNC220 - starting is quick; waiting is done in a thread
            [sys.executable, str(WRITER), str(path), "one", f"c{n}", "25"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=ROOT,
        )
        for n in range(3)
    ]
    for child in children:  # all are open before any of them writes
        assert child.stdout is not None
        assert await asyncio.to_thread(child.stdout.readline) == b"open\n"
    waiting = [asyncio.to_thread(child.communicate, b"go\n", 60) for child in children]
    outcomes, _ = await asyncio.gather(asyncio.gather(*waiting), produce(sqlite, one, "here", 25))
    for child, (_, errors) in zip(children, outcomes, strict=True):
        assert child.returncode == 0, errors.decode()
    await assert_complete(sqlite, one, 4, 25)


async def test_many_stores_open_one_new_file_at_the_same_time(path: Path) -> None:
    stores = [keyed(SQLiteStore(path, durability=Durability.PROCESS)) for _ in range(6)]
    await asyncio.gather(*(store.open() for store in stores))
    streams = [await create(store, f"{n}") for n, store in enumerate(stores)]
    assert len({stream.epoch for stream in streams}) == len(streams)
    for store in stores:
        await append(store, streams[0], [encoded("x")], now_ms=NOW_MS)
    assert await read_all(stores[-1], streams[0].id) == ["x"] * 6
    await asyncio.gather(*(store.close() for store in stores))
    assert DEFAULT_LIMITS.store_busy_seconds_max > 0
