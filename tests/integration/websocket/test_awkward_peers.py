"""Peers that are slow, rude or gone, and stores that answer nothing certain: what they find is in order all the same."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from tests.integration.websocket.test_hostile import handshake, masked
from tests.support.speeds import LOCAL, Running, Speed, running_server
from unbroken.errors import UnknownOutcomeError
from unbroken.identity import Verb
from unbroken.limits import DEFAULT_LIMITS
from unbroken.requests import NewStream
from unbroken.store.base import Append, WriteOp, WriteResult
from unbroken.store.memory import MemoryStore

pytestmark = pytest.mark.anyio

CEILING_SECONDS = 60.0
CLOSE, TEXT = 8, 1
OWN_WIRE = [Speed.TAKEOVER, Speed.STANDALONE]


def long_frame(payload: bytes) -> bytes:
    return bytes([0x80 | TEXT, 0xFF]) + struct.pack(">Q", len(payload)) + b"\0\0\0\0" + payload


@asynccontextmanager
async def shaken(server: Running) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A plain socket after its handshake and the server's hello."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(handshake(server.port))
    await reader.readuntil(b"append_messages_max")
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


@pytest.mark.parametrize("speed", OWN_WIRE)
async def test_a_peer_in_the_middle_of_a_long_frame_is_not_silent(speed: Speed) -> None:
    limits = replace(DEFAULT_LIMITS, silence_seconds_max=0.6, heartbeat_seconds=0.2)
    async with running_server(speed, limits=limits) as server:
        await server.services.streams.create(LOCAL, "a", NewStream())
        message = {"type": "append", "id": 1, "stream": "a", "messages": [{"text": "x" * 200_000}]}
        frame = long_frame(json.dumps(message).encode())
        async with asyncio.timeout(CEILING_SECONDS), shaken(server) as (reader, writer):
            for start in range(0, len(frame), len(frame) // 20):
                writer.write(frame[start : start + len(frame) // 20])
                await asyncio.sleep(0.1)
            await reader.readuntil(b'"acks"')
        assert (await server.services.streams.get(LOCAL, "a", may=Verb.READ)).head == 1


@pytest.mark.parametrize("speed", list(Speed))
async def test_an_invalid_frame_and_a_close_in_one_read_are_answered_with_a_close(speed: Speed) -> None:
    async with running_server(speed) as server, asyncio.timeout(CEILING_SECONDS), shaken(server) as (reader, writer):
        writer.write(masked(b"nonsense") + masked(struct.pack(">H", 1000), CLOSE))
        answer = b""
        while not re.search(rb"\x88.(\x03\xe8|\x11\x30)", answer, re.DOTALL):  # a close, with the peer's code or ours
            part = await reader.read(65536)
            assert part, f"the connection ended without a close: {answer!r}"
            answer += part


class UncertainStore(MemoryStore):
    """Says once, of appends that took effect, that nobody knows."""

    uncertain = False

    async def write(self, ops: Sequence[WriteOp]) -> list[WriteResult]:
        results = await super().write(ops)
        if self.uncertain and any(isinstance(op, Append) for op in ops):
            self.uncertain = False
            raise UnknownOutcomeError("the disk said nothing")
        return results


@pytest.mark.parametrize("reborn", [False, True])
async def test_a_viewer_gets_what_was_stored_although_its_producer_was_not_told(reborn: bool) -> None:
    store = UncertainStore(limits=DEFAULT_LIMITS)
    async with running_server(Speed.STANDALONE, store=store) as server, server.peer() as peer, server.peer() as viewer:
        streams = server.services.streams
        known = (await streams.create(LOCAL, "a", NewStream())).stream
        await peer.send(type="append", id=1, stream="a", messages=[{"text": "first"}])
        await peer.receive("acks")
        if reborn:
            await streams.delete(known)
            await streams.create(LOCAL, "a", NewStream())
        await viewer.send(type="subscribe", id=1, stream="a", after="now")
        await viewer.receive("subscribed")
        store.uncertain = True
        await peer.send(type="append", id=2, stream="a", messages=[{"text": "second"}])
        assert (await peer.receive("error"))["code"] == "unknown_outcome"
        found = await viewer.receive("messages")
        assert [message["text"] for message in found["messages"]] == ["second"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # uvloop closes a socket a turn later
@pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": True})])
async def test_peers_that_leave_while_answers_wait_cost_no_complaint(caplog: pytest.LogCaptureFixture) -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    async with running_server(Speed.STANDALONE) as server:
        await server.services.streams.create(LOCAL, "a", NewStream())
        message = {"type": "append", "id": 1, "stream": "a", "messages": [{"text": "x" * 2_000}]}
        appends = long_frame(json.dumps(message).encode()) * 30
        for number in range(60):
            async with shaken(server) as (_, writer):
                writer.write(masked(b'{"type":"subscribe","id":1,"stream":"a","after":"now"}') + appends)
                await asyncio.sleep(0.001 * (number % 7))
        await server.until("connections", 0)
    assert complaints == []
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
