"""What one owner may take holds on every face, across reconnects, tokens and forged headers, and harms nobody else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from websockets.exceptions import InvalidStatus
from websockets.frames import Frame, Opcode

from tests.integration.websocket.test_unfinished_frames import peer_of
from tests.support.inprocess import store_of
from tests.support.parts import ALICE as PARTS_ALICE
from tests.support.parts import running_parts, texts
from tests.support.speeds import Peer, Running, Speed, running_server
from unbroken.auth.access import Access
from unbroken.auth.stored import NewToken
from unbroken.client import Client
from unbroken.identity import Grant, Principal, Verb
from unbroken.limits import DEFAULT_LIMITS, Limits
from unbroken.messages import StreamId, StreamInfo
from unbroken.quotas import kept_bytes
from unbroken.requests import NewStream
from unbroken.store.base import Read, StreamingMessageRepository
from unbroken.store.memory import MemoryStore

pytestmark = [pytest.mark.anyio, pytest.mark.scenario("SEC-003")]
ALICE, BOB = Principal("acme", "alice"), Principal("acme", "bob")
NARROW = replace(
    DEFAULT_LIMITS,
    owner_connections_max=3,
    owner_subscriptions_max=2,
    owner_requests_per_second_max=50,
    owner_messages_per_second_max=20,
    owner_open_streams_max=3,
    owner_stored_bytes_max=20_000,
    append_wait_seconds_max=0.5,
    long_poll_seconds=20.0,
)
CEILING_SECONDS = 60.0
BURST = 60
"""Three seconds' worth of messages."""


@asynccontextmanager
async def server(
    speed: Speed = Speed.STANDALONE, *, store: StreamingMessageRepository | None = None, limits: Limits = NARROW
) -> AsyncIterator[Running]:
    """A server that lets nobody in without a credential."""
    access = Access(token="only-for-this-test")
    async with running_server(speed, limits=limits, access=access, store=store) as running:
        async with asyncio.timeout(CEILING_SECONDS):
            yield running


async def bearer(running: Running, principal: Principal) -> dict[str, str]:
    """The header with a fresh token of `principal`."""
    made = await running.services.tokens.make(principal, NewToken())
    return {"Authorization": f"Bearer {made.secret}"}


@asynccontextmanager
async def caller(running: Running, principal: Principal) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=running.url, headers=await bearer(running, principal)) as http:
        yield http


def exceeded(response: httpx2.Response, limit: str) -> None:
    assert response.status_code == 429, response.text
    problem = response.json()
    assert (problem["code"], problem["facts"]["limit"], problem["retryable"]) == ("quota_exceeded", limit, True)
    assert int(response.headers["retry-after"]) >= 1


@pytest.mark.parametrize("speed", list(Speed))
async def test_connections_of_all_faces_and_tokens_of_one_owner_are_counted_together(speed: Speed) -> None:
    async with server(speed) as running, AsyncExitStack() as stack:
        stream = (await running.services.streams.create(ALICE, "a", NewStream())).stream
        http = await stack.enter_async_context(caller(running, ALICE))
        first = AsyncExitStack()
        await first.enter_async_context(running.peer(additional_headers=await bearer(running, ALICE)))
        await stack.enter_async_context(running.peer(additional_headers=await bearer(running, ALICE)))
        events = http.stream("GET", "/v1/messages/a", params={"live": "sse"})
        await stack.enter_async_context(events)
        await running.until("subscriptions", 1)

        for number in range(5):
            headers = {**await bearer(running, ALICE), "X-Forwarded-For": f"192.0.2.{number}", "Forwarded": "for=x"}
            with pytest.raises(InvalidStatus) as refused:
                async with running.peer(additional_headers=headers):
                    pytest.fail("a fourth connection")
            assert refused.value.response.status_code == 429
            assert b"owner_connections_max" in (refused.value.response.body or b"")
        for path, more in (("/v1/messages/a", {}), ("/v1/stream/a", {"offset": "now"})):
            for live in ("sse", "long-poll"):
                exceeded(await http.get(path, params={"live": live, **more}), "owner_connections_max")
        async with running.peer(additional_headers=await bearer(running, BOB)) as other:
            await other.receive("hello")

        await first.aclose()
        await running.until("connections", 1)
        async with running.peer(additional_headers=await bearer(running, ALICE)) as peer:
            await peer.receive("hello")
        assert stream.owner == "alice"


