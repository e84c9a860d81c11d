"""The disk fills in mid-stream: a clear refusal, reads go on, deleting makes room, and writing resumes by itself."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from shutil import disk_usage

import httpx2
import pytest

from tests.integration.disk.service import Service, noticed
from tests.integration.disk.small_disk import SmallDisk, small_disk
from tests.integration.disk.works import sound
from tests.support.builders import ALICE, append, create, encoded, read_all
from tests.support.speeds import LOCAL, Speed, running_server
from unbroken.errors import StoreFullError
from unbroken.limits import DEFAULT_LIMITS, KIB, MIB
from unbroken.messages import NewMessage
from unbroken.requests import NewStream
from unbroken.store.base import Durability, PutSession
from unbroken.store.sqlite import SQLiteStore
from unbroken.store.sqlite.ballast import Ballast

pytestmark = pytest.mark.anyio

SIZE = 6 * MIB
TEXT = "x" * 20_000
LIMITS = replace(
    DEFAULT_LIMITS, store_ballast_bytes=512 * KIB, store_wal_bytes=128 * KIB, probe_seconds=0.05, hint_poll_seconds=0.05
)
BOUND_SECONDS = 60
REFUSALS = 5


@pytest.fixture
def small(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "small", SIZE) as disk:
        yield disk


@asynccontextmanager
async def served(small: SmallDisk) -> AsyncIterator[Service]:
    limits = LIMITS if small.real else replace(LIMITS, store_bytes_max=SIZE // 2, store_ballast_bytes=0)
    store = SQLiteStore(small.path / "unbroken.db", durability=Durability.DISK, limits=limits)
    async with (
        running_server(Speed.STANDALONE, store=store, limits=limits) as server,
        httpx2.AsyncClient(timeout=BOUND_SECONDS) as http,
    ):
        service = Service(server, http)
        await service.begin()
        yield service


async def fill(service: Service) -> httpx2.Response:
    """Append until there is no room for good; the last refusal.

    After the first one the log is emptied, and what that gives back may be enough to go on for a while.
    """
    refused = 0
    while True:
        answer = await service.send(f"{len(service.acknowledged)} {TEXT}")
        refused = 0 if answer.status_code == 200 else refused + 1
        if refused == REFUSALS:
            return answer


@pytest.mark.scenario("TC-EDGE-006")
async def test_a_full_disk_refuses_clearly_serves_readers_lets_itself_be_cleared_and_resumes(small: SmallDisk) -> None:
    async with served(small) as service, service.server.peer() as viewer:
        await viewer.receive("hello")
        streams, ballast = service.server.services.streams, small.path / "unbroken.db-ballast"
        old = (await streams.create(LOCAL, "old", NewStream())).stream
        for _ in range(60):
            await streams.append_durably(old, [NewMessage(text=TEXT)])
        assert ballast.exists() == small.real
        refused = await fill(service)
        problem = refused.json()
        assert (refused.status_code, problem["code"], problem["retryable"]) == (507, "store_full", True)
        assert problem["cure"]
        if small.real:
            assert "Delete or trim streams" in problem["detail"]
            assert not ballast.exists(), "the reserve is let go"
        assert len(service.acknowledged) > 20
        text = f"{len(service.acknowledged)} {TEXT}"
        free = await asyncio.to_thread(disk_usage, small.path)
        assert free.free >= LIMITS.store_ballast_bytes // 2 or not small.real, "the reserve is not for appends"
        await noticed(viewer, "degraded")
        assert await service.ready() == (503, ["store_full"])
        assert await service.texts() == service.acknowledged, "reading goes on"
        deleted = await service.http.delete(f"{service.server.url}/v1/streams/old")
        assert deleted.status_code in {200, 204}, deleted.text
        await service.until_sent(text)
        await noticed(viewer, "recovered")
        await service.until_sent("at last")
        async with asyncio.timeout(60):  # the reserve is there again; the log may have needed its room once more
            while ballast.exists() != small.real:
                await asyncio.sleep(0.01)
        assert (await service.ready())[0] == 200
        await service.judge()
    sound(small.path / "unbroken.db")


@pytest.mark.scenario("TC-EDGE-006")
async def test_writing_resumes_by_itself_when_somebody_else_makes_room(small: SmallDisk) -> None:
    if not small.real:
        pytest.skip("not run: needs a tmpfs that can grow")
    async with served(small) as service, service.server.peer() as viewer:
        await viewer.receive("hello")
        assert (await fill(service)).status_code == 507
        await noticed(viewer, "degraded")
        small.grow(2 * SIZE)
        await noticed(viewer, "recovered")
        await service.until_sent(f"{len(service.acknowledged)} {TEXT}")
        await service.judge()


@pytest.mark.scenario("TC-EDGE-006")
async def test_a_disk_that_the_log_has_filled_has_room_again_when_that_is_emptied(small: SmallDisk) -> None:
    if not small.real:
        pytest.skip("not run: needs a tmpfs")
    limits = replace(LIMITS, store_wal_bytes=2 * SIZE)  # so that nothing copies the log before the disk is full
    store = SQLiteStore(small.path / "unbroken.db", limits=limits)
    await store.open()
    stream = await create(store, "a")
    appended = 0
    with suppress(StoreFullError):
        while True:
            await append(store, stream, [encoded(str(appended))])
            appended += 1
    assert (small.path / "unbroken.db").stat().st_size < SIZE // 4, "it is the log that has filled the disk"
    await append(store, stream, [encoded(str(appended))])
    assert await read_all(store, stream.id) == [str(number) for number in range(appended + 1)]
    assert (small.path / "unbroken.db-ballast").exists(), "and the reserve is there again"
    await store.close()


async def test_a_start_on_a_full_disk_gives_up_the_reserve_serves_readers_and_resumes(small: SmallDisk) -> None:
    if not small.real:
        pytest.skip("not run: needs a tmpfs")
    async with served(small) as service:
        for number in range(20):
            assert (await service.send(str(number))).status_code == 200
    foreign = small.path / "foreign"
    await asyncio.to_thread(fill_up, foreign)
    store = SQLiteStore(small.path / "unbroken.db", limits=LIMITS)
    await store.open()
    stream = await store.get(LOCAL, "a")
    assert stream is not None
    assert await read_all(store, stream.id) == service.acknowledged
    with pytest.raises(StoreFullError, match="Delete or trim"):
        await append(store, stream, [encoded("no")])
    await asyncio.to_thread(foreign.unlink)
    await append(store, stream, [encoded("again")])
    await store.close()


def fill_up(path: Path) -> None:
    """Write until there is no room."""
    with path.open("wb") as foreign, suppress(OSError):
        while True:
            os.write(foreign.fileno(), bytes(4 * KIB))


async def test_another_process_that_let_the_reserve_go_is_noticed(tmp_path: Path) -> None:
    ballast = Ballast(tmp_path / "unbroken.db", 64 * KIB)
    ballast.reserve()
    file = tmp_path / "unbroken.db-ballast"
    assert file.stat().st_blocks * 512 >= 64 * KIB, "it is real room, not a hole"
    assert file.stat().st_mode & 0o077 == 0
    file.unlink()
    ballast.check([PutSession(principal=ALICE, name="s", now_ms=1)])
    assert file.exists(), "there is room here, so it was taken back at once"
    assert not ballast.full
    none = Ballast(tmp_path / "other.db", 0)
    none.reserve()
    error = StoreFullError("as SQLite says")
    assert none.let_go(error) is error
    assert not (tmp_path / "other.db-ballast").exists()


async def test_a_store_bound_by_its_own_limit_keeps_its_reserve(tmp_path: Path) -> None:
    limits = replace(LIMITS, store_bytes_max=256 * KIB)
    store = SQLiteStore(tmp_path / "unbroken.db", limits=limits)
    await store.open()
    stream = await create(store, "a")
    with suppress(StoreFullError):
        while True:
            await append(store, stream, [encoded(TEXT)])
    with pytest.raises(StoreFullError, match="database or disk is full"):
        await append(store, stream, [encoded(TEXT)])
    assert (tmp_path / "unbroken.db-ballast").exists()
    await store.close()
