"""What a viewer sees is in the database already, a database that goes away loses nothing, refreshing finds all."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import apsw
import httpx2
import pytest
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from tests.support.server import ServerProcess
from tests.support.speeds import Peer

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def peer_of(server: ServerProcess) -> AsyncIterator[Peer]:
    url = server.url.replace("http", "ws", 1) + "/v1/ws"
    async with connect(url, subprotocols=[Subprotocol("unbroken.v1")], compression=None, max_size=None) as socket:
        peer = Peer(socket)
        await peer.receive("hello")
        yield peer


@pytest.mark.scenario("TC-INT-001a")
@pytest.mark.parametrize("durability", ["disk", "process"])
async def test_at_the_moment_a_viewer_sees_a_message_an_independent_reader_sees_it_too(
    tmp_path: Path, durability: str
) -> None:
    async with (
        ServerProcess(tmp_path, durability=durability) as server,
        httpx2.AsyncClient(base_url=server.url) as http,
        peer_of(server) as viewer,
        peer_of(server) as producer,
    ):
        await http.put("/v1/streams/a", json={})
        await viewer.send(type="subscribe", id=1, stream="a")
        await viewer.receive("subscribed")
        database = apsw.Connection(str(server.database), flags=apsw.SQLITE_OPEN_READONLY)
        total = 200
        for n in range(total):
            await producer.send(type="append", id=n, stream="a", messages=[{"text": str(n)}])
        seen = 0
        while seen < total:
            frame = await viewer.receive("messages")
            seen = frame["first"] + len(frame["messages"]) - 1
            (stored,) = database.execute("SELECT max(id & 4294967295) FROM chunk").fetchone()  # type: ignore[misc]
            assert stored >= seen
        database.close()


@pytest.mark.scenario("TC-INT-001b")
async def test_a_database_that_goes_away_in_mid_stream_is_told_and_nothing_is_lost(server: ServerProcess) -> None:
    async with (
        httpx2.AsyncClient(base_url=server.url, timeout=60) as http,
        peer_of(server) as viewer,
        peer_of(server) as producer,
    ):
        await http.put("/v1/streams/a", json={})
        await viewer.send(type="subscribe", id=1, stream="a")
        await viewer.receive("subscribed")

        async def append(seq: int) -> dict[str, Any]:
            body = {"id": "p", "epoch": 1, "seq": seq}
            await producer.send(type="append", id=seq, stream="a", producer=body, messages=[{"text": str(seq)}])
            answer: dict[str, Any] = await producer.receive("acks", "error")
            return answer

        assert (await append(0))["type"] == "acks"
        blocker = apsw.Connection(str(server.database))
        blocker.execute("BEGIN IMMEDIATE")
        refused = await append(1)
        assert (refused["type"], refused["code"], refused["retryable"]) == ("error", "store_unavailable", True)
        assert refused["cure"]
        assert (await viewer.receive("notice"))["code"] == "degraded"
        assert (await http.get("/readyz")).status_code == 503
        read = (await http.get("/v1/messages/a")).json()
        assert [message["text"] for message in read["messages"]] == ["0"], "reading goes on"
        blocker.execute("ROLLBACK")
        blocker.close()
        assert (await append(1))["type"] == "acks", "the same append again takes effect once"
        assert (await viewer.receive("notice"))["code"] == "recovered"
        assert (await append(2))["type"] == "acks"
        seen: list[str] = []
        read = (await http.get("/v1/messages/a")).json()
        seen = [message["text"] for message in read["messages"]]
        assert seen == ["0", "1", "2"]
        assert (await http.get("/readyz")).status_code == 200


@pytest.mark.scenario("TC-INT-002a")
async def test_a_client_that_comes_back_finds_its_running_streams_and_goes_on_from_its_last_message(
    server: ServerProcess,
) -> None:
    async with httpx2.AsyncClient(base_url=server.url) as http:
        for n in range(5):
            body: dict[str, Any] = {"session": "mine"}
            if n != 4:
                body |= {"lease": {"id": f"p{n}", "epoch": 1}, "lease_seconds": 600}
            await http.put(f"/v1/streams/s{n}", json=body)
            append = {"messages": [{"text": "1"}, {"text": "2"}], "producer": {"id": f"p{n}", "epoch": 1, "seq": 0}}
            assert (await http.post(f"/v1/messages/s{n}", json=append)).status_code == 200
        await http.post("/v1/close/s4", json={"state": "completed"})
        cursors: dict[str, str] = {}
        async with peer_of(server) as peer:
            for n in range(5):
                await peer.send(type="subscribe", id=n, stream=f"s{n}", after="start")
            while len(cursors) < 5:
                frame = await peer.receive("messages")
                cursors[frame["stream"]] = f"{frame['epoch']}:{frame['first']}"  # it handled only the first of them
        for n in range(4):
            append = {"messages": [{"text": "3"}], "producer": {"id": f"p{n}", "epoch": 1, "seq": 1}}
            assert (await http.post(f"/v1/messages/s{n}", json=append)).status_code == 200
        listed = (await http.get("/v1/streams", params={"session": "mine", "active": "true"})).json()["streams"]
        assert sorted(view["stream"] for view in listed) == ["s0", "s1", "s2", "s3"]
        assert {view["state"] for view in listed} == {"running"}
        async with peer_of(server) as peer:
            for number, view in enumerate(listed):
                await peer.send(type="subscribe", id=number, stream=view["stream"], after=cursors[view["stream"]])
            seen: dict[str, list[str]] = {view["stream"]: [] for view in listed}
            while any(len(texts) < 2 for texts in seen.values()):
                frame = await peer.receive("messages", "error")
                assert frame["first"] == len(seen[frame["stream"]]) + 2
                seen[frame["stream"]] += [message["text"] for message in frame["messages"]]
        assert all(texts == ["2", "3"] for texts in seen.values())


@pytest.mark.scenario("TC-INT-002b")
async def test_25_refreshes_at_random_moments_while_it_is_written_lose_and_double_nothing(
    server: ServerProcess,
) -> None:
    seed = 20_260
    print(f"seed {seed}")  # noqa: T201
    chance = random.Random(seed)
    refreshes, total = 0, 10**9  # until the writer says what its last one is
    async with httpx2.AsyncClient(base_url=server.url) as http:
        await http.put("/v1/streams/a", json={})

        async def write() -> None:
            """As long as it takes: each refresh waits for a few messages, and a busy server hands out many at once."""
            nonlocal total
            async with peer_of(server) as producer:
                acked = 0
                for first in range(0, 100_000, 10):
                    if refreshes > 25:
                        total = first + 10
                    for n in range(first, first + 10):
                        frame = {"type": "append", "id": n, "stream": "a", "messages": [{"text": str(n)}]}
                        await producer.send(**frame, producer={"id": "p", "seq": n})
                    while acked < first + 10:
                        acked += len((await producer.receive("acks"))["acks"])
                    if total == first + 10:
                        return

        seen: list[str] = []
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(write())
            cursor = "start"
            while len(seen) < total:
                async with peer_of(server) as peer:
                    await peer.send(type="subscribe", id=1, stream="a", after=cursor)
                    until = len(seen) + chance.randint(1, 60)
                    while len(seen) < min(until, total):
                        frame = await peer.receive("messages", "error")
                        assert frame["type"] == "messages", frame
                        assert frame["first"] == len(seen) + 1
                        seen += [message["text"] for message in frame["messages"]]
                        cursor = f"{frame['epoch']}:{len(seen)}"
                    if chance.random() < 0.5:
                        peer.socket.transport.abort()
                refreshes += 1
    assert refreshes > 25
    assert seen == [str(n) for n in range(total)]