async def test_subscriptions_are_counted_over_all_connections_and_given_back() -> None:
    async with server() as running, AsyncExitStack() as stack:
        for name in "abc":
            await running.services.streams.create(ALICE, name, NewStream())
        peers = [
            await stack.enter_async_context(running.peer(additional_headers=await bearer(running, ALICE)))
            for _ in range(2)
        ]
        for number, peer in enumerate(peers):
            await peer.send(type="subscribe", id=number, stream="ab"[number])
            await peer.receive("subscribed")
        await peers[0].send(type="subscribe", id=7, stream="a")  # again: no more than before
        await peers[0].receive("subscribed")
        await peers[1].send(type="subscribe", id=8, stream="c")
        refused = await peers[1].receive("error")
        assert (refused["code"], refused["detail"]["limit"]) == ("quota_exceeded", "owner_subscriptions_max")
        await peers[0].send(type="unsubscribe", stream="a")
        await running.until("subscriptions", 1)
        await peers[1].send(type="subscribe", id=9, stream="c")
        await peers[1].receive("subscribed")


async def test_requests_and_frames_in_one_second_are_bounded_whatever_the_token() -> None:
    async with server() as running, AsyncExitStack() as stack:
        callers = [await stack.enter_async_context(caller(running, ALICE)) for _ in range(3)]
        other = await stack.enter_async_context(caller(running, BOB))
        answers: list[httpx2.Response] = []
        while not any(answer.status_code == 429 for answer in answers):
            answers += await asyncio.gather(*[one.get("/v1/streams") for one in callers * 20])
        exceeded(next(answer for answer in answers if answer.status_code == 429), "owner_requests_per_second_max")
        assert (await other.get("/v1/streams")).status_code == 200


async def test_appends_over_the_rate_are_refused_over_http_and_those_of_others_are_not() -> None:
    async with server() as running, caller(running, ALICE) as alice, caller(running, BOB) as bob:
        body = {"messages": [{"text": "x"}] * 40}
        for http in (alice, bob):
            assert (await http.put("/v1/streams/a")).status_code == 201
        assert (await alice.post("/v1/messages/a", json=body)).status_code == 200
        for path, options in (
            ("/v1/messages/a", {"json": {"messages": [{"text": "y"}]}}),
            ("/v1/stream/a", {"content": '{"y": 1}', "headers": {"Content-Type": "application/json"}}),
        ):
            exceeded(await alice.post(path, **options), "owner_messages_per_second_max")
        assert (await bob.post("/v1/messages/a", json=body)).status_code == 200
        held = (await alice.get("/v1/streams/a")).json()
        assert held["head"] == 40


async def test_a_producer_over_the_rate_is_slowed_down_and_loses_nothing() -> None:
    async with server() as running:
        headers = await bearer(running, ALICE)
        token = headers["Authorization"].removeprefix("Bearer ")
        async with Client(running.url, token=token) as client:
            await client.create("a")
            async with client.producer("a", id="one") as producer:
                for number in range(BURST):
                    await producer.send(str(number))
        async with caller(running, ALICE) as alice:
            page = (await alice.get("/v1/messages/a")).json()
        assert [message["text"] for message in page["messages"]] == [str(number) for number in range(BURST)]


async def send_together(peer: Peer, count: int, text: str) -> list[dict[str, Any]]:
    """Send `count` appends to `a` in one write; what the server says to each, in its order."""
    frames = [{"type": "append", "id": number, "stream": "a", "messages": [{"text": text}]} for number in range(count)]
    peer.socket.transport.write(
        b"".join(Frame(Opcode.TEXT, json.dumps(frame).encode()).serialize(mask=True) for frame in frames)
    )
    said: list[dict[str, Any]] = []
    while sum(len(frame.get("acks", [frame])) for frame in said) < count:
        said.append(await peer.receive("acks", "error"))
    return said


async def test_appends_that_come_together_take_no_more_room_than_one_by_one() -> None:
    limits = replace(NARROW, owner_messages_per_second_max=0)
    async with server(limits=limits) as running, AsyncExitStack() as stack:
        alice = await peer_of(running, stack, "alice")
        await alice.send(type="create", id=1, stream="a")
        await alice.receive("result")
        said = await send_together(alice, 100, "x" * 1_000)
        acks = [ack for frame in said for ack in frame.get("acks", ())]
        errors = [frame["detail"]["limit"] for frame in said if frame["type"] == "error"]
        info = (await running.services.streams.get(ALICE, "a", may=Verb.READ)).size_bytes
        size = info // len(acks)
        assert info - size < limits.owner_stored_bytes_max <= info + kept_bytes("{}") + size
        assert errors == ["owner_stored_bytes_max"] * (100 - len(acks))


