"""A disk that hangs in the middle of a commit: the server stops all the same, and promises nothing that it does not know."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from tests.support.speeds import LOCAL, Speed, running_server
from unbroken.embed import Unbroken
from unbroken.limits import DEFAULT_LIMITS
from unbroken.messages import NewMessage
from unbroken.requests import NewStream
from unbroken.store.base import Appended, Durability
from unbroken.store.sqlite import SQLiteStore
from unbroken.store.threads import ThreadWorker, Worker

pytestmark = pytest.mark.anyio

LIMITS = replace(DEFAULT_LIMITS, drain_seconds_max=0.5, run_grace_seconds=0.2)
STOP_SECONDS = 10.0


class Disk:
    """What the writer's thread of a real SQLite store waits for, as a system call of a dying disk would make it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._well = threading.Event()
        self._stuck = threading.Event()
        self._workers: dict[str, Worker] = {}

    def store(self) -> SQLiteStore:
        return SQLiteStore(self.path, durability=Durability.PROCESS, limits=LIMITS, workers=self._worker)

    def _worker(self, name: str, pending_max: int) -> Worker:
        return self._workers.setdefault(name, ThreadWorker(name, pending_max))

    async def hang(self) -> None:
        def wait() -> None:
            self._stuck.set()
            self._well.wait()

        self._workers["unbroken-writer"].post(wait)
        await asyncio.to_thread(self._stuck.wait, 10)

    def recover(self) -> None:
        self._well.set()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path / "unbroken.db")
    yield disk
    disk.recover()


async def kept(path: Path, name: str) -> int:
    """The head of a stream, as the next start of a server finds it."""
    store = SQLiteStore(path, durability=Durability.PROCESS)
    await store.open()
    try:
        found = await store.get(LOCAL, name)
        assert found is not None
        return found.head
    finally:
        await store.close()


async def test_a_server_stops_in_bounded_time_and_tells_its_producers_that_it_does_not_know(
    disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "unbroken")
    loop = asyncio.get_running_loop()
    message = {"messages": [{"text": "x"}]}
    async with httpx2.AsyncClient(timeout=30) as http, asyncio.TaskGroup() as tasks:
        async with running_server(Speed.STANDALONE, store=disk.store(), limits=LIMITS) as server:
            await server.services.streams.create(LOCAL, "a", NewStream())
            url = f"{server.url}/v1/messages/a"
            assert (await http.post(url, json=message)).status_code == 200
            await disk.hang()
            undecided = tasks.create_task(http.post(url, json=message))
            async with asyncio.timeout(10):
                while server.services.log.pending_bytes == 0:
                    await asyncio.sleep(0.005)
            began = loop.time()
        assert loop.time() - began < STOP_SECONDS
        answer = await undecided
    assert (answer.status_code, answer.json()["code"], answer.json()["retryable"]) == (503, "unknown_outcome", True)
    said = [record.getMessage() for record in caplog.records]
    assert "stopping with 1 operations undecided and 0 not begun: the store did not answer" in said
    assert any("does not close" in line for line in said)
    disk.recover()
    assert 1 <= await kept(disk.path, "a") <= 2


async def test_an_application_stops_in_bounded_time_with_a_run_that_waits_for_the_disk(disk: Disk) -> None:
    unbroken = Unbroken(disk.store(), limits=LIMITS)
    loop = asyncio.get_running_loop()
    go_on = asyncio.Event()

    async def source() -> AsyncIterator[str]:
        yield "before"
        await go_on.wait()
        yield "undecided"
        await asyncio.Event().wait()

    async with unbroken.lifespan():
        await unbroken.start(source(), "run")
        async for received in unbroken.follow("run"):
            assert received.message.text == "before"
            break
        await disk.hang()
        go_on.set()
        async with asyncio.timeout(10):
            while unbroken.services.log.pending_bytes == 0:
                await asyncio.sleep(0.005)
        began = loop.time()
    assert loop.time() - began < STOP_SECONDS
    disk.recover()
    assert 1 <= await kept(disk.path, "run") <= 2


async def test_a_disk_that_is_only_slow_loses_nothing_at_a_stop(disk: Disk) -> None:
    async with running_server(Speed.STANDALONE, store=disk.store(), limits=LIMITS) as server:
        streams = server.services.streams
        stream = (await streams.create(LOCAL, "a", NewStream())).stream
        await disk.hang()
        future = streams.append(stream, [NewMessage(text="x")])
        asyncio.get_running_loop().call_later(0.1, disk.recover)
    result = await future
    assert isinstance(result, Appended)
    assert result.last == await kept(disk.path, "a") == 1
