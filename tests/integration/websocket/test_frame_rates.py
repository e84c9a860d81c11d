"""Frames that cost their sender nothing: taken at its rate and in turn with everybody else's, and none of them lost."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from tests.integration.websocket.test_hostile import until
from tests.support.speeds import Peer, Running, Speed, running_server
from unbroken.auth.access import Access
from unbroken.auth.stored import NewToken
from unbroken.identity import Principal
from unbroken.limits import DEFAULT_LIMITS
from unbroken.server.connection import Connection
from unbroken.server.gate import FRAMES_PER_TURN
from unbroken.server.inbox import INBOX_MAX

pytestmark = [pytest.mark.anyio, pytest.mark.scenario("SEC-003"), pytest.mark.parametrize("speed", list(Speed))]
ACCESS = Access(token="only-for-this-test")
RATE = 10
LIMITS = replace(
    DEFAULT_LIMITS, owner_requests_per_second_max=RATE, append_wait_seconds_max=3_600.0, message_bytes_max=100
)
FLOODS: tuple[dict[str, object], ...] = (
    {"type": "unsubscribe", "stream": "a"},
    {"type": "pause", "stream": "a"},
    {"type": "heartbeat"},
    {"type": "cancel", "id": 1, "stream": "nope"},
    {"type": "append", "id": 1, "stream": "a", "messages": [{"text": "x" * 101}]},
)


async def bearer(server: Running, subject: str) -> dict[str, str]:
    made = await server.services.tokens.make(Principal("acme", subject), NewToken())
    return {"Authorization": f"Bearer {made.secret}"}


def stop_time(server: Running) -> None:
    """No bucket is filled from now on."""
    now = server.services.quotas.now()
    server.services.quotas.now = lambda: now


async def flood(peer: Peer, frame: dict[str, object]) -> None:
    text = json.dumps(frame)
    for _ in range(1_000):
        await peer.socket.send(text)


async def test_a_flood_of_any_frame_holds_up_its_sender_and_nobody_else(speed: Speed) -> None:
    async with running_server(speed, limits=LIMITS, access=ACCESS) as server, AsyncExitStack() as stack:
        stop_time(server)
        floods = await stack.enter_async_context(asyncio.TaskGroup())
        flooding: list[tuple[Peer, asyncio.Task[None]]] = []
        for number, frame in enumerate(FLOODS):
            headers = await bearer(server, f"flooder-{number}")
            peer = await stack.enter_async_context(server.peer(additional_headers=headers, ping_interval=None))
            await peer.send(type="create", id=0, stream="a")
            await peer.receive("result")
            flooding.append((peer, floods.create_task(flood(peer, frame))))
        connections = list(server.services.connections)
        await until(lambda: all(connection.held for connection in connections))
        async with server.peer(additional_headers=await bearer(server, "other")) as other:
            for number in range(RATE - 2):
                await other.send(type="create", id=number, stream=f"s{number}")
                await other.receive("result")
        assert all(connection.held and connection._busy for connection in connections)
        assert max(len(connection._inbox) for connection in connections) <= 4 * INBOX_MAX
        for peer, task in flooding:
            task.cancel()
            peer.socket.transport.abort()
        for connection in connections:
            connection.abort(1011, "enough")  # which reads nothing, and so would not see that the peer has left


async def test_frames_over_the_rate_wait_and_take_effect_in_their_order(speed: Speed) -> None:
    limits = replace(DEFAULT_LIMITS, owner_requests_per_second_max=200)
    async with running_server(speed, limits=limits, access=ACCESS) as server, AsyncExitStack() as stack:
        peer = await stack.enter_async_context(server.peer(additional_headers=await bearer(server, "alice")))
        await peer.send(type="create", id=0, stream="a")
        for number in range(1, 50):
            await peer.send(type="subscribe", id=number, stream="a")
            await peer.send(type="pause", stream="a")
            await peer.send(type="unsubscribe", stream="a")
        await peer.send(type="subscribe", id=50, stream="a")
        answers = [await peer.receive("result", "subscribed", "error") for _ in range(51)]
        assert [answer["id"] for answer in answers] == list(range(51))
        assert server.count("subscriptions") == 1


async def test_whoever_waits_too_long_is_refused_and_not_at_once(speed: Speed) -> None:
    limits = replace(LIMITS, append_wait_seconds_max=0.25)
    async with running_server(speed, limits=limits, access=ACCESS) as server, AsyncExitStack() as stack:
        stop_time(server)
        headers = await bearer(server, "alice")
        peers = [await stack.enter_async_context(server.peer(additional_headers=headers)) for _ in range(2)]
        for number in range(RATE):
            await peers[0].send(type="cancel", id=number, stream="nope")
        codes = [(await peers[0].receive("error"))["code"] for _ in range(RATE)]
        assert codes == ["not_found"] * RATE, "two had to wait"
        began = asyncio.get_running_loop().time()
        await peers[1].send(type="cancel", id=1, stream="nope")
        refused = await peers[1].receive("error")
        assert (refused["code"], refused["detail"]["limit"]) == ("quota_exceeded", "owner_requests_per_second_max")
        assert asyncio.get_running_loop().time() - began >= limits.append_wait_seconds_max


async def test_an_answer_to_each_heartbeat_is_free(speed: Speed) -> None:
    limits = replace(LIMITS, owner_requests_per_second_max=1, append_wait_seconds_max=0.0, heartbeat_seconds=0.05)
    async with running_server(speed, limits=limits, access=ACCESS) as server:
        stop_time(server)
        async with server.peer(additional_headers=await bearer(server, "alice")) as peer:
            for _ in range(5):
                frame = await peer.receive("heartbeat", "error")
                assert frame["type"] == "heartbeat", frame
                await peer.send(type="heartbeat")
            for _ in range(2):
                await peer.send(type="heartbeat")
            assert (await peer.receive("error"))["code"] == "quota_exceeded", "more than that is not"


async def test_an_operator_without_limits_cannot_keep_the_event_loop_from_others(
    speed: Speed, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, total = 0, 2_000
    steer = Connection._steer

    def counting(self: Connection, frame: object) -> None:
        nonlocal done
        done += 1
        steer(self, frame)  # type: ignore[arg-type]

    monkeypatch.setattr(Connection, "_steer", counting)
    async with running_server(speed) as server, server.peer() as peer:
        await peer.receive("hello")
        async with asyncio.TaskGroup() as tasks:
            most = 0
            sending = tasks.create_task(flood_at_once(peer, total))
            async with asyncio.timeout(60):
                while done < total:
                    before = done
                    await asyncio.sleep(0)
                    most = max(most, done - before)
            await sending
        assert FRAMES_PER_TURN <= most <= 4 * FRAMES_PER_TURN


async def flood_at_once(peer: Peer, total: int) -> None:
    text = json.dumps({"type": "unsubscribe", "stream": "a"})
    for _ in range(total):
        await peer.socket.send(text)
