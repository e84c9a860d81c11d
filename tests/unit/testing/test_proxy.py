"""The fault proxy does to real bytes what its toxics say, and counts it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest

from unbroken.testing import (
    Bandwidth,
    Direction,
    FaultProxy,
    HalfOpen,
    Latency,
    LimitData,
    ResetPeer,
    Slicer,
    SlowClose,
    Timeout,
)

pytestmark = [pytest.mark.anyio, pytest.mark.scenario("INFRA-003")]

CEILING = 60.0


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


@pytest.fixture
async def proxy(anyio_backend: str) -> AsyncIterator[FaultProxy]:
    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with FaultProxy("127.0.0.1", port, seed=5) as proxy, asyncio.timeout(CEILING):
            yield proxy


class Peer:
    """A client of the proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, proxy: FaultProxy) -> Peer:
        return cls(*await asyncio.open_connection("127.0.0.1", proxy.port))

    async def roundtrip(self, data: bytes) -> bytes:
        self.writer.write(data)
        await self.writer.drain()
        return await self.reader.readexactly(len(data))

    async def close(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except OSError:
            return


async def test_bytes_pass_unchanged_and_no_toxic_bites(proxy: FaultProxy) -> None:
    peer = await Peer.connect(proxy)
    data = bytes(range(256)) * 4096
    assert await peer.roundtrip(data) == data
    assert (proxy.accepted, proxy.connections, proxy.bites) == (1, 1, {})
    await peer.close()


async def test_latency_delays_every_byte_and_keeps_the_order(proxy: FaultProxy) -> None:
    latency = proxy.add(Latency(0.15, jitter_seconds=0.05), direction=Direction.DOWNSTREAM)
    peer = await Peer.connect(proxy)
    begun = asyncio.get_running_loop().time()
    data = b"".join(b"%06d" % number for number in range(20_000))
    assert await peer.roundtrip(data) == data
    assert asyncio.get_running_loop().time() - begun >= 0.1
    assert latency.bites >= 1
    await peer.close()


async def test_bandwidth_bounds_the_rate(proxy: FaultProxy) -> None:
    bandwidth = proxy.add(Bandwidth(200_000), direction=Direction.UPSTREAM)
    peer = await Peer.connect(proxy)
    begun = asyncio.get_running_loop().time()
    await peer.roundtrip(bytes(40_000))
    assert asyncio.get_running_loop().time() - begun >= 0.19
    assert bandwidth.bites
    await peer.close()


async def test_reset_after_so_many_bytes_cuts_exactly_there_and_once(proxy: FaultProxy) -> None:
    reset = proxy.add(ResetPeer(), direction=Direction.UPSTREAM, after_bytes=1000, times=1)
    peer = await Peer.connect(proxy)
    assert await peer.roundtrip(bytes(1000)) == bytes(1000)
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await peer.roundtrip(b"one more")
    assert reset.bites == 1
    await peer.close()
    second = await Peer.connect(proxy)
    assert await second.roundtrip(b"passes") == b"passes"
    await second.close()


async def test_a_reset_is_a_real_reset(proxy: FaultProxy) -> None:
    peer = await Peer.connect(proxy)
    await peer.roundtrip(b"there")
    assert proxy.reset() == 1
    with pytest.raises(ConnectionResetError):
        await peer.reader.read(1)
    assert proxy.bites["reset"] == 1
    await peer.close()


async def test_a_black_hole_tells_nobody_and_passes_everything_when_it_heals(proxy: FaultProxy) -> None:
    peer = await Peer.connect(proxy)
    await peer.roundtrip(b"before")
    hole = proxy.hold()
    peer.writer.write(b"during")
    await hole.bitten()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await peer.reader.read(1)
    hole.remove()
    assert await peer.reader.readexactly(6) == b"during"
    await peer.close()


async def test_a_timeout_with_seconds_ends_the_connection(proxy: FaultProxy) -> None:
    timeout = proxy.add(Timeout(0.05), direction=Direction.DOWNSTREAM)
    peer = await Peer.connect(proxy)
    peer.writer.write(b"x")
    with pytest.raises(ConnectionResetError):
        await peer.reader.read(1)
    assert timeout.bites == 1
    await peer.close()


async def test_half_open_loses_the_server_without_a_word(proxy: FaultProxy) -> None:
    half = proxy.add(HalfOpen(), direction=Direction.UPSTREAM, after_bytes=4, times=1)
    peer = await Peer.connect(proxy)
    assert await peer.roundtrip(b"four") == b"four"
    peer.writer.write(b"lost")
    await half.bitten()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await peer.reader.read(1)
    proxy.heal()
    with pytest.raises(ConnectionResetError):
        await peer.reader.read(1)
    await peer.close()


async def test_slicing_changes_no_byte(proxy: FaultProxy) -> None:
    slicer = proxy.add(Slicer(100, variation_bytes=50), direction=Direction.DOWNSTREAM)
    peer = await Peer.connect(proxy)
    data = bytes(range(256)) * 64
    assert await peer.roundtrip(data) == data
    assert slicer.bites
    await peer.close()


async def test_limit_data_closes_in_order_after_exactly_so_many_bytes(proxy: FaultProxy) -> None:
    limit = proxy.add(LimitData(500), direction=Direction.DOWNSTREAM)
    peer = await Peer.connect(proxy)
    peer.writer.write(bytes(800))
    assert len(await peer.reader.read(-1)) == 500
    assert limit.bites == 1
    await peer.close()


async def test_slow_close_tells_the_end_late(proxy: FaultProxy) -> None:
    slow = proxy.add(SlowClose(0.15), direction=Direction.UPSTREAM)
    peer = await Peer.connect(proxy)
    await peer.roundtrip(b"there")
    begun = asyncio.get_running_loop().time()
    peer.writer.write_eof()
    assert await peer.reader.read(-1) == b""
    assert asyncio.get_running_loop().time() - begun >= 0.14
    assert slow.bites == 1
    await peer.close()


async def test_down_refuses_and_up_listens_on_the_same_port(proxy: FaultProxy) -> None:
    port = proxy.port
    peer = await Peer.connect(proxy)
    await peer.roundtrip(b"there")
    assert await proxy.down() == 1
    with pytest.raises(ConnectionRefusedError):
        await Peer.connect(proxy)
    await proxy.up()
    assert proxy.port == port
    again = await Peer.connect(proxy)
    assert await again.roundtrip(b"back") == b"back"
    for each in (peer, again):
        await each.close()


async def test_a_toxic_waits_for_reported_messages(proxy: FaultProxy) -> None:
    reset = proxy.add(ResetPeer(), after_messages=2, times=1)
    peer = await Peer.connect(proxy)
    for _ in range(2):
        assert await peer.roundtrip(b"x") == b"x"
        proxy.message()
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await peer.roundtrip(b"y")
    assert reset.bites == 1
    await peer.close()


async def test_a_server_that_is_not_there_cuts_the_client(proxy: FaultProxy) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        proxy.target = ("127.0.0.1", nobody.getsockname()[1])
        peer = await Peer.connect(proxy)
        with contextlib.suppress(ConnectionError):
            assert await peer.reader.read(1) == b""
    assert proxy.refused == 1
    await peer.close()


async def test_an_error_of_the_test_passes_through_unchanged() -> None:
    with pytest.raises(ZeroDivisionError):
        async with FaultProxy("127.0.0.1", 1):
            raise ZeroDivisionError


async def test_a_reader_that_stops_is_held_back_in_bounded_memory(proxy: FaultProxy) -> None:
    peer = await Peer.connect(proxy)
    peer.writer.transport.set_write_buffer_limits(0)
    # What the kernel's buffers and the proxy's bound hold; without backpressure it would be everything.
    assert await flood(peer, 256 * 1024 * 1024) < 64 * 1024 * 1024
    peer.writer.transport.abort()


async def flood(peer: Peer, bytes_max: int) -> int:
    """Write without reading until nothing more is taken; gives how much was."""
    piece = bytes(65536)
    for sent in range(0, bytes_max, len(piece)):
        peer.writer.write(piece)
        try:
            async with asyncio.timeout(0.5):
                await peer.writer.drain()
        except TimeoutError:
            return sent
    return bytes_max
