"""SSE: dense, exact on reconnect, told of the end, and gone without a trace when the viewer goes."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.inprocess import CEILING_SECONDS, Carrier, Served, served, store_of
from unbroken.errors import CorruptError, StoreError, StoreUnavailableError
from unbroken.hub import Hub
from unbroken.identity import Principal, Verb
from unbroken.limits import DEFAULT_LIMITS
from unbroken.messages import Seq, StreamId
from unbroken.protocol.sse import ServerEvent, message_event
from unbroken.store.base import Read
from unbroken.store.memory import MemoryStore

pytestmark = pytest.mark.anyio

PATH = "/v1/messages/a"


@pytest.fixture(params=list(Carrier))
def carrier(request: pytest.FixtureRequest) -> Carrier:
    return Carrier(request.param)


@pytest.fixture(params=["memory", "sqlite"])
async def server(request: pytest.FixtureRequest, carrier: Carrier, tmp_path: Path) -> AsyncIterator[Served]:
    async with served(store=store_of(request.param, tmp_path), carrier=carrier) as made:
        await made.create("a")
        yield made


def texts(events: list[ServerEvent]) -> list[str]:
    return [json.loads(event.data)["text"] for event in events if event.event == "message"]


async def test_the_response_is_exactly_what_the_protocol_says(server: Served) -> None:
    await server.append("a", "one")
    await server.append("a", "two", close={"state": "completed"})
    async with server.events(PATH) as viewer:
        headers = viewer.response.headers
        assert headers["content-type"] == "text/event-stream"
        assert headers["cache-control"] == "no-cache, no-store, no-transform"
        assert headers["x-accel-buffering"] == "no"
        assert "content-length" not in headers
        events = await viewer.rest()
    epoch = (await server.answer(200, "GET", "/v1/streams/a"))["epoch"]
    assert viewer.raw.startswith(b'retry: 1000\n\nid: %d:1\nevent: message\ndata: {"seq":1,' % epoch)
    assert b"\r" not in viewer.raw
    assert [(event.event, event.id) for event in events] == [
        ("message", f"{epoch}:1"),
        ("message", f"{epoch}:2"),
        ("state", f"{epoch}:2"),
    ]
    assert json.loads(events[-1].data)["state"] == "completed"
    stored = (await server.answer(200, "GET", PATH))["messages"]
    assert [json.loads(event.data) for event in events[:2]] == [
        {"seq": seq, **message} for seq, message in enumerate(stored, 1)
    ]


async def test_a_viewer_who_comes_early_sees_everything_live(server: Served) -> None:
    async with server.events(f"{PATH}?live=sse") as viewer:
        for number in range(50):
            await server.append("a", f"m{number}")
        await server.answer(200, "POST", "/v1/close/a", json={"state": "failed", "reason": {"why": "x"}})
        events = await viewer.rest()
    assert texts(events) == [f"m{number}" for number in range(50)]
    states = [json.loads(event.data)["state"] for event in events if event.event == "state"]
    assert states == ["open", "failed"]
    assert events[-1].event == "state"


async def test_a_reconnect_with_the_last_event_id_goes_on_exactly(server: Served) -> None:
    for number in range(20):
        await server.append("a", f"{number}a", f"{number}b", f"{number}c")
    seen: list[str] = []
    last = ""
    for count in (1, 1, 7, 20):
        async with server.events(f"{PATH}?after=start", {"Last-Event-ID": last} if last else None) as viewer:
            events = await viewer.take(count)
            seen += texts(events)
            last = events[-1].id
    await server.answer(200, "POST", "/v1/close/a")
    async with server.events(PATH, {"Last-Event-ID": last}) as viewer:
        seen += texts(await viewer.rest())
    assert seen == [f"{number}{part}" for number in range(20) for part in "abc"]


async def test_at_the_head_of_an_ended_stream_there_is_nothing_to_come_back_for(server: Served) -> None:
    await server.append("a", "one", close={"state": "cancelled"})
    async with server.events(PATH) as viewer:
        last = (await viewer.rest())[-1].id
    for headers, query in (({"Last-Event-ID": last}, ""), ({}, "?after=now"), ({}, "?after=1")):
        response = await server.client.get(PATH + query, headers={"Accept": "text/event-stream", **headers})
        assert (response.status_code, response.content) == (204, b"")


async def test_a_changed_state_is_told_in_between(server: Served) -> None:
    async with server.events(PATH) as viewer:
        first = await viewer.next()
        assert first is not None
        assert (first.event, json.loads(first.data)["state"]) == ("state", "open")
        await server.answer(200, "POST", "/v1/pause/a")
        event = await viewer.next()
        assert event is not None
        assert (event.event, json.loads(event.data)["state"]) == ("state", "paused")


async def test_a_deleted_stream_ends_with_an_error(server: Served) -> None:
    await server.append("a", "one")
    async with server.events(PATH) as viewer:
        await viewer.take(1)
        await server.client.delete("/v1/streams/a")
        events = await viewer.rest()
    assert events[-1].event == "error"
    error = json.loads(events[-1].data)
    assert (error["code"], error["retryable"]) == ("not_found", False)
    assert set(error) == {"code", "message", "retryable", "cure", "detail"}
    await server.problem(404, "not_found", "GET", f"{PATH}?live=sse")


async def test_a_viewer_whose_next_message_is_trimmed_away_is_told(server: Served) -> None:
    await server.append("a", "one", "two", "three")
    services = server.services
    stream = await services.streams.get(Principal(), "a", may=Verb.READ)
    async with server.events(f"{PATH}?after=3") as viewer:
        await viewer.next()
        # what a viewer sees who is behind when the trim comes: its cursor is moved back by hand
        (subscription,) = next(iter(services.hub._live.values())).viewers
        subscription.cursor = type(stream.head)(0)
        await server.answer(200, "POST", "/v1/trim/a", json={"first": 3})
        events = await viewer.rest()
    assert events[-1].event == "error"
    assert json.loads(events[-1].data)["detail"]["first"] == 3


async def test_viewers_that_leave_leave_nothing_behind(server: Served) -> None:
    async with AsyncExitStack() as stack:
        viewers = [await stack.enter_async_context(server.events(PATH)) for _ in range(20)]
        for viewer in viewers:
            await viewer.next()
        await server.viewers(20)
        metrics = (await server.client.get("/metrics")).text
        assert 'unbroken_connections{face="sse"} 20.0' in metrics
    await server.viewers(0)
    async with asyncio.timeout(CEILING_SECONDS):
        while 'unbroken_connections{face="sse"} 0.0' not in (await server.client.get("/metrics")).text:
            await asyncio.sleep(0.005)
    await server.append("a", "still works")


async def test_a_batch_becomes_events_once_for_all_viewers(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def counting(epoch: int, seq: int, encoded: bytes) -> bytes:
        made.append(seq)
        return message_event(epoch, seq, encoded)

    monkeypatch.setattr("unbroken.protocol.sse.message_event", counting)
    async with AsyncExitStack() as stack:
        viewers = [await stack.enter_async_context(server.events(PATH)) for _ in range(10)]
        for viewer in viewers:
            await viewer.next()
        await server.append("a", "one", "two")
        for viewer in viewers:
            assert texts(await viewer.take(2)) == ["one", "two"]
    assert made == [1, 2]


async def test_head_gives_the_headers_alone(server: Served) -> None:
    response = await server.client.head(f"{PATH}?live=sse")
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["content-type"] == "text/event-stream"
    await server.viewers(0)


async def test_an_idle_response_beats_and_ends_in_time(carrier: Carrier) -> None:
    limits = replace(DEFAULT_LIMITS, heartbeat_seconds=0.02, sse_seconds_max=0.6)
    async with served(limits=limits, carrier=carrier) as server:
        await server.create("a")
        await server.append("a", "one")
        async with server.events(PATH) as viewer:
            events = await viewer.rest()
        assert texts(events) == ["one"]
        assert b": heartbeat\n\n" in viewer.raw
        assert viewer.raw.endswith(b": reconnect\n\n")
        await server.viewers(0)


async def test_a_busy_response_ends_in_time_too(carrier: Carrier) -> None:
    async with served(limits=replace(DEFAULT_LIMITS, sse_seconds_max=0.3), carrier=carrier) as server:
        await server.create("a")
        seen: list[str] = []
        sent = 0
        last: dict[str, str] = {}
        responses = 0
        while responses < 2 or len(seen) < 10:
            responses += 1
            async with server.events(PATH, last) as viewer:
                while (event := await viewer.next()) is not None:
                    if event.event == "message":
                        seen += texts([event])
                        last = {"Last-Event-ID": event.id}
                    sent += 1
                    await server.append("a", f"m{sent}")
        assert seen == [f"m{number}" for number in range(1, len(seen) + 1)]


async def test_draining_sends_viewers_away_with_a_last_comment(carrier: Carrier) -> None:
    async with served(carrier=carrier) as server:
        await server.create("a")
        await server.append("a", "one")
        async with server.events(PATH) as viewer:
            await viewer.take(1)
            server.services.draining = True
            await viewer.rest()
        assert viewer.raw.endswith(b": draining\n\n")
        async with server.events(PATH) as viewer:  # reading is allowed, and ends at once
            assert texts(await viewer.rest()) == ["one"]
        assert viewer.raw.endswith(b": draining\n\n")


@pytest.mark.scenario("STRESS-004")
async def test_a_viewer_that_reads_nothing_costs_bounded_memory_and_nobody_time(
    monkeypatch: pytest.MonkeyPatch, carrier: Carrier
) -> None:
    limits = replace(DEFAULT_LIMITS, read_bytes_max=64 * 1024, ring_bytes_max=64 * 1024)
    pages: list[int] = []
    pull = Hub.pull

    async def counting(self: Hub, *arguments: object) -> object:
        found = await pull(self, *arguments)  # type: ignore[arg-type]
        pages.append(sum(len(batch.body) for batch in found))
        return found

    monkeypatch.setattr(Hub, "pull", counting)
    async with served(limits=limits, carrier=carrier) as server:
        await server.create("a")
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1024)
        writer.write(f"GET {PATH}?live=sse HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode())
        await writer.drain()
        await reader.readuntil(b"retry: 1000")
        await server.viewers(1)
        for _ in range(600):  # 60 MB: far more than the buffers of the sockets hold
            await server.append("a", *["x" * 10_000] * 10)
        (subscription,) = next(iter(server.services.hub._live.values())).viewers
        assert subscription.cursor < 6_000, "the slow viewer was not slow"
        assert max(pages) <= 64 * 1024 + 200_000  # one page, or one commit
        async with server.events(f"{PATH}?after=last:1") as other:
            assert len(await other.take(1)) == 1
        writer.close()
        await server.viewers(0)


async def test_the_number_of_open_responses_is_bounded(carrier: Carrier) -> None:
    async with served(limits=replace(DEFAULT_LIMITS, connections_max=1), carrier=carrier) as server:
        await server.create("a")
        async with server.events(PATH) as viewer:
            await viewer.next()
            problem = await server.client.get(f"{PATH}?live=sse")
            assert (problem.status_code, problem.headers["retry-after"]) == (429, "5")
        await server.viewers(0)


class Failing(MemoryStore):
    """A store whose reads fail on command."""

    error: StoreError | None = None

    async def read(self, stream: StreamId, after: Seq, *, messages_max: int, bytes_max: int) -> Read:
        if self.error is not None:
            raise self.error
        return await super().read(stream, after, messages_max=messages_max, bytes_max=bytes_max)


async def test_a_store_that_is_away_ends_the_response_so_that_the_viewer_comes_back(carrier: Carrier) -> None:
    store = Failing(limits=DEFAULT_LIMITS)
    async with served(store=store, carrier=carrier) as server:
        await server.create("a")
        await server.append("a", "one", "two", close={"state": "completed"})
        async with server.events(f"{PATH}?after=1") as viewer:
            assert texts(await viewer.rest()) == ["two"]
        store.error = StoreUnavailableError("away")
        async with server.events(PATH) as viewer:
            assert await viewer.rest() == []
        assert viewer.raw.endswith(b": store_unavailable\n\n")
        store.error = CorruptError("damaged")
        async with server.events(PATH) as viewer:
            (event,) = await viewer.rest()
        assert (event.event, json.loads(event.data)["code"]) == ("error", "corrupt")
        store.error = None
        async with server.events(PATH) as viewer:
            assert texts(await viewer.rest()) == ["one", "two"]


class Readonly(MemoryStore):
    """Writes fail on demand, reading goes on."""

    error: StoreError | None = None

    async def probe(self) -> None:
        if self.error is not None:
            raise self.error


async def test_viewers_are_told_that_the_store_is_away_also_who_comes_meanwhile_and_that_it_is_back(
    carrier: Carrier,
) -> None:
    limits = replace(DEFAULT_LIMITS, probe_seconds=0.01)
    store = Readonly(limits=limits)
    async with served(store=store, carrier=carrier, limits=limits) as server:
        await server.create("a")
        async with server.events(PATH) as early:
            first = await early.next()
            assert first is not None
            assert first.event == "state"
            store.error = StoreUnavailableError("the disk is gone")
            server.services.log.look()
            told = await early.next()
            async with server.events(PATH) as late:
                both = [await late.next(), await late.next()]
            store.error = None
            back = await early.next()
            await server.append("a", "one")
            await early.take(1)
    assert told is not None
    assert back is not None
    assert (told.event, json.loads(told.data)) == ("notice", {"code": "degraded", "message": "the disk is gone"})
    assert (back.event, json.loads(back.data)) == ("notice", {"code": "recovered", "message": ""})
    assert [event.event for event in both if event is not None] == ["notice", "state"]


async def test_a_viewer_that_sends_a_body_without_end_is_let_go_without_a_complaint(
    carrier: Carrier, caplog: pytest.LogCaptureFixture
) -> None:
    limits = replace(DEFAULT_LIMITS, body_bytes_max=100_000, discard_bytes_max=200_000, discard_seconds_max=1.0)
    async with served(carrier=carrier, limits=limits) as server:
        await server.create("a")
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        head = f"GET /v1/messages/a?live=sse HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nTransfer-Encoding: chunked\r\n\r\n"
        writer.write(head.encode())
        with suppress(OSError):
            for _ in range(20):
                writer.write(b"4000\r\n" + b" " * 0x4000 + b"\r\n")
                await writer.drain()
                await asyncio.sleep(0.01)
        async with asyncio.timeout(20):
            await reader.readuntil(b"\r\n0\r\n\r\n")  # the response is complete
        writer.transport.abort()
        await server.viewers(0)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