async def test_appends_that_come_together_are_no_more_in_a_second_than_one_by_one() -> None:
    async with server() as running, AsyncExitStack() as stack:
        alice = await peer_of(running, stack, "alice")
        await alice.send(type="create", id=1, stream="a")
        await alice.receive("result")
        said = await send_together(alice, BURST, "x")
        assert [ack["id"] for frame in said for ack in frame["acks"]] == list(range(BURST))
        assert max(len(frame["acks"]) for frame in said) <= NARROW.owner_messages_per_second_max


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_room_and_open_streams_are_bounded_across_restarts(kind: str, tmp_path: Path) -> None:
    store = store_of(kind, tmp_path, NARROW)

    async def status(http: httpx2.AsyncClient, name: str, **body: Any) -> httpx2.Response:
        return await http.put(f"/v1/streams/{name}", json=body)

    async with server(store=store) as running, caller(running, ALICE) as alice:
        for name in "abc":
            assert (await status(alice, name)).status_code == 201
        exceeded(await status(alice, "d"), "owner_open_streams_max")
        assert (await status(alice, "a")).status_code == 200  # it is there already
    if kind == "sqlite":
        store = store_of(kind, tmp_path, NARROW)
        async with server(store=store) as running, caller(running, ALICE) as alice, caller(running, BOB) as bob:
            exceeded(await status(alice, "d"), "owner_open_streams_max")
            assert (await status(bob, "d")).status_code == 201
            assert (await alice.post("/v1/close/a", json={"state": "completed"})).status_code == 200
            await running.services.quotas.refresh()
            assert (await status(alice, "d")).status_code == 201
            big = {"messages": [{"text": "x" * 25_000}]}
            assert (await alice.post("/v1/messages/b", json=big)).status_code == 200
            exceeded(await alice.post("/v1/messages/b", json=big), "owner_stored_bytes_max")
            assert (await alice.delete("/v1/streams/b")).status_code == 204
            await running.services.quotas.refresh()
            assert (await alice.post("/v1/messages/c", json=big)).status_code == 200


@pytest.mark.parametrize("face", ["http", "durable", "websocket", "websocket, at its epoch"])
async def test_the_first_append_after_a_restart_finds_no_room_where_there_is_none(face: str, tmp_path: Path) -> None:
    big = "x" * 25_000
    async with server(store=store_of("sqlite", tmp_path, NARROW)) as running, caller(running, ALICE) as alice:
        assert (await alice.put("/v1/streams/a")).status_code == 201
        assert (await alice.post("/v1/messages/a", json={"messages": [{"text": big}]})).status_code == 200
        epoch = (await running.services.streams.get(ALICE, "a", may=Verb.READ)).epoch
    async with server(store=store_of("sqlite", tmp_path, NARROW)) as running, caller(running, ALICE) as alice:
        if face == "http":
            exceeded(await alice.post("/v1/messages/a", json={"messages": [{"text": big}]}), "owner_stored_bytes_max")
        elif face == "durable":
            json_type = {"Content-Type": "application/json"}
            exceeded(await alice.post("/v1/stream/a", json=big, headers=json_type), "owner_stored_bytes_max")
        else:
            grants = (Grant("a", frozenset(Verb), epoch=epoch),) if "epoch" in face else None
            key = await running.services.tokens.make(ALICE, NewToken(grants=grants))
            async with running.peer(additional_headers={"Authorization": f"Bearer {key.secret}"}) as peer:
                if grants is not None:
                    await peer.send(type="create", id=1, stream="a")
                    await peer.receive("result")
                await peer.send(type="append", id=2, stream="a", messages=[{"text": big}])
                assert (await peer.receive("acks", "error"))["detail"]["limit"] == "owner_stored_bytes_max"


