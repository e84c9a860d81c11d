"""Frames that never come to their end: what they hold is bounded over all connections, and in time."""

from __future__ import annotations

import json
import struct
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest
from websockets.protocol import State

from tests.integration.websocket.test_hostile import CONTINUATION, masked, until
from tests.support.speeds import Peer, Running, Speed, running_server
from unbroken.auth.access import Access
from unbroken.auth.stored import NewToken
from unbroken.identity import Principal
from unbroken.limits import DEFAULT_LIMITS

pytestmark = [pytest.mark.anyio, pytest.mark.scenario("SEC-003")]
OURS = pytest.mark.parametrize("speed", [Speed.STANDALONE, Speed.TAKEOVER])
"""Where the frames are read by ourselves; elsewhere a frame that does not end is silence."""
PART = b" " * 60_000
CREATE = json.dumps({"type": "create", "id": 1, "stream": "a"}).encode()


async def peer_of(server: Running, stack: AsyncExitStack, subject: str) -> Peer:
    made = await server.services.tokens.make(Principal("acme", subject), NewToken())
    headers = {"Authorization": f"Bearer {made.secret}"}
    peer = await stack.enter_async_context(server.peer(additional_headers=headers, ping_interval=None))
    await peer.receive("hello")
    return peer


def begin(peer: Peer, size: int = 1_000_000) -> None:
    """The beginning of a frame of `size` bytes: spaces, in front of the JSON object that is to come."""
    peer.socket.transport.write(b"\x81\xff" + struct.pack(">Q", size) + b"\0\0\0\0" + PART)


@OURS
@pytest.mark.parametrize("fragments", [False, True])
async def test_who_begins_too_many_frames_loses_a_connection_and_nobody_else_does(
    speed: Speed, fragments: bool
) -> None:
    limits = replace(DEFAULT_LIMITS, unfinished_frames_bytes_max=5 * len(PART) + 2 * len(CREATE))
    access = Access(token="only-for-this-test")
    async with running_server(speed, limits=limits, access=access) as server, AsyncExitStack() as stack:
        unfinished = server.services.connections.unfinished
        bob = await peer_of(server, stack, "bob")
        begin(bob, len(PART) + len(CREATE))
        peers = [await peer_of(server, stack, "alice") for _ in range(8)]
        for number, peer in enumerate(peers):
            if fragments:
                peer.socket.transport.write(masked(PART, fin=False))
            else:
                begin(peer)
            await until(lambda number=number: unfinished.bytes == min(number + 2, 5) * len(PART))  # type: ignore[misc]
        await until(lambda: sum(peer.socket.close_code is not None for peer in peers) == 4)
        assert {peer.socket.close_code for peer in peers} == {None, 1013}
        going = next(peer for peer in peers if peer.socket.close_code is None)
        for peer, rest in ((bob, CREATE), (going, masked(CREATE, CONTINUATION) if fragments else b"")):
            if rest:
                peer.socket.transport.write(rest)
                assert (await peer.receive("result"))["created"]
        for peer in peers:
            peer.socket.transport.abort()
        await until(lambda: len(unfinished) == 0)
        assert unfinished.bytes == 0


@OURS
async def test_a_frame_that_trickles_is_given_up_and_one_after_another_is_not(speed: Speed) -> None:
    limits = replace(DEFAULT_LIMITS, heartbeat_seconds=0.2)
    async with running_server(speed, limits=limits) as server, server.peer(ping_interval=None) as peer:
        unfinished = server.services.connections.unfinished
        now = 0.0
        unfinished._now = lambda: now
        begin(peer, len(PART) + len(CREATE))
        await until(lambda: unfinished.bytes == len(PART))
        now = limits.frame_seconds_max - 1
        unfinished.check()
        peer.socket.transport.write(CREATE)
        begin(peer)
        assert (await peer.receive("result"))["created"]
        await until(lambda: unfinished.bytes == len(PART))
        now += limits.frame_seconds_max - 1
        unfinished.check()
        assert len(unfinished) == 1
        peer.socket.transport.write(b" ")
        await until(lambda: unfinished.bytes == len(PART) + 1)
        now += 2
        assert await peer.closed() == 4408
        assert peer.socket.close_reason == "a frame took too long"
        assert unfinished.bytes == 0
        await server.until("connections", 0)


async def test_a_frame_that_trickles_is_silence_on_plain_asgi() -> None:
    limits = replace(DEFAULT_LIMITS, silence_seconds_max=1.0, heartbeat_seconds=0.4)
    async with running_server(Speed.ASGI, limits=limits) as server, server.peer(ping_interval=None) as peer:
        await peer.receive("hello")
        begin(peer)

        def trickled() -> bool:
            if peer.socket.protocol.state is State.OPEN:
                peer.socket.transport.write(b" ")
            return peer.socket.close_code is not None

        await until(trickled)
        assert peer.socket.close_code in (4408, 1006)
        await server.until("connections", 0)
