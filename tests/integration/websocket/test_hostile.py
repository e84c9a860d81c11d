"""Peers that mean harm, or take nothing: what they cost is bounded, and they are let go."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from tests.support.faulty import FaultyStore
from tests.support.speeds import LOCAL, Running, Speed, running_server
from unbroken.client import Client
from unbroken.limits import DEFAULT_LIMITS
from unbroken.messages import NewMessage
from unbroken.requests import NewStream
from unbroken.server import transport
from unbroken.server.transport import WebSocket

pytestmark = pytest.mark.anyio

TEXT, CONTINUATION, CLOSE, PING = 1, 0, 8, 9


def masked(payload: bytes, opcode: int = TEXT, *, fin: bool = True) -> bytes:
    """A frame of a client, with a mask of zeros."""
    head = bytes([(0x80 if fin else 0) | opcode])
    head += bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + struct.pack(">H", len(payload))
    return head + b"\0\0\0\0" + payload


def handshake(port: int) -> bytes:
    key = base64.b64encode(b"0123456789abcdef").decode()
    return (
        f"GET /v1/ws HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: unbroken.v1\r\n\r\n"
    ).encode()


class RawPeer:
    """A socket that has shaken hands and reads nothing more."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self._sock, data)


@asynccontextmanager
async def deaf_peer(server: Running) -> AsyncIterator[RawPeer]:
    loop = asyncio.get_running_loop()
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        await loop.sock_connect(sock, ("127.0.0.1", server.port))
        await loop.sock_sendall(sock, handshake(server.port))
        received = b""
        async with asyncio.timeout(10):
            while b"hello" not in received:
                received += await loop.sock_recv(sock, 300)
        yield RawPeer(sock)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0.02)


def waiting_bytes(server: Running) -> int:
    """What waits for the one peer, in whatever wire it has; 0 when it was let go."""
    for connection in server.services.connections:
        wire = connection._wire
        return int(getattr(wire, "waiting_bytes", None) or wire._out_bytes)  # type: ignore[attr-defined]
    return 0


@pytest.mark.parametrize("speed", list(Speed))
@pytest.mark.parametrize("what", ["ping", "cancel"])
async def test_answers_to_a_peer_that_reads_nothing_are_bounded(speed: Speed, what: str) -> None:
    frame = masked(b"x" * 125, PING) if what == "ping" else masked(b'{"type":"cancel","id":1,"stream":"nope"}')
    limits = replace(DEFAULT_LIMITS, control_frames_per_second_max=10**9)
    async with running_server(speed, limits=limits) as server, deaf_peer(server) as peer:
        most = 0
        try:
            async with asyncio.timeout(3):
                for _ in range(200):
                    await peer.send(frame * 500)
                    most = max(most, waiting_bytes(server))
        except TimeoutError:
            pass  # nothing more is read from it: just so
        assert most <= 4 * DEFAULT_LIMITS.connection_buffer_bytes_max


async def flood(socket: ClientConnection) -> None:
    for _ in range(1_000):
        await (await socket.ping())


@pytest.mark.scenario("SEC-003")
@pytest.mark.parametrize("speed", [Speed.STANDALONE, Speed.TAKEOVER])
async def test_a_flood_of_pings_ends_the_connection_and_a_few_do_not(speed: Speed) -> None:
    limits = replace(DEFAULT_LIMITS, control_frames_per_second_max=20)
    async with running_server(speed, limits=limits) as server, server.peer(ping_interval=None) as peer:
        for _ in range(10):
            await (await peer.socket.ping())
        with pytest.raises(ConnectionClosed) as closed:
            await flood(peer.socket)
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1013, "overloaded")


@pytest.mark.scenario("SEC-003")
@pytest.mark.parametrize("speed", [Speed.STANDALONE, Speed.TAKEOVER])
@pytest.mark.parametrize("part", [b"", b" "])
async def test_a_flood_of_small_fragments_ends_the_connection_and_a_few_do_not(speed: Speed, part: bytes) -> None:
    limits = replace(DEFAULT_LIMITS, control_frames_per_second_max=20)
    async with running_server(speed, limits=limits) as server, server.peer(ping_interval=None) as peer:
        begin, between = masked(b"", fin=False), masked(part, CONTINUATION, fin=False)
        end = masked(b'{"type":"create","id":1,"stream":"a"}', CONTINUATION)
        peer.socket.transport.write(begin + between * 10 + end)
        assert (await peer.receive("result"))["created"]
        peer.socket.transport.write(begin + between * 1_000)
        await peer.socket.wait_closed()
        assert (peer.socket.close_code, peer.socket.close_reason) == (1013, "overloaded")


@pytest.mark.scenario("SEC-003")
@pytest.mark.parametrize("frame", [masked(b"no JSON"), masked(b"", PING)])
async def test_what_comes_without_end_behind_our_close_is_not_looked_at(
    frame: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "CLOSE_SECONDS_MAX", 3_600.0)
    monkeypatch.setattr(transport, "LATE_FRAMES_MAX", late := 100)
    async with running_server(Speed.STANDALONE) as server, deaf_peer(server) as peer:
        held: set[object] = set(server.server.server_state.connections)
        (socket,) = (found for found in held if isinstance(found, WebSocket))
        await peer.send(masked(b"no JSON"))
        await until(lambda: socket.closing)
        await peer.send(frame * late)
        await until(lambda: socket._late == late)
        assert not socket._deaf
        await peer.send(frame)
        await until(lambda: socket._deaf)
        socket._conn = None  # type: ignore[assignment]
        await peer.send(frame * 10_000)


