"""Another process holds the database's lock: a bounded wait, a clear error, viewers undisturbed, nothing lost or damaged."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from tests.integration.disk.service import Service, noticed
from tests.integration.disk.works import sound
from tests.support.speeds import Speed, running_server
from tests.support.sqlite_program import LOCKER, program
from unbroken.limits import DEFAULT_LIMITS
from unbroken.store.sqlite import SQLiteStore
from unbroken.store.sqlite.connection import Connection

pytestmark = pytest.mark.anyio

LIMITS = replace(DEFAULT_LIMITS, store_busy_seconds_max=0.3, probe_seconds=0.05)
BOUND_SECONDS = 20


@pytest.mark.scenario("TC-EDGE-007")
@pytest.mark.parametrize("kind", ["IMMEDIATE", "EXCLUSIVE"])
async def test_a_lock_that_is_held_too_long_costs_a_bounded_wait_and_nothing_else(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "unbroken.db"
    async with (
        running_server(Speed.STANDALONE, store=SQLiteStore(path, limits=LIMITS), limits=LIMITS) as server,
        httpx2.AsyncClient(timeout=BOUND_SECONDS) as http,
        server.peer() as viewer,
    ):
        service = Service(server, http)
        await service.begin()
        await viewer.receive("hello")
        for number in range(5):
            assert (await service.send(f"before {number}")).status_code == 200
        with program(LOCKER.format(kind=kind), path) as ask:
            assert await asyncio.to_thread(ask, "") == "locked"
            for _ in range(3):
                refused = await service.send("during")
                problem = refused.json()
                assert (refused.status_code, problem["code"]) == (503, "store_unavailable")
                assert "another process kept the database locked" in problem["detail"]
            await noticed(viewer, "degraded")
            assert await service.ready() == (503, ["store_unavailable"])
            assert await service.texts() == service.acknowledged, "reading goes on"
            assert await asyncio.to_thread(ask, "let go") == "free"
            await noticed(viewer, "recovered")
        await service.until_sent("during")
        await service.until_sent("after")
        await service.judge()
    sound(path)


@pytest.mark.scenario("TC-EDGE-007")
async def test_a_lock_that_is_given_back_in_time_costs_only_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, wanted = tmp_path / "unbroken.db", threading.Event()
    beginning = Connection.transaction

    @contextmanager
    def transaction(connection: Connection) -> Iterator[None]:
        wanted.set()
        with beginning(connection):
            yield

    monkeypatch.setattr(Connection, "transaction", transaction)
    async with (
        running_server(Speed.STANDALONE, store=SQLiteStore(path)) as server,
        httpx2.AsyncClient(timeout=BOUND_SECONDS) as http,
        asyncio.TaskGroup() as tasks,
    ):
        service = Service(server, http)
        await service.begin()
        with program(LOCKER.format(kind="IMMEDIATE"), path) as ask:
            assert await asyncio.to_thread(ask, "") == "locked"
            wanted.clear()
            sending = tasks.create_task(service.send("one"))
            assert await asyncio.to_thread(wanted.wait, BOUND_SECONDS), "the writer has to meet the lock"
            assert not sending.done()
            assert await asyncio.to_thread(ask, "let go") == "free"
            assert (await sending).status_code == 200
        await service.judge()
    sound(path)
