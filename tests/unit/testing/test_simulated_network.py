"""The network in memory: bytes in order, time by seed, and every fault that a path or a machine can have."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unbroken.testing import SimulatedNetwork, run_virtual

Body = Callable[[SimulatedNetwork, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1000):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    writer.close()


async def dial(name: str, port: int = 80) -> None:
    """Connect, and go."""
    _, writer = await asyncio.open_connection(name, port)
    writer.close()


def with_echo(body: Body, network: SimulatedNetwork | None = None) -> float:
    """Run `body` with a connection from `phone` to an echo on `server`; how long it took."""
    network = network or SimulatedNetwork(1)

    async def main() -> float:
        network.alias("phone", "server")
        await asyncio.start_server(echo, "server", 80)
        reader, writer = await asyncio.open_connection("phone", 80)
        await body(network, reader, writer)
        took = asyncio.get_running_loop().time()
        writer.transport.abort()
        network.kill("server")
        await asyncio.sleep(1)
        return took

    return run_virtual(main(), network)


@settings(max_examples=30, deadline=None)
@given(st.integers(), st.lists(st.binary(max_size=5_000), max_size=20), st.booleans(), st.sampled_from([0.0, 0.5]))
def test_bytes_arrive_in_order_each_once(seed: int, pieces: list[bytes], sliced: bool, jitter: float) -> None:
    async def body(_: SimulatedNetwork, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.writelines(pieces)
        writer.write_eof()
        assert await reader.read() == b"".join(pieces)

    with_echo(body, SimulatedNetwork(seed, jitter_seconds=jitter, sliced=sliced))


def test_the_same_seed_takes_the_same_time_and_another_one_does_not() -> None:
    async def body(_: SimulatedNetwork, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _number in range(5):
            writer.write(b"x")
            await reader.readexactly(1)

    times = [with_echo(body, SimulatedNetwork(seed, jitter_seconds=1.0)) for seed in (1, 1, 2)]
    assert times[0] == times[1] != times[2]


def test_what_one_path_draws_changes_nothing_for_another() -> None:
    def delays(*others: str) -> list[float]:
        network = SimulatedNetwork(7, jitter_seconds=1.0)
        for other in others:
            network.path(other).delay()
        return [network.path("phone").delay() for _ in range(5)]

    assert delays() == delays("laptop", "tablet")


def test_a_reader_that_rests_holds_the_writer_back() -> None:
    async def body(_: SimulatedNetwork, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        size = 2_000_000
        writer.write(bytes(size))
        await asyncio.sleep(60)
        waiting = writer.transport.get_write_buffer_size()
        assert 0 < waiting < size
        await asyncio.sleep(60)
        assert writer.transport.get_write_buffer_size() == waiting
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert len(await reader.readexactly(size)) == size

    with_echo(body)


def test_a_cut_is_told_to_both_ends() -> None:
    async def body(network: SimulatedNetwork, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert network.path("phone").cut() == 1
        with pytest.raises(ConnectionResetError):
            await reader.read()
        assert network.path("phone").cut() == 0

    with_echo(body)


def test_a_hole_swallows_and_what_it_swallowed_comes_after_it() -> None:
    async def body(network: SimulatedNetwork, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = network.path("phone")
        path.swallow()
        writer.write(b"one")
        await asyncio.sleep(30)
        writer.write(b"two")
        await asyncio.sleep(30)
        assert path.swallowed == 2
        path.heal()
        assert await reader.readexactly(6) == b"onetwo"

    assert with_echo(body) >= 60


def test_who_connects_in_a_hole_waits_for_its_end() -> None:
    async def body(network: SimulatedNetwork, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = network.path("phone")
        path.swallow()
        asyncio.get_running_loop().call_later(10, path.heal)
        await dial("phone")
        assert asyncio.get_running_loop().time() >= 10
        path.swallow()
        with pytest.raises(TimeoutError):
            await dial("phone")

    with_echo(body)


def test_who_aborts_in_a_hole_leaves_the_other_end_half_open_until_it_says_something() -> None:
    async def body(network: SimulatedNetwork, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = network.path("phone")
        path.swallow()
        writer.transport.abort()
        await asyncio.sleep(1)
        path.heal()
        await asyncio.sleep(100)
        (link,) = path.links
        assert not link.server.gone, "its reset was lost"
        link.server.write(b"still there?")
        await asyncio.sleep(1)
        assert link.server.gone

    with_echo(body)


def test_a_refusing_path_and_a_name_without_a_listener_refuse() -> None:
    async def body(network: SimulatedNetwork, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with pytest.raises(ConnectionRefusedError):
            await dial("nobody")
        with pytest.raises(ConnectionRefusedError):
            await dial("phone", 81)
        network.path("phone").refusing = True
        with pytest.raises(ConnectionRefusedError):
            await dial("phone")
        await dial("server")

    with_echo(body)


def test_a_killed_process_resets_its_connections() -> None:
    async def body(network: SimulatedNetwork, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert network.kill("server") == 1
        with pytest.raises(ConnectionResetError):
            await reader.read()
        with pytest.raises(ConnectionRefusedError):
            await dial("phone")

    with_echo(body)


def test_a_machine_without_power_says_nothing_until_it_is_back() -> None:
    async def body(network: SimulatedNetwork, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        network.kill("server", silent=True)
        writer.write(b"anybody?")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(50):
                await reader.read()
        network.on("server")
        with pytest.raises(ConnectionResetError):
            await reader.read()

    with_echo(body)


def test_a_close_comes_behind_everything_that_was_written() -> None:
    async def body(_: SimulatedNetwork, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(bytes(300_000))
        writer.write_eof()
        assert len(await reader.read()) == 300_000
        assert reader.at_eof()

    with_echo(body)
