"""`WebSocketConnectionManager` and its connections, over real sockets, at all three speeds."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from dataclasses import replace

import httpx2
import pytest
from websockets.exceptions import InvalidStatus

from tests.support.faulty import FaultyStore
from tests.support.speeds import LOCAL, Running, Speed, running_server
from unbroken.auth.access import Access
from unbroken.identity import Verb
from unbroken.limits import DEFAULT_LIMITS
from unbroken.messages import NewMessage, StreamState
from unbroken.requests import NewStream

pytestmark = pytest.mark.anyio


@pytest.fixture(params=list(Speed))
async def server(request: pytest.FixtureRequest) -> AsyncIterator[Running]:
    async with running_server(request.param) as running:
        yield running


async def create(server: Running, name: str, *messages: str) -> None:
    stream = (await server.services.streams.create(LOCAL, name, NewStream())).stream
    if messages:
        await server.services.streams.append_durably(stream, [NewMessage(text=text) for text in messages])


@pytest.mark.scenario("TC-UT-001a")
async def test_a_connection_is_shaken_hands_with_negotiated_registered_and_counted(server: Running) -> None:
    assert server.count("connections") == 0
    async with server.peer(subprotocols=["unbroken.v9", "unbroken.v1"]) as peer:
        hello = await peer.receive("hello")
        assert peer.socket.subprotocol == hello["protocol"] == "unbroken.v1"
        assert hello["heartbeat_seconds"] == DEFAULT_LIMITS.heartbeat_seconds
        assert server.count("connections") == 1
        assert b'unbroken_connections{face="websocket"} 1.0' in server.services.metrics.expose()
        async with server.peer() as other:
            assert (await other.receive("hello"))["connection"] != hello["connection"]
            assert server.count("connections") == 2
    await server.until("connections", 0)


@pytest.mark.scenario("TC-UT-001a")
async def test_no_version_in_common_is_a_clear_refusal_naming_both(server: Running) -> None:
    with pytest.raises(InvalidStatus) as caught:
        async with server.peer(subprotocols=["unbroken.v7"]):
            pass
    response = caught.value.response
    problem = json.loads(response.body)
    assert (response.status_code, problem["code"]) == (426, "version")
    assert "unbroken.v7" in problem["detail"]
    assert "unbroken.v1" in problem["detail"]
    assert server.count("connections") == 0


@pytest.mark.scenario("TC-UT-001a")
@pytest.mark.parametrize("speed", list(Speed))
async def test_the_handshake_wants_the_token_or_a_ticket_that_works_once(speed: Speed) -> None:
    async with running_server(speed, access=Access(token="s3cret")) as server:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic s3cret"}):
            with pytest.raises(InvalidStatus) as caught:
                async with server.peer(additional_headers=headers):
                    pass
            assert caught.value.response.status_code == 401
        async with server.peer(additional_headers={"Authorization": "Bearer s3cret"}) as peer:
            assert (await peer.receive())["type"] == "hello"
        async with httpx2.AsyncClient(base_url=server.url, headers={"Authorization": "Bearer s3cret"}) as http:
            ticket = (await http.post("/v1/tickets")).json()["ticket"]
        async with server.peer(subprotocols=["unbroken.v1", f"ticket.{ticket}"]) as peer:
            assert peer.socket.subprotocol == "unbroken.v1"
        with pytest.raises(InvalidStatus) as caught:
            async with server.peer(subprotocols=["unbroken.v1", f"ticket.{ticket}"]):
                pass
        assert caught.value.response.status_code == 401


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1"])
async def test_a_foreign_origin_is_refused(server: Running, origin: str) -> None:
    with pytest.raises(InvalidStatus) as caught:
        async with server.peer(origin=origin):
            pass
    assert caught.value.response.status_code == 403
    async with server.peer(origin=server.url) as peer:
        assert (await peer.receive())["type"] == "hello"


async def test_a_doubled_header_is_refused(server: Running) -> None:
    with pytest.raises(InvalidStatus) as caught:
        async with server.peer(additional_headers=[("Origin", server.url), ("Origin", server.url)]):
            pass
    assert caught.value.response.status_code == 400


@pytest.mark.parametrize("producer", [{"id": "", "epoch": 0}, {"id": "p", "epoch": -1}, {"id": "p" * 300, "epoch": 0}])
async def test_a_lease_for_nobody_is_refused(server: Running, producer: dict[str, object]) -> None:
    await create(server, "a")
    async with server.peer() as peer:
        await peer.send(type="lease", id=1, stream="a", producer=producer, seconds=5)
        assert (await peer.receive("error", "result"))["code"] == "invalid"


async def test_a_foreign_host_is_refused(server: Running) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    key = base64.b64encode(b"0123456789abcdef").decode()
    writer.write(
        f"GET /v1/ws HTTP/1.1\r\nHost: evil.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Protocol: unbroken.v1\r\n\r\n".encode()
    )
    async with asyncio.timeout(10):
        assert b" 403 " in await reader.readline()
    writer.close()


@pytest.mark.scenario("STRESS-002")
async def test_too_many_connections_are_refused_and_say_when_to_come_back() -> None:
    limits = replace(DEFAULT_LIMITS, connections_max=2)
    async with running_server(limits=limits) as server, server.peer() as one:
        await one.receive("hello")
        async with server.peer() as two:
            await two.receive("hello")
            with pytest.raises(InvalidStatus) as caught:
                async with server.peer():
                    pass
            assert caught.value.response.status_code == 429
            assert int(caught.value.response.headers["Retry-After"]) >= 1
        await server.until("connections", 1)
        async with server.peer() as three:
            await three.receive("hello")


async def test_messages_are_delivered_live_from_the_cursor_with_dense_seqs(server: Running) -> None:
    await create(server, "a/b", "one", "two")
    async with server.peer() as peer:
        await peer.send(type="subscribe", id=7, stream="a/b", after="1:1")
        subscribed = await peer.receive("subscribed", "error")
        assert (subscribed["id"], subscribed["cursor"]) == (7, "1:1")
        assert subscribed["stream"]["head"] == 2
        frame = await peer.receive("messages")
        assert (frame["first"], [m["text"] for m in frame["messages"]]) == (2, ["two"])
        await create_append(server, "a/b", "three", "four")
        frame = await peer.receive("messages")
        assert (frame["first"], [m["text"] for m in frame["messages"]]) == (3, ["three", "four"])


async def create_append(server: Running, name: str, *messages: str) -> None:
    stream = await server.services.streams.get(LOCAL, name, may=Verb.READ)
    await server.services.streams.append_durably(stream, [NewMessage(text=text) for text in messages])


@pytest.mark.parametrize(
    ("after", "first"), [("start", 1), ("last:2", 4), ("last:99", 1), ("1:0", 1), ("3", 4), ("1:4", 5)]
)
async def test_every_position_to_start_from(server: Running, after: str, first: int) -> None:
    await create(server, "a", *"12345")
    async with server.peer() as peer:
        await peer.send(type="subscribe", id=1, stream="a", after=after)
        assert (await peer.receive("messages"))["first"] == first


async def test_from_now_only_what_comes(server: Running) -> None:
    await create(server, "a", *"12345")
    async with server.peer() as peer:
        await peer.send(type="subscribe", id=1, stream="a", after="now")
        await peer.receive("subscribed")
        await create_append(server, "a", "6")
        assert (await peer.receive("messages"))["first"] == 6


@pytest.mark.parametrize(
    ("after", "code"),
    [("9:1", "epoch_mismatch"), ("1:6", "invalid"), ("1:0", "trimmed"), ("x", "invalid"), ("", "invalid")],
)
async def test_a_cursor_that_cannot_be_served_is_said(server: Running, after: str, code: str) -> None:
    await create(server, "a", *"12345")
    await server.services.streams.trim(await server.services.streams.get(LOCAL, "a", may=Verb.READ), 3)
    async with server.peer() as peer:
        await peer.send(type="subscribe", id=3, stream="a", after=after)
        error = await peer.receive("error", "subscribed")
        assert (error["type"], error["id"], error["code"]) == ("error", 3, code)
        assert error["cure"]


async def test_unknown_streams_look_like_none(server: Running) -> None:
    async with server.peer() as peer:
        await peer.send(type="subscribe", id=1, stream="nothing")
        assert (await peer.receive("error"))["code"] == "not_found"


async def test_producing_over_the_socket_creates_appends_acknowledges_and_ends(server: Running) -> None:
    async with server.peer() as peer, server.peer() as viewer:
        await peer.send(type="create", id=1, stream="a", kind="text", lease={"id": "p", "epoch": 1}, lease_seconds=5)
        result = await peer.receive("result")
        assert (result["created"], result["stream"]["state"], result["stream"]["producer"]) == (True, "running", "p")
        await viewer.send(type="subscribe", id=1, stream="a")
        await viewer.receive("subscribed")
        for seq in range(3):
            message = {"kind": "text", "text": f"m{seq}"}
            producer = {"id": "p", "epoch": 1, "seq": seq}
            await peer.send(type="append", id=10 + seq, stream="a", producer=producer, messages=[message])
        acks: list[dict[str, int]] = []
        while len(acks) < 3:
            acks += (await peer.receive("acks"))["acks"]
        assert [(ack["id"], ack["first"], ack["last"]) for ack in acks] == [(10, 1, 1), (11, 2, 2), (12, 3, 3)]
        await peer.send(
            type="append", id=20, stream="a", producer={"id": "p", "epoch": 1, "seq": 3}, messages=[{"text": "end"}],
            close={"state": "failed", "reason": {"exit_code": 3}},
        )  # fmt: skip
        assert (await peer.receive("acks"))["acks"][0]["last"] == 4
        seen: list[str] = []
        while (frame := await viewer.receive("messages", "state"))["type"] == "messages" or frame["stream"]["head"] < 4:
            seen += [message["text"] for message in frame.get("messages", [])]
        assert seen == ["m0", "m1", "m2", "end"]
        assert frame["stream"]["state"] == "failed"
        assert frame["stream"]["reason"] == {"exit_code": 3}
    await server.until("subscriptions", 0)


async def test_a_repeated_append_has_no_second_effect(server: Running) -> None:
    await create(server, "a")
    async with server.peer() as peer:
        for number in (1, 2):
            producer = {"id": "p", "epoch": 1, "seq": 0}
            await peer.send(type="append", id=number, stream="a", producer=producer, messages=[{"text": "x"}])
        acks: list[dict[str, object]] = []
        while len(acks) < 2:
            acks += (await peer.receive("acks"))["acks"]
        assert [(ack["first"], ack.get("duplicate", False)) for ack in acks] == [(1, False), (1, True)]
    assert (await server.services.streams.get(LOCAL, "a", may=Verb.READ)).head == 1


REFUSED = [
    ({"producer": {"id": "p", "epoch": 1, "seq": 5}}, "producer_gap"),
    ({"producer": {"id": "p", "epoch": 0, "seq": 0}}, "fenced"),
    ({"expected_head": 7}, "conflict"),
    ({"messages": []}, "invalid"),
    ({"messages": [{"text": "a", "json": 1}]}, "invalid"),
    ({"messages": [{"kind": "no spaces"}]}, "invalid"),
    ({"messages": [{"text": "x" * 1_100_000}]}, "too_large"),
    ({"close": {"state": "open"}}, "invalid"),
    ({"producer": {"id": "", "epoch": 0, "seq": 0}}, "invalid"),
    ({"producer": {"id": "p", "epoch": -1, "seq": 0}}, "invalid"),
    ({"close": {"state": "failed", "reason": []}}, "invalid"),
    ({"close": {"state": "failed", "reason": {"x": "y" * 5000}}}, "invalid"),
    ({"close": {"state": "failed", "reason": {"x": json.loads("[" * 300 + "]" * 300)}}}, "too_large"),
    ({"stream": "nothing"}, "not_found"),
]


@pytest.mark.parametrize(("change", "code"), REFUSED, ids=[f"{code}-{n}" for n, (_, code) in enumerate(REFUSED)])
async def test_a_refused_append_says_why_and_the_connection_goes_on(
    server: Running, change: dict[str, object], code: str
) -> None:
    await create(server, "a")
    async with server.peer() as peer:
        first = {"id": "p", "epoch": 1, "seq": 0}
        await peer.send(type="append", id=1, stream="a", producer=first, messages=[{"text": "x"}])
        await peer.receive("acks")
        await peer.send(**{"type": "append", "id": 2, "stream": "a", "messages": [{"text": "y"}], **change})
        error = await peer.receive("error", "acks")
        assert (error.get("id"), error.get("code")) == (2, code)
        await peer.send(type="append", id=3, stream="a", messages=[{"text": "z"}])
        assert (await peer.receive("acks"))["acks"][0] == {"id": 3, "first": 2, "last": 2}


@pytest.mark.parametrize(
    ("data", "close_code"),
    [
        ("nonsense", 4400),
        ("{}", 4400),
        ('{"type": "no such frame"}', 4400),
        ('{"type": "subscribe", "id": -1, "stream": "a"}', 4400),
        ('{"type": "subscribe", "stream": "a"}', 4400),
        ('{"type": "append", "id": 1, "stream": 5}', 4400),
        ('{"type": "hello"}', 4400),
        (b"\xff\xfe", 4400),
        ("[" * 100_000, 4400),
    ],
)
async def test_a_frame_that_is_not_valid_closes_with_its_reason(
    server: Running, data: str | bytes, close_code: int
) -> None:
    async with server.peer() as peer:
        await peer.receive("hello")
        await peer.socket.send(data)
        assert (await peer.receive("error"))["code"] == "protocol"
        assert await peer.closed() == close_code
    await server.until("connections", 0)


async def test_an_oversized_frame_closes_with_1009() -> None:
    limits = replace(DEFAULT_LIMITS, frame_bytes_max=10_000)
    for speed in Speed:
        async with running_server(speed, limits=limits) as server, server.peer() as peer:
            await peer.receive("hello")
            await peer.socket.send('{"type":"append","id":1,"stream":"a","messages":[{"text":"' + "x" * 20_000 + '"}]}')
            assert await peer.closed() == 1009


@pytest.mark.scenario("TC-UT-001c")
@pytest.mark.parametrize("how", ["close", "abort"])
async def test_everything_is_released_when_a_peer_goes(server: Running, how: str) -> None:
    await create(server, "a", "1")
    await create(server, "b")
    tasks_before = len(asyncio.all_tasks())
    for _ in range(5):
        async with server.peer() as peer:
            await peer.send(type="subscribe", id=1, stream="a")
            await peer.send(type="subscribe", id=2, stream="b")
            await peer.receive("messages")
            assert server.count("connections") == 1
            if how == "abort":
                peer.socket.transport.abort()
        await server.until("connections", 0)
        await server.until("subscriptions", 0)
        assert server.services.hub.streams == 0
    async with asyncio.timeout(20):
        while len(asyncio.all_tasks()) > tasks_before:
            await asyncio.sleep(0.01)


@pytest.mark.scenario("TC-UT-001c")
@pytest.mark.parametrize("speed", list(Speed))
async def test_a_half_open_peer_is_found_by_its_silence(speed: Speed) -> None:
    limits = replace(DEFAULT_LIMITS, heartbeat_seconds=0.05, silence_seconds_max=0.3)
    async with running_server(speed, limits=limits) as server:
        await create(server, "a")
        async with server.peer(ping_interval=None) as answering, server.peer(ping_interval=None) as silent:
            await silent.send(type="subscribe", id=1, stream="a")
            await silent.receive("subscribed")
            silent.socket.transport.pause_reading()  # neither reads nor says anything any more
            for _ in range(20):
                await answering.receive("heartbeat")
                await answering.send(type="heartbeat")
                if server.count("connections") == 1:
                    break
            await server.until("connections", 1)
            assert server.count("subscriptions") == 0
            silent.socket.transport.resume_reading()
        await server.until("connections", 0)


async def test_unsubscribing_pausing_and_resuming(server: Running) -> None:
    await create(server, "a", "1")
    async with server.peer() as peer:
        await peer.send(type="subscribe", id=1, stream="a")
        await peer.receive("messages")
        await peer.send(type="pause", stream="a")
        await peer.send(type="create", id=2, stream="sync")  # answered after the pause took effect
        await peer.receive("result")
        await create_append(server, "a", "2")
        await create_append(server, "a", "3")
        await peer.send(type="create", id=3, stream="sync")
        assert (await peer.receive("result", "messages"))["type"] == "result"
        await peer.send(type="resume", stream="a")
        seen: list[str] = []
        while len(seen) < 2:
            seen += [message["text"] for message in (await peer.receive("messages"))["messages"]]
        assert seen == ["2", "3"]
        await peer.send(type="unsubscribe", stream="a")
        await server.until("subscriptions", 0)


async def test_subscribing_again_replaces_the_subscription(server: Running) -> None:
    await create(server, "a", "1", "2")
    async with server.peer() as peer:
        for number in (1, 2):
            await peer.send(type="subscribe", id=number, stream="a")
            assert (await peer.receive("messages"))["first"] == 1
        assert server.count("subscriptions") == 1


async def test_a_cancel_reaches_the_producer_over_its_subscription(server: Running) -> None:
    async with server.peer() as producer, server.peer() as viewer:
        await producer.send(type="create", id=1, stream="a", lease={"id": "p", "epoch": 1})
        await producer.receive("result")
        await producer.send(type="subscribe", id=2, stream="a", after="now")
        await producer.receive("subscribed")
        await viewer.send(type="cancel", id=9, stream="a")
        assert (await viewer.receive("result"))["stream"]["cancel_requested"] is True
        state = (await producer.receive("state"))["stream"]
        assert (state["state"], state["cancel_requested"]) == ("running", True)


async def test_renewing_a_lease_is_no_news_to_viewers(server: Running) -> None:
    async with server.peer() as peer:
        await peer.send(type="create", id=1, stream="a", lease={"id": "p", "epoch": 1})
        await peer.receive("result")
        await peer.send(type="subscribe", id=2, stream="a")
        await peer.receive("subscribed")
        await peer.send(type="lease", id=3, stream="a", producer={"id": "p", "epoch": 1}, seconds=5)
        await peer.receive("result")
        await peer.send(type="create", id=4, stream="sync")
        assert (await peer.receive("result", "state"))["type"] == "result"


async def test_draining_sends_clients_away_to_come_back(server: Running) -> None:
    async with server.peer() as peer:
        await peer.receive("hello")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(server.engine.drain())
            goodbye = await peer.receive("goodbye")
            assert goodbye["reason"] == "drain"
            assert goodbye["retry_after_seconds"] <= 1
            assert await peer.closed() == 1012
    with pytest.raises(InvalidStatus) as caught:
        async with server.peer():
            pass
    assert caught.value.response.status_code == 503


async def test_appends_before_a_drain_are_durable(server: Running) -> None:
    await create(server, "a")
    async with server.peer() as peer:
        await peer.receive("hello")
        await peer.send(type="append", id=1, stream="a", messages=[{"text": "x"}])
        await peer.receive("acks")
        await server.engine.drain()
    assert (await server.services.streams.get(LOCAL, "a", may=Verb.READ)).head == 1


async def test_viewers_are_told_when_the_store_is_away_and_back(server: Running) -> None:
    async with server.peer() as peer:
        await peer.receive("hello")
        from unbroken.errors import StoreUnavailableError  # noqa: PLC0415

        server.services.connections.health_changed(StoreUnavailableError())
        assert (await peer.receive("notice"))["code"] == "degraded"
        server.services.connections.health_changed(None)
        assert (await peer.receive("notice"))["code"] == "recovered"


async def test_unknown_fields_are_ignored(server: Running) -> None:
    await create(server, "a", "1")
    async with server.peer() as peer:
        await peer.send(type="subscribe", id=1, stream="a", colour="green")
        assert (await peer.receive("subscribed"))["id"] == 1


async def test_fragmented_frames_are_put_together(server: Running) -> None:
    await create(server, "a", "1")
    async with server.peer() as peer:
        await peer.socket.send(['{"type": "subscribe",', ' "id": 5, ', '"stream": "a"}'])
        assert (await peer.receive("subscribed"))["id"] == 5


async def test_a_terminal_stream_is_told_after_its_messages_also_to_late_viewers(server: Running) -> None:
    await create(server, "a", "1", "2")
    stream = await server.services.streams.get(LOCAL, "a", may=Verb.READ)
    await server.services.states.close(stream, StreamState.COMPLETED)
    async with server.peer() as peer:
        await peer.send(type="subscribe", id=1, stream="a")
        kinds = [(await peer.receive())["type"] for _ in range(4)]
        assert kinds == ["hello", "subscribed", "messages", "state"]
        await server.until("subscriptions", 0)


async def test_messages_that_arrive_while_a_subscription_begins_come_after_its_answer() -> None:
    store = FaultyStore(limits=DEFAULT_LIMITS)
    async with running_server(Speed.STANDALONE, store=store) as server, server.peer() as peer:
        await create(server, "a", "1")
        store.hold_lookups()
        await peer.send(type="subscribe", id=1, stream="a", after="now")
        await asyncio.wait_for(store.looking.wait(), 10)
        await create_append(server, "a", "2")
        await create_append(server, "a", "3")
        store.release_lookups()
        assert (await peer.receive("subscribed", "messages"))["type"] == "subscribed"
        seen: list[str] = []
        while len(seen) < 2:
            frame = await peer.receive("messages")
            assert frame["first"] == len(seen) + 2
            seen += [message["text"] for message in frame["messages"]]
        assert seen == ["2", "3"]
