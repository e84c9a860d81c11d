"""A disk that hangs: whoever waits is told within a bound, viewers and probes know, and all goes on by itself afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from tests.integration.disk.service import Service, noticed
from tests.support.builders import append, create, encoded, read_all
from tests.support.speeds import Speed, running_server
from unbroken.errors import StoreUnavailableError
from unbroken.limits import DEFAULT_LIMITS
from unbroken.messages import Seq
from unbroken.store.sqlite import SQLiteStore
from unbroken.testing import DiskFault, DiskFile, DiskHang, DiskOperation, FaultDisk, PlantedFault

pytestmark = pytest.mark.anyio

LIMITS = replace(DEFAULT_LIMITS, store_seconds_max=0.3, probe_seconds=0.05, ready_seconds_max=0.3)
BOUND_SECONDS = 20
SYNC_OF_LOG = DiskFault(DiskHang(), frozenset({DiskOperation.SYNC}), frozenset({DiskFile.LOG}))


@pytest.fixture
def disk() -> Iterator[FaultDisk]:
    with FaultDisk() as disk:
        yield disk


@asynccontextmanager
async def served(disk: FaultDisk, path: Path) -> AsyncIterator[Service]:
    """A server on that disk; whatever hangs is released before it stops."""
    async with (
        running_server(Speed.STANDALONE, store=SQLiteStore(path, limits=LIMITS), limits=LIMITS) as server,
        httpx2.AsyncClient(timeout=BOUND_SECONDS) as http,
    ):
        service = Service(server, http)
        await service.begin()
        try:
            yield service
        finally:
            disk.heal()


async def bitten(fault: PlantedFault) -> None:
    assert await asyncio.to_thread(fault.bitten.wait, BOUND_SECONDS), "inconclusive: nothing hung"


@pytest.mark.scenario("TC-EDGE-005")
async def test_a_commit_that_hangs_is_told_in_bounded_time_and_made_good_afterwards(
    disk: FaultDisk, tmp_path: Path
) -> None:
    async with (
        served(disk, tmp_path / "unbroken.db") as service,
        service.server.peer() as viewer,
        asyncio.TaskGroup() as tasks,
    ):
        await viewer.receive("hello")
        await viewer.send(type="subscribe", id=1, stream="a", after="start")
        await viewer.receive("subscribed")
        assert (await service.send("one")).status_code == 200
        assert (await viewer.receive("messages"))["first"] == 1
        fault = disk.plant(SYNC_OF_LOG)
        undecided = tasks.create_task(service.send("two"))
        await bitten(fault)
        body = {"messages": [{"text": "not begun"}]}
        waiting = tasks.create_task(service.http.post(f"{service.server.url}/v1/messages/a", json=body))
        answer = await undecided
        assert (answer.status_code, answer.json()["code"], answer.json()["retryable"]) == (503, "unknown_outcome", True)
        assert ((await waiting).status_code, (await waiting).json()["code"]) == (503, "store_unavailable")
        assert (await service.send("two")).json()["code"] == "store_unavailable", "at once, while it hangs"
        assert "not answered" in (await noticed(viewer, "degraded"))["message"]
        assert await service.ready() == (503, ["store_unavailable"])
        async with service.server.peer() as late:
            await late.receive("hello")
            await noticed(late, "degraded")
        assert await service.texts() == ["one"], "reading goes on"
        disk.release()
        await noticed(viewer, "recovered")
        assert [m["text"] for m in (await viewer.receive("messages"))["messages"]] == ["two"]
        await service.until_sent("two")
        await service.until_sent("three")
        assert (await service.ready())[0] == 200
        await service.judge()
        assert await service.texts() == ["one", "two", "three"]
        assert fault.bites == 1


@pytest.mark.scenario("STRESS-002")
async def test_when_all_connections_to_the_database_are_taken_readers_are_told_and_it_recovers(
    disk: FaultDisk, tmp_path: Path
) -> None:
    path = tmp_path / "unbroken.db"
    store = SQLiteStore(path, limits=LIMITS)
    await store.open()
    stream = await create(store, "a")
    for number in range(50):
        await append(store, stream, [encoded(f"{number} " + "x" * 4_000)])
    await store.close()
    await store.open()  # nothing is in memory
    fault = disk.plant(DiskFault(DiskHang(), frozenset({DiskOperation.READ}), times=None))
    try:
        async with asyncio.timeout(BOUND_SECONDS):
            for _ in range(LIMITS.store_readers * 2):
                with pytest.raises(StoreUnavailableError, match=r"within 0\.3 s"):
                    await store.read(stream.id, Seq(0), messages_max=50, bytes_max=1 << 20)
        assert fault.bites == LIMITS.store_readers, "each connection hangs in one read"
    finally:
        disk.heal()
    async with asyncio.timeout(BOUND_SECONDS):
        assert len(await read_all(store, stream.id)) == 50
    await store.close()