async def test_a_viewer_that_reads_nothing_and_says_goodbye_is_let_go() -> None:
    async with running_server(Speed.STANDALONE) as server, deaf_peer(server) as peer:
        stream = (await server.services.streams.create(LOCAL, "big", NewStream())).stream
        await server.services.streams.append(stream, [NewMessage(text="x" * 500_000) for _ in range(16)])
        await peer.send(masked(b'{"type":"subscribe","id":1,"stream":"big"}'))
        await until(lambda: waiting_bytes(server) > 0)
        await peer.send(masked(struct.pack(">H", 1000), CLOSE))
        await until(lambda: not server.server.server_state.connections)


async def test_a_stuck_sender_is_let_go_on_plain_asgi() -> None:
    limits = replace(DEFAULT_LIMITS, silence_seconds_max=1.0, heartbeat_seconds=0.4)
    async with running_server(Speed.ASGI, limits=limits) as server, deaf_peer(server) as peer:
        stream = (await server.services.streams.create(LOCAL, "big", NewStream())).stream
        await server.services.streams.append(stream, [NewMessage(text="x" * 500_000) for _ in range(16)])
        await peer.send(masked(b'{"type":"subscribe","id":1,"stream":"big"}'))
        await until(lambda: server.count("connections") == 0)
        await until(lambda: not server.server.server_state.tasks)


async def test_empty_fragments_cost_nothing() -> None:
    sockets: list[WebSocket] = []
    limits = replace(DEFAULT_LIMITS, control_frames_per_second_max=10**9)
    async with running_server(Speed.STANDALONE, limits=limits) as server, deaf_peer(server) as peer:
        held: set[object] = set(server.server.server_state.connections)
        sockets += [found for found in held if isinstance(found, WebSocket)]
        await peer.send(masked(b"", TEXT, fin=False))
        await peer.send(masked(b"", CONTINUATION, fin=False) * 10_000)
        await peer.send(masked(b'{"type":"create","id":1,"stream":"a"}', CONTINUATION, fin=False))
        await until(lambda: bool(sockets[0]._fragments))
        assert isinstance(sockets[0]._fragments, bytearray)
        assert len(sockets[0]._fragments) < 100


async def test_a_peer_that_resets_in_mid_handshake_leaves_nothing() -> None:
    async with running_server(Speed.STANDALONE) as server:
        sock = socket.create_connection(("127.0.0.1", server.port))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        check = server.services.connections.check_room

        def reset_between_reading_and_writing() -> None:
            sock.close()
            check()

        server.services.connections.check_room = reset_between_reading_and_writing  # type: ignore[method-assign]
        sock.sendall(handshake(server.port))
        await until(lambda: sock.fileno() == -1)
        await until(lambda: not server.server.server_state.connections)
        assert server.count("connections") == 0


async def test_frames_that_wait_for_the_store_are_bounded_in_bytes() -> None:
    store = FaultyStore(limits=DEFAULT_LIMITS)
    async with running_server(Speed.STANDALONE, store=store) as server, server.peer() as peer:
        await server.services.streams.create(LOCAL, "a", NewStream())
        await peer.receive("hello")
        (connection,) = server.services.connections
        store.hold()
        await peer.send(type="create", id=1, stream="b")
        frame = json.dumps({"type": "append", "id": 2, "stream": "a", "messages": [{"text": "x" * 990_000}] * 4})
        async with asyncio.TaskGroup() as tasks:
            flood = tasks.create_task(push(peer.socket.send, frame))
            await until(lambda: not connection.reading)
            held = connection._inbox.bytes
            await asyncio.sleep(0.2)
            assert connection._inbox.bytes <= held + 2 * len(frame)
            assert held <= DEFAULT_LIMITS.frame_bytes_max + 2 * len(frame)
            store.release()
            await flood
            acked = 0
            while acked < 12:
                acked += len((await peer.receive("acks"))["acks"])


async def push(send: Callable[[str], object], frame: str) -> None:
    for _ in range(12):
        await send(frame)  # type: ignore[misc]


async def test_viewers_get_a_commit_that_is_larger_than_a_frame_and_stay_connected() -> None:
    store = FaultyStore(limits=DEFAULT_LIMITS)
    async with running_server(Speed.STANDALONE, store=store) as server:
        stream = (await server.services.streams.create(LOCAL, "a", NewStream())).stream
        states: list[str] = []
        async with (
            Client(server.url, on_status=lambda event: states.append(event.status.value)) as client,
            Client(server.url) as other,
        ):
            follows = [client.follow("a"), other.follow("a")]
            for follow in follows:
                await follow.ready()
            store.hold()
            appends = [
                server.services.streams.append(stream, [NewMessage(text="x" * 1_000_000) for _ in range(6)])
                for _ in range(3)
            ]
            await store.waiting.wait()
            store.release()
            await asyncio.gather(*appends)
            async with asyncio.timeout(30):
                for follow in follows:
                    assert [(await anext(follow)).seq for _ in range(18)] == list(range(1, 19))
        assert "reconnecting" not in states


async def test_created_streams_do_not_pile_up_in_a_connection() -> None:
    limits = replace(DEFAULT_LIMITS, subscriptions_max=10)
    async with running_server(Speed.STANDALONE, limits=limits) as server, server.peer() as peer:
        for number in range(50):
            await peer.send(type="create", id=number, stream=f"s{number}")
            await peer.receive("result")
        (connection,) = server.services.connections
        assert len(connection._streams) <= 10
