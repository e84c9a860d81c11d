"""Stream state across `kill -9`, and what becomes of a stream whose producer died with the server."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest

from tests.support.server import ServerProcess

pytestmark = pytest.mark.anyio

STATES = ["open", "running", "paused", "completed", "failed", "cancelled", "timed_out", "interrupted"]
FACTS = ("state", "reason", "head", "first", "epoch", "hash", "kind", "metadata", "session", "ended")


async def put_in_state(http: httpx2.AsyncClient, state: str) -> dict[str, Any]:
    """A stream of that name in that state, with two messages."""
    body: dict[str, Any] = {"kind": "task", "metadata": {"of": state}, "session": "all"}
    if state == "running":
        body |= {"lease": {"id": "p", "epoch": 1}, "lease_seconds": 3600}
    assert (await http.put(f"/v1/streams/{state}", json=body)).status_code == 201
    producer = {"id": "p", "epoch": 1, "seq": 0}
    answer = await http.post(
        f"/v1/messages/{state}", json={"messages": [{"text": "a"}, {"json": {"b": 1}}], "producer": producer}
    )
    assert answer.status_code == 200, answer.text
    if state == "paused":
        assert (await http.post("/v1/pause/paused")).status_code == 200
    elif state not in {"open", "running"}:
        closing = {"state": state, "reason": {"why": state}}
        assert (await http.post(f"/v1/close/{state}", json=closing)).status_code == 200
    view: dict[str, Any] = (await http.get(f"/v1/streams/{state}")).json()
    assert view["state"] == state
    return view


@pytest.mark.scenario("TC-UT-003a")
async def test_every_state_is_the_same_after_kill_9_and_restart(server: ServerProcess) -> None:
    async with httpx2.AsyncClient(base_url=server.url) as http:
        before = {state: await put_in_state(http, state) for state in STATES}
        await server.restart(kill=True)
        for state in STATES:
            after = (await http.get(f"/v1/streams/{state}")).json()
            assert {fact: after.get(fact) for fact in FACTS} == {fact: before[state].get(fact) for fact in FACTS}
            messages = (await http.get(f"/v1/messages/{state}")).json()["messages"]
            assert [message.get("text", message.get("json")) for message in messages] == ["a", {"b": 1}]
            assert (await http.get(f"/v1/verify/{state}")).json()["ok"] is True
        for state in STATES[3:]:
            refused = await http.post(f"/v1/messages/{state}", json={"messages": [{"text": "late"}]})
            assert (refused.status_code, refused.json()["code"]) == (409, "ended")


@pytest.mark.scenario("TC-UT-003b")
async def test_a_producer_that_died_with_the_server_leaves_its_stream_interrupted_not_running(
    server: ServerProcess,
) -> None:
    async with httpx2.AsyncClient(base_url=server.url, timeout=30) as http:
        for name in ("dead", "alive"):
            body = {"lease": {"id": "p", "epoch": 1}, "lease_seconds": 3}
            await http.put(f"/v1/streams/{name}", json=body)
            append = {"messages": [{"text": "before"}], "producer": {"id": "p", "epoch": 1, "seq": 0}}
            assert (await http.post(f"/v1/messages/{name}", json=append)).status_code == 200
        await server.restart(kill=True)
        views: dict[str, Any] = {}
        async with asyncio.timeout(60):
            while views.get("dead", {}).get("state") != "interrupted":
                renewed = await http.post("/v1/lease/alive", json={"producer": {"id": "p", "epoch": 1}, "seconds": 3})
                assert renewed.status_code == 200, renewed.text
                views = {name: (await http.get(f"/v1/streams/{name}")).json() for name in ("dead", "alive")}
                await asyncio.sleep(0.2)
        assert views["dead"]["reason"]["cause"] == "lease_expired"
        assert views["alive"]["state"] == "running"
        read = (await http.get("/v1/messages/dead")).json()
        assert [message["text"] for message in read["messages"]] == ["before"]


@pytest.mark.scenario("TC-UT-003b")
async def test_after_kill_9_in_mid_write_a_stream_reads_up_to_its_last_durable_message(server: ServerProcess) -> None:
    acked: list[int] = []

    async def write(http: httpx2.AsyncClient) -> None:
        for seq in range(100_000):
            body = {"messages": [{"text": f"{seq}.{n}"} for n in range(5)], "producer": {"id": "p", "seq": seq}}
            acked.append((await http.post("/v1/messages/a", json=body)).json()["last"])

    async with httpx2.AsyncClient(base_url=server.url) as http:
        await http.put("/v1/streams/a", json={})
        for _ in range(3):
            start = len(acked)
            async with asyncio.TaskGroup() as tasks:
                writing = tasks.create_task(swallow(write(http)))
                async with asyncio.timeout(60):
                    while len(acked) < start + 20:
                        await asyncio.sleep(0.005)
                await server.kill()
                await writing
            await server.start()
            read = (await http.get("/v1/messages/a", params={"limit": 10_000})).json()
            assert read["last"] >= acked[-1]
            assert read["last"] % 5 == 0, "an append is all or nothing"
            assert len(read["messages"]) == read["last"]
            assert (await http.get("/v1/verify/a")).json()["ok"] is True
            await http.delete("/v1/streams/a")
            await http.put("/v1/streams/a", json={})


async def swallow(work: Any) -> None:
    """Run until the server is gone."""
    try:
        await work
    except httpx2.TransportError:
        return