async def test_the_messages_that_a_stream_begins_with_are_charged_as_appends_are() -> None:
    limits = replace(NARROW, owner_bytes_per_second_max=1_000)
    headers = {"Content-Type": "application/octet-stream", "Stream-Closed": "true"}
    async with server(limits=limits) as running, caller(running, ALICE) as alice, caller(running, BOB) as bob:
        body: dict[str, Any] = {"content": b"x" * 8_000, "headers": headers}
        assert (await alice.put("/v1/stream/a", **body)).status_code == 201
        exceeded(await alice.put("/v1/stream/b", **body), "owner_bytes_per_second_max")
        exceeded(
            await alice.post("/v1/messages/c", json={"create": {}, "messages": [{"text": "x"}]}),
            "owner_bytes_per_second_max",
        )
        assert (await alice.put("/v1/stream/a", **body)).status_code == 200  # it is there already
        assert (await alice.put("/v1/streams/d")).status_code == 201  # it begins with none
        assert (await bob.put("/v1/stream/b", **body)).status_code == 201
    async with server() as running, caller(running, ALICE) as alice:  # twice 8,000 bytes are 21,000 in base64
        assert (await alice.put("/v1/stream/a", **body)).status_code == 201
        assert (await alice.put("/v1/stream/b", **body)).status_code == 201
        exceeded(await alice.put("/v1/stream/c", **body), "owner_stored_bytes_max")  # also between two looks


async def test_sessions_and_what_is_said_of_streams_take_of_what_may_be_stored() -> None:
    said = {"metadata": {"m": "y" * 5_000}}
    async with server() as running, caller(running, ALICE) as alice, caller(running, BOB) as bob:

        async def put(http: httpx2.AsyncClient, path: str, **body: Any) -> httpx2.Response:
            return await http.put(path, json=body)

        for _ in range(10):
            assert (await put(alice, "/v1/sessions/s0", **said)).status_code in {200, 201}  # it takes no more than once
        for number in range(1, 4):
            assert (await put(alice, f"/v1/sessions/s{number}", **said)).status_code == 201
        for _ in range(2):
            exceeded(await put(alice, "/v1/sessions/more", **said), "owner_stored_bytes_max")
            exceeded(await put(alice, "/v1/sessions/more"), "owner_stored_bytes_max")
            exceeded(await put(alice, "/v1/streams/more"), "owner_stored_bytes_max")
            assert (await put(alice, "/v1/sessions/s0", state="paused")).status_code == 200
            assert (await put(alice, "/v1/sessions/s0", metadata={})).status_code == 200
            assert (await put(bob, "/v1/sessions/s0", **said)).status_code in {200, 201}
            await running.services.quotas.refresh()
            assert (await put(alice, "/v1/sessions/s0", **said)).status_code == 200  # it was less meanwhile
        assert (await alice.delete("/v1/sessions/s1")).status_code == 204
        await running.services.quotas.refresh()
        for number in range(4, 8):
            await put(alice, f"/v1/streams/t{number}", **said)
            await alice.post(f"/v1/close/t{number}", json={"state": "completed"})
        exceeded(await put(alice, "/v1/streams/more"), "owner_stored_bytes_max")


SMALL_TENANT = replace(DEFAULT_LIMITS, tenant_open_streams_max=3, tenant_stored_bytes_max=20_000)


async def test_what_is_not_stored_takes_nothing_of_the_tenant_s() -> None:
    async with server(limits=SMALL_TENANT) as running, caller(running, ALICE) as alice, caller(running, BOB) as bob:
        assert [(await alice.put("/v1/streams/a")).status_code for _ in range(10)] == [201] + [200] * 9
        assert (await bob.put("/v1/streams/b")).status_code == 201
        producer = {"id": "one", "epoch": 1, "seq": 0}
        big = {"messages": [{"text": "x" * 9_000}]}
        for _ in range(4):
            answer = await alice.post("/v1/messages/a", json={**big, "producer": producer})
            assert answer.status_code == 200, answer.text
        conflict = await alice.post("/v1/messages/a", json={**big, "expected_head": 7})
        assert conflict.json()["code"] == "conflict"
        assert (await alice.post("/v1/close/a", json={"state": "completed"})).status_code == 200
        for _ in range(3):
            ended = await alice.post("/v1/messages/a", json=big)
            assert (ended.status_code, ended.json()["code"]) == (409, "ended")
        async with running.peer(additional_headers=await bearer(running, ALICE)) as peer:
            for number in range(3):
                await peer.send(type="append", id=number, stream="a", messages=[{"text": "x" * 9_000}])
                assert (await peer.receive("error"))["code"] == "ended"
        assert (await bob.post("/v1/messages/b", json={"messages": [{"text": "hello"}]})).status_code == 200


