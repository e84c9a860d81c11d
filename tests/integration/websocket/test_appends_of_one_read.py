"""Appends that arrive in one read: gathered into few operations, yet each decided, acknowledged and refused for itself."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from websockets.frames import Frame, Opcode

from tests.support.speeds import LOCAL, Peer, Running, Speed, running_server
from unbroken.identity import Verb
from unbroken.limits import DEFAULT_LIMITS, Limits
from unbroken.messages import START, StreamState, decode_messages
from unbroken.requests import NewStream
from unbroken.store.base import Append, WriteOp, WriteResult
from unbroken.store.memory import MemoryStore

pytestmark = [pytest.mark.anyio, pytest.mark.scenario("STRESS-004")]

SMALL: Limits = replace(DEFAULT_LIMITS, append_messages_max=3, compact_chunk_bytes=300)


@pytest.fixture(params=list(Speed))
async def server(request: pytest.FixtureRequest) -> AsyncIterator[Running]:
    async with running_server(request.param) as running:
        for name in ("a", "b"):
            await running.services.streams.create(LOCAL, name, NewStream())
        yield running


def append(number: int, *texts: str, stream: str = "a", **fields: Any) -> dict[str, Any]:
    return {"type": "append", "id": number, "stream": stream, "messages": [{"text": text} for text in texts], **fields}


async def send_at_once(peer: Peer, *frames: dict[str, Any]) -> None:
    """All frames in one write, so that the server finds them in one read."""
    data = [Frame(Opcode.TEXT, json.dumps(frame).encode()).serialize(mask=True) for frame in frames]
    peer.socket.transport.write(b"".join(data))


async def known_to(peer: Peer, *streams: str) -> None:
    """Let the connection know the streams, so that what follows need not wait for the store."""
    for stream in streams:
        await peer.send(type="create", id=0, stream=stream)
        await peer.receive("result")


async def outcomes(peer: Peer, count: int) -> dict[int, Any]:
    """Acknowledgements (first, last) and codes of refusals, by the number of the append."""
    found: dict[int, Any] = {}
    while len(found) < count:
        frame = await peer.receive("acks", "error")
        if frame["type"] == "error":
            found[frame["id"]] = frame["code"]
        else:
            found |= {ack["id"]: (ack["first"], ack["last"]) for ack in frame["acks"]}
    return found


async def texts(server: Running, name: str) -> list[object]:
    stream = await server.services.streams.get(LOCAL, name, may=Verb.READ)
    found = await server.services.streams.read(stream, START)
    return [message.text for batch in found.batches for message in decode_messages(batch.body)]


async def test_each_append_is_acknowledged_with_its_own_place(server: Running) -> None:
    async with server.peer() as peer:
        await known_to(peer, "a", "b")
        await send_at_once(
            peer,
            append(1, "one"),
            append(2, "two", "three"),
            append(3, "other", stream="b"),
            append(4, "four"),
            append(5, "other two", stream="b"),
        )
        assert await outcomes(peer, 5) == {1: (1, 1), 2: (2, 3), 3: (1, 1), 4: (4, 4), 5: (2, 2)}
    assert await texts(server, "a") == ["one", "two", "three", "four"]
    assert await texts(server, "b") == ["other", "other two"]


async def test_one_that_is_refused_takes_no_other_along(server: Running) -> None:
    async with server.peer() as peer:
        await known_to(peer, "a")
        bad = append(2, "x") | {"messages": [{"kind": "not a kind", "text": "x"}]}
        await send_at_once(peer, append(1, "one"), bad, append(3), append(4, "two"))
        assert await outcomes(peer, 4) == {1: (1, 1), 2: "invalid", 3: "invalid", 4: (2, 2)}
    assert await texts(server, "a") == ["one", "two"]


async def test_an_append_that_asks_for_more_keeps_its_place_among_the_others(server: Running) -> None:
    producer = {"id": "p", "epoch": 0, "seq": 0}
    async with server.peer() as peer:
        await known_to(peer, "a")
        await send_at_once(
            peer,
            append(1, "one"),
            append(2, "two", producer=producer),
            append(3, "three"),
            append(4, "four", expected_head=3),
            append(5, "no", expected_head=3),
            append(6, "five"),
            append(7, "six", close={"state": "completed"}),
            append(8, "late"),
            append(9, "later"),
        )
        assert await outcomes(peer, 9) == {
            1: (1, 1),
            2: (2, 2),
            3: (3, 3),
            4: (4, 4),
            5: "conflict",
            6: (5, 5),
            7: (6, 6),
            8: "ended",
            9: "ended",
        }
    assert await texts(server, "a") == ["one", "two", "three", "four", "five", "six"]
    assert (await server.services.streams.get(LOCAL, "a", may=Verb.READ)).state is StreamState.COMPLETED


class RecordingStore(MemoryStore):
    """Remembers how many messages each append had that reached it."""

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits=limits)
        self.sizes: list[int] = []

    async def write(self, ops: Sequence[WriteOp]) -> list[WriteResult]:
        self.sizes += [len(op.messages) for op in ops if isinstance(op, Append)]
        return await super().write(ops)


@pytest.mark.parametrize("speed", [Speed.TAKEOVER, Speed.STANDALONE])
async def test_what_is_gathered_keeps_within_the_bounds_of_one_append(speed: Speed) -> None:
    store = RecordingStore(SMALL)
    async with running_server(speed, store=store, limits=SMALL) as server:
        await server.services.streams.create(LOCAL, "a", NewStream())
        async with server.peer() as peer:
            await known_to(peer, "a")
            await send_at_once(peer, *[append(number, f"{number}") for number in range(1, 8)])
            assert await outcomes(peer, 7) == {number: (number, number) for number in range(1, 8)}
            assert store.sizes == [3, 3, 1], "a read's appends are gathered up to the number of messages of one append"
            store.sizes.clear()
            await send_at_once(peer, *[append(number, "x" * 150) for number in range(8, 12)])
            assert await outcomes(peer, 4) == {number: (number, number) for number in range(8, 12)}
            assert store.sizes == [2, 2], "and up to its bytes"


async def test_a_peer_that_breaks_the_protocol_still_has_what_it_said_before(server: Running) -> None:
    async with server.peer() as peer:
        await known_to(peer, "a")
        await send_at_once(peer, append(1, "one"), {"type": "nonsense"}, append(2, "two"))
        assert await peer.closed() == 4400
    await server.until("connections", 0)
    async with server.peer() as peer:
        await known_to(peer, "a")
        await send_at_once(peer, append(3, "three"))
        assert await outcomes(peer, 1) == {3: (2, 2)}
    assert await texts(server, "a") == ["one", "three"]


async def test_a_full_log_lets_the_gathered_appends_wait_and_loses_none() -> None:
    limits = replace(DEFAULT_LIMITS, pending_bytes_max=2_000)
    async with running_server(Speed.STANDALONE, limits=limits) as server:
        await server.services.streams.create(LOCAL, "a", NewStream())
        async with server.peer() as peer:
            await known_to(peer, "a")
            await send_at_once(peer, *[append(number, "x" * 300) for number in range(1, 65)])
            assert await outcomes(peer, 64) == {number: (number, number) for number in range(1, 65)}
    assert limits.pending_bytes_max < 64 * 300
