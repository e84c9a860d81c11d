"""Appends over WebSocket to a name that somebody else deletes and uses again: the same outcome as over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.support.faulty import FaultyStore
from tests.support.inprocess import store_of
from tests.support.speeds import LOCAL, Peer, Running, Speed, running_server
from unbroken.identity import Principal, Verb
from unbroken.limits import DEFAULT_LIMITS
from unbroken.messages import Seq, decode_messages
from unbroken.requests import NewStream
from unbroken.store.base import CreateStream, DeleteStream, Fork, WriteOp

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["memory", "sqlite"])
async def server(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Running]:
    async with running_server(Speed.STANDALONE, store=store_of(request.param, tmp_path)) as running:
        yield running


async def known_and_reborn(server: Running, peer: Peer, name: str, messages: int = 3) -> None:
    """`peer` appends to the stream, then somebody else deletes it and makes another of that name."""
    producer = {"id": "p", "epoch": 1}
    await peer.send(type="create", id=1, stream=name)
    await peer.receive("result")
    for seq in range(messages):
        await peer.send(
            type="append", id=10 + seq, stream=name, producer={**producer, "seq": seq}, messages=[{"text": "old"}]
        )
        await peer.receive("acks")
    streams = server.services.streams
    await streams.delete(await streams.get(LOCAL, name, may=Verb.READ))
    await streams.create(LOCAL, name, NewStream())


async def texts(server: Running, name: str) -> list[str]:
    stream = await server.services.streams.get(LOCAL, name, may=Verb.READ)
    found = await server.services.streams.read(stream, Seq(0))
    return [str(message.text) for batch in found.batches for message in decode_messages(batch.body)]


async def over_websocket(peer: Peer, name: str, fields: dict[str, Any]) -> dict[str, Any]:
    await peer.send(type="append", id=99, stream=name, **fields)
    answer = await peer.receive("acks", "error")
    found: dict[str, Any] = answer["acks"][0] if answer["type"] == "acks" else answer
    return found


async def over_http(server: Running, name: str, fields: dict[str, Any]) -> dict[str, Any]:
    async with httpx2.AsyncClient(base_url=server.url) as http:
        response = await http.post(f"/v1/messages/{name}", json=fields)
        found: dict[str, Any] = response.json()
        return found


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"producer": {"id": "p", "epoch": 1, "seq": 0}},
        {"producer": {"id": "p", "epoch": 1, "seq": 2}},
        {"producer": {"id": "p", "epoch": 1, "seq": 3}},
        {"producer": {"id": "p", "epoch": 2, "seq": 0}},
        {"expected_head": 0},
        {"expected_head": 3},
        {"close": {"state": "failed"}},
    ],
    ids=str,
)
async def test_an_append_to_a_reborn_stream_has_the_outcome_that_it_has_over_http(
    server: Running, fields: dict[str, Any]
) -> None:
    fields = {**fields, "messages": [{"text": "new"}]}
    async with server.peer() as peer:
        await known_and_reborn(server, peer, "a")
        await known_and_reborn(server, peer, "b")
        by_socket = await over_websocket(peer, "a", fields)
        by_http = await over_http(server, "b", fields)
        for fact in ("code", "first", "last"):
            assert by_socket.get(fact) == by_http.get(fact), by_http
        assert by_socket.get("detail") == by_http.get("facts")
        assert by_socket.get("code") != "not_found"
        assert await texts(server, "a") == await texts(server, "b")


async def test_a_repeat_in_the_reborn_stream_has_no_second_effect(server: Running) -> None:
    fields = {"producer": {"id": "p", "epoch": 1, "seq": 0}, "messages": [{"text": "new"}]}
    async with server.peer() as peer:
        await known_and_reborn(server, peer, "a")
        first = await over_websocket(peer, "a", fields)
        again = await over_websocket(peer, "a", fields)
    assert (first["first"], first.get("duplicate", False)) == (1, False)
    assert (again["first"], again["duplicate"]) == (1, True)
    assert await texts(server, "a") == ["new"]


async def test_a_stream_that_is_gone_and_one_that_only_its_forks_keep_are_not_found(server: Running) -> None:
    streams = server.services.streams
    async with server.peer() as peer:
        for name in ("gone", "kept"):
            await peer.send(type="create", id=1, stream=name)
            await peer.receive("result")
            await peer.send(type="append", id=2, stream=name, messages=[{"text": "old"}])
            await peer.receive("acks")
        kept = await streams.get(LOCAL, "kept", may=Verb.READ)
        await streams.create(LOCAL, "fork", NewStream(fork=Fork(kept.id, Seq(1))))
        for name in ("gone", "kept"):
            await streams.delete(await streams.get(LOCAL, name, may=Verb.READ))
            assert (await over_websocket(peer, name, {"messages": [{"text": "new"}]}))["code"] == "not_found"


async def test_a_name_that_somebody_else_took_is_not_found(server: Running) -> None:
    streams = server.services.streams
    async with server.peer() as peer:
        await peer.send(type="create", id=1, stream="a")
        await peer.receive("result")
        await peer.send(type="append", id=2, stream="a", messages=[{"text": "mine"}])
        await peer.receive("acks")
        await streams.delete(await streams.get(LOCAL, "a", may=Verb.READ))
        other = Principal(LOCAL.tenant, "somebody else")
        await streams.create(other, "a", NewStream())
        for _ in range(2):
            assert (await over_websocket(peer, "a", {"messages": [{"text": "x"}]}))["code"] == "not_found"
        assert (await streams.get(other, "a", may=Verb.READ)).head == 0


@pytest.mark.parametrize("speed", list(Speed))
async def test_appends_in_flight_reach_the_reborn_stream_in_order_and_its_viewers_live(speed: Speed) -> None:
    store = FaultyStore(limits=DEFAULT_LIMITS)
    async with running_server(speed, store=store) as server, server.peer() as peer, server.peer() as viewer:
        await peer.send(type="create", id=1, stream="a")
        await peer.receive("result")
        await peer.send(type="append", id=2, stream="a", messages=[{"text": "old"}])
        await peer.receive("acks")
        services = server.services
        known = await services.streams.get(LOCAL, "a", may=Verb.READ)
        reborn: list[WriteOp] = [
            DeleteStream(stream=known.id, epoch=known.epoch),
            CreateStream(principal=LOCAL, name="a", now_ms=services.clock.now_ms()),
        ]
        store.hold()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(services.log.write_all(reborn))
            async with asyncio.timeout(10):
                await store.waiting.wait()
            for number in range(3, 10):
                await peer.send(type="append", id=number, stream="a", messages=[{"text": str(number)}])
            async with asyncio.timeout(10):
                await (await peer.socket.ping())  # answered after what was sent before it was taken
            store.release()
        for number in range(10, 20):
            await peer.send(type="append", id=number, stream="a", messages=[{"text": str(number)}])
        await viewer.send(type="subscribe", id=1, stream="a")
        assert (await viewer.receive("subscribed"))["stream"]["epoch"] > known.epoch
        seen: list[str] = []
        while len(seen) < 17:
            frame = await viewer.receive("messages", "error")
            assert frame["type"] == "messages", frame
            seen += [message["text"] for message in frame["messages"]]
        assert seen == [str(number) for number in range(3, 20)]
        acks: list[dict[str, int]] = []
        while len(acks) < 17:
            acks += (await peer.receive("acks"))["acks"]
        assert [(ack["id"], ack["first"]) for ack in acks] == [(n, n - 2) for n in range(3, 20)]


async def test_a_viewer_of_the_reborn_stream_is_told_of_what_was_meant_for_the_old_one(server: Running) -> None:
    async with server.peer() as peer, server.peer() as viewer:
        await known_and_reborn(server, peer, "a")
        await viewer.send(type="subscribe", id=1, stream="a")
        await viewer.receive("subscribed")
        assert (await over_websocket(peer, "a", {"messages": [{"text": "new"}]}))["first"] == 1
        assert [message["text"] for message in (await viewer.receive("messages"))["messages"]] == ["new"]