async def test_keys_that_the_operator_has_handed_on_write_within_bounds_and_the_operator_without() -> None:
    worker = NewToken(grants=(Grant("w/", frozenset({Verb.APPEND}), prefix=True),))
    many = {"messages": [{"text": "x"}] * 40}
    async with server() as running, AsyncExitStack() as stack:
        headers, own = [
            {"Authorization": f"Bearer {(await running.services.tokens.make(Principal(), new)).secret}"}
            for new in (worker, NewToken())
        ]
        key, operator = [
            await stack.enter_async_context(httpx2.AsyncClient(base_url=running.url, headers=each))
            for each in (headers, own)
        ]
        for name in "abc":
            assert (await key.put(f"/v1/streams/w/{name}")).status_code == 201
        exceeded(await key.put("/v1/streams/w/d"), "owner_open_streams_max")
        assert (await operator.put("/v1/streams/w/d")).status_code == 201
        async with running.peer(additional_headers=headers) as peer:
            await peer.send(type="append", id=0, stream="w/a", messages=[{"text": "x"}])
            await peer.receive("acks")
            for number in range(1, 5):  # these are gathered
                await peer.send(type="append", id=number, stream="w/a", messages=[{"text": "x"}] * 40)
            assert (await peer.receive("error"))["code"] == "quota_exceeded"
        exceeded(await key.post("/v1/messages/w/a", json=many), "owner_messages_per_second_max")
        options: dict[str, Any] = {"content": '{"y": 1}', "headers": {"Content-Type": "application/json"}}
        exceeded(await key.post("/v1/stream/w/a", **options), "owner_messages_per_second_max")
        for _ in range(3):
            assert (await operator.post("/v1/messages/w/a", json=many)).status_code == 200
        assert (await operator.post("/v1/stream/w/a", **options)).status_code == 204


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_however_many_chains_are_recomputed_others_come_between(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = replace(DEFAULT_LIMITS, read_messages_max=100, compact_chunks_min=1_000)
    async with running_parts(store_of(kind, tmp_path, limits), limits=limits) as parts:
        streams = [(await parts.streams.create(owner, "a", NewStream())).stream for owner in (PARTS_ALICE, BOB)]
        for number in range(40):
            for stream in streams:
                await parts.streams.append_durably(stream, texts(*[str(number)] * 25))
        reading: list[int] = []
        most, original = 0, parts.store.read

        async def read(*asked: Any, **more: Any) -> Read:
            nonlocal most
            reading.append(1)
            most = max(most, len(reading))
            try:
                return await original(*asked, **more)
            finally:
                reading.pop()

        monkeypatch.setattr(parts.store, "read", read)
        streams = [await parts.streams.get(owner, "a", may=Verb.READ) for owner in (PARTS_ALICE, BOB)]
        async with asyncio.timeout(CEILING_SECONDS), asyncio.TaskGroup() as tasks:
            verifying = [tasks.create_task(parts.streams.verify(stream)) for stream in streams * 15]
            await parts.streams.get(PARTS_ALICE, "a", may=Verb.READ)
            assert not any(task.done() for task in verifying), "who asks for little waits for none of them"
        assert {task.result().bad for task in verifying} == {None}
        assert most == 1, "they leave the store's other readers to others"


async def test_however_many_chains_one_owner_has_recomputed_another_waits_for_one_of_them_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits = replace(DEFAULT_LIMITS, read_messages_max=10, compact_chunks_min=1_000)
    async with running_parts(MemoryStore(limits), limits=limits) as parts:
        streams: dict[str, StreamInfo] = {}
        for owner in (ALICE, BOB):
            stream = (await parts.streams.create(owner, "a", NewStream())).stream
            for number in range(10):
                await parts.streams.append_durably(stream, texts(*[str(number)] * 10))
            streams[owner.subject] = await parts.streams.get(owner, "a", may=Verb.READ)
        order: list[str] = []
        original = parts.store.read

        async def read(stream: StreamId, *asked: Any, **more: Any) -> Read:
            order.append("bob" if stream == streams["bob"].id else "alice")
            return await original(stream, *asked, **more)

        monkeypatch.setattr(parts.store, "read", read)
        async with asyncio.timeout(CEILING_SECONDS), asyncio.TaskGroup() as tasks:
            for _ in range(20):
                tasks.create_task(parts.streams.verify(streams["alice"]))
            while len(order) < 3:
                await asyncio.sleep(0)
            verified = await parts.streams.verify(streams["bob"])
            assert order.count("alice") < 20 * 11, "they were done before: nothing is shown"
        assert verified.bad is None
    begun = len(order) - order[::-1].index("bob")
    between = "".join(name[0] for name in order[order.index("bob") : begun]).split("b")
    assert max(map(len, between)) <= 2, "one that had begun, and one that was before it"
