"""Slow viewers, bursts and flooding producers: bounded memory, and nobody else is held up."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from tests.support.speeds import LOCAL, Peer, Running, Speed, running_server
from unbroken.identity import Verb
from unbroken.limits import DEFAULT_LIMITS
from unbroken.messages import NewMessage, StreamInfo
from unbroken.requests import NewStream
from unbroken.server.connection import Connection

pytestmark = pytest.mark.anyio

MESSAGE_BYTES = 10_000


async def burst(server: Running, stream: StreamInfo, first: int, count: int) -> None:
    """Append `count` numbered messages as fast as the log takes them."""
    for n in range(first, first + count, 50):
        await server.services.streams.append_durably(
            stream,
            [NewMessage(text=f"{k}:" + "x" * MESSAGE_BYTES) for k in range(n, min(n + 50, first + count))],
        )


async def take(peer: Peer, first: int, last: int) -> int:
    """Receive messages `first` to `last`, dense and in order; how many frames they came in."""
    frames = 0
    while first <= last:
        frame = await peer.receive("messages", "error")
        assert frame["type"] == "messages", frame
        assert frame["first"] == first
        for message in frame["messages"]:
            assert message["text"].startswith(f"{first}:")
            first += 1
        frames += 1
    return frames


def waiting_bytes(connection: Connection) -> int:
    """Bytes that a connection holds for its peer, in whatever wire it has."""
    wire = connection._wire
    waiting = getattr(wire, "waiting_bytes", None)
    return int(waiting if waiting is not None else wire._out_bytes)  # type: ignore[attr-defined]


@pytest.mark.scenario("STRESS-004")
@pytest.mark.parametrize("speed", list(Speed))
async def test_one_fast_viewer_among_99_stalled_ones_gets_everything_in_order(speed: Speed) -> None:
    limits = replace(DEFAULT_LIMITS, ring_bytes_max=400_000, connection_buffer_bytes_max=100_000)
    async with running_server(speed, limits=limits) as server, AsyncExitStack() as stack:
        stream = (await server.services.streams.create(LOCAL, "a", NewStream())).stream
        stalled = [await stack.enter_async_context(server.peer(ping_interval=None)) for _ in range(99)]
        for peer in stalled:
            await peer.send(type="subscribe", id=1, stream="a")
            await peer.receive("subscribed")
            peer.socket.transport.pause_reading()
        fast = await stack.enter_async_context(server.peer())
        await fast.send(type="subscribe", id=1, stream="a")
        await fast.receive("subscribed")
        total = 1_000  # 10 MB, a hundred times what a connection may hold
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(burst(server, stream, 1, total))
            await take(fast, 1, total)
        largest = max(waiting_bytes(connection) for connection in server.services.connections)
        assert largest <= limits.connection_buffer_bytes_max + 2 * limits.ring_bytes_max
        for peer in stalled[:5]:  # and whoever wakes up misses nothing
            peer.socket.transport.resume_reading()
            await take(peer, 1, total)
        for peer in stalled:
            peer.socket.transport.abort()


@pytest.mark.scenario("TC-EDGE-010")
async def test_the_more_viewers_are_stalled_the_less_waits_for_each() -> None:
    limits = replace(DEFAULT_LIMITS, catch_up_bytes_max=120_000, catch_up_bytes_min=1_000)
    total, number = 1_500, 3  # more than the operating system keeps on the way
    async with running_server(Speed.STANDALONE, limits=limits) as server, AsyncExitStack() as stack:
        stream = (await server.services.streams.create(LOCAL, "a", NewStream())).stream
        await burst(server, stream, 1, total)
        stalled = [await stack.enter_async_context(server.peer(ping_interval=None)) for _ in range(number)]
        for peer in stalled:
            await peer.send(type="subscribe", id=1, stream="a")
            await peer.receive("subscribed")
            peer.socket.transport.pause_reading()
        await asyncio.wait_for(until_still(server), 30)
        waiting = [waiting_bytes(connection) for connection in server.services.connections]
        assert max(waiting) <= 2 * 120_000 // number + 2 * MESSAGE_BYTES
        assert server.services.hub.lagging == number
        for peer in stalled:
            peer.socket.transport.abort()


async def until_still(server: Running) -> None:
    """Nobody is sent anything any more."""
    before, same = -1, 0
    while same < 20:
        await asyncio.sleep(0.01)
        now = server.services.metrics.delivered_messages
        same = same + 1 if now == before else 0
        before = now


@pytest.mark.scenario("STRESS-004")
@pytest.mark.parametrize("speed", list(Speed))
async def test_a_burst_is_delivered_in_batches(speed: Speed) -> None:
    async with running_server(speed) as server, server.peer() as producer, server.peer() as viewer:
        await server.services.streams.create(LOCAL, "a", NewStream())
        await viewer.send(type="subscribe", id=1, stream="a")
        await viewer.receive("subscribed")
        total = 2_000
        for n in range(1, total + 1):
            await producer.socket.send(
                json.dumps({"type": "append", "id": n, "stream": "a", "messages": [{"text": f"{n}:"}]})
            )
        frames = await take(viewer, 1, total)
        assert frames <= total / 4
        acked: list[int] = []
        while len(acked) < total:
            acked += [ack["first"] for ack in (await producer.receive("acks"))["acks"]]
        assert acked == list(range(1, total + 1))


@pytest.mark.parametrize("speed", list(Speed))
async def test_a_producer_that_floods_is_slowed_and_loses_nothing(speed: Speed) -> None:
    limits = replace(DEFAULT_LIMITS, connection_pending_appends_max=50, pending_bytes_max=100_000)
    async with running_server(speed, limits=limits) as server, server.peer() as producer:
        await server.services.streams.create(LOCAL, "a", NewStream())
        total = 1_000
        peak = 0

        async def flood() -> None:
            for n in range(1, total + 1):
                message = {"text": f"{n}:" + "x" * 1_000}
                await producer.send(type="append", id=n, stream="a", messages=[message])

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(flood())
            acked = 0
            while acked < total:
                frame = await producer.receive("acks", "error")
                assert frame["type"] == "acks", frame
                acked += len(frame["acks"])
                peak = max(peak, server.services.log.pending_bytes)
        assert peak <= limits.pending_bytes_max + 20_000
        assert (await server.services.streams.get(LOCAL, "a", may=Verb.READ)).head == total


@pytest.mark.scenario("TC-EDGE-009")
async def test_100_streams_at_once_lose_nothing() -> None:
    streams, messages = 100, 50
    async with running_server(Speed.STANDALONE) as server, AsyncExitStack() as stack:
        for number in range(streams):
            await server.services.streams.create(LOCAL, f"s/{number}", NewStream())
        producers = [await stack.enter_async_context(server.peer()) for _ in range(10)]
        viewer = await stack.enter_async_context(server.peer())
        for number in range(streams):
            await viewer.send(type="subscribe", id=number, stream=f"s/{number}")

        async def produce(index: int) -> None:
            peer = producers[index]
            for n in range(messages):
                for number in range(index, streams, 10):
                    producer = {"id": f"p{index}", "epoch": 0, "seq": n}
                    message = {"text": f"{number}.{n}"}
                    await peer.send(type="append", id=n, stream=f"s/{number}", producer=producer, messages=[message])

        seen: dict[str, list[str]] = {f"s/{number}": [] for number in range(streams)}
        async with asyncio.TaskGroup() as tasks:
            for index in range(10):
                tasks.create_task(produce(index))
            while any(len(texts) < messages for texts in seen.values()):
                frame = await viewer.receive("messages", "error")
                assert frame["type"] == "messages", frame
                texts = seen[frame["stream"]]
                assert frame["first"] == len(texts) + 1
                texts += [message["text"] for message in frame["messages"]]
    for number in range(streams):
        assert seen[f"s/{number}"] == [f"{number}.{n}" for n in range(messages)]
