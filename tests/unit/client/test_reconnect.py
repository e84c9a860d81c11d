"""A connection that fails is tried again with growing, jittered, capped waits, in virtual time and over real sockets."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.server import free_port
from unbroken.client import Client, ConnectionStatus, StatusEvent
from unbroken.client.delivery import Delivery
from unbroken.client.link import Link
from unbroken.client.outbox import Outbox
from unbroken.client.spill import SpillHeader
from unbroken.client.transport import Address, Connector
from unbroken.errors import DrainingError, ForbiddenOriginError, UnauthorizedError, UnbrokenError, VersionError
from unbroken.limits import Limits
from unbroken.testing import MockWebSocketServer, run_virtual

pytestmark = pytest.mark.scenario("TC-UT-001b")

LIMITS = Limits()


class FixedClock:
    """Wall time stands still; chance is seeded."""

    def __init__(self, seed: int = 11) -> None:
        self.random = random.Random(seed)

    def now_ms(self) -> int:
        return 1_764_000_000_000


class Recorder:
    """The waits between connections, and what else the client said of itself."""

    def __init__(self) -> None:
        self.events: list[StatusEvent] = []
        self._changed = asyncio.Event()

    def __call__(self, event: StatusEvent) -> None:
        self.events.append(event)
        self._changed.set()

    @property
    def waits(self) -> list[float]:
        return [event.retry_seconds for event in self.events if event.retry_seconds is not None]

    async def waited(self, times: int) -> list[float]:
        while len(self.waits) < times:
            self._changed.clear()
            await self._changed.wait()
        return self.waits


def bounds(number: int) -> tuple[float, float]:
    whole = min(LIMITS.backoff_seconds_min * 2**number, LIMITS.backoff_seconds_max)
    return whole / 2, whole


def assert_backoff(waits: list[float]) -> None:
    for number, wait in enumerate(waits):
        low, high = bounds(number)
        assert low <= wait <= high, f"failure {number} waited {wait}, not {low} to {high}"


@asynccontextmanager
async def tcp_server(handle: Callable[[asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[str]:
    """A TCP server that does something rude to every connection."""

    async def on_connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await handle(writer)

    async with await asyncio.start_server(on_connect, "127.0.0.1", 0) as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def reset(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def gibberish(writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 this is not HTTP\r\n\r\n")
    await writer.drain()
    writer.close()


async def waits_against(url: str, times: int) -> list[float]:
    recorder = Recorder()
    async with Client(url, clock=FixedClock(), on_status=recorder):
        return (await recorder.waited(times))[:times]


def test_refused_connections_wait_twice_as_long_each_up_to_the_cap_and_take_no_real_time() -> None:
    async def main() -> tuple[list[float], float]:
        waits = await waits_against(f"http://127.0.0.1:{free_port()}", 12)
        return waits, asyncio.get_running_loop().time()

    waits, virtual_seconds = run_virtual(main())
    assert_backoff(waits)
    assert waits[-1] >= LIMITS.backoff_seconds_max / 2
    assert len(set(waits)) == len(waits), "no jitter"
    assert virtual_seconds >= sum(waits[:-1])


def test_the_output_of_a_command_is_brought_back_in_time_for_its_lease(tmp_path: Path) -> None:
    lease_seconds = 1.5

    async def main() -> list[float]:
        recorder = Recorder()
        connector = Connector(Address.parse(f"http://127.0.0.1:{free_port()}"), LIMITS, FixedClock())
        link = Link(connector, recorder)
        header = SpillHeader(run="run-1", stream="run/x", server="http://server.example")
        outbox = Outbox(tmp_path / "run-1.spill", header, LIMITS, wake=lambda: None)
        delivery = Delivery(link, outbox, LIMITS, lease_seconds=lease_seconds, notice=lambda _: None)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in (delivery.run(), link.run())]
            waits = await recorder.waited(8)
            for task in tasks:
                task.cancel()
        return waits

    waits = run_virtual(main())
    assert max(waits) <= lease_seconds / 3
    assert len(set(waits)) == len(waits), "no jitter"


def test_another_seed_waits_differently() -> None:
    async def main(seed: int) -> list[float]:
        recorder = Recorder()
        async with Client(f"http://127.0.0.1:{free_port()}", clock=FixedClock(seed), on_status=recorder):
            return await recorder.waited(4)

    assert run_virtual(main(1)) == run_virtual(main(1)) != run_virtual(main(2))


@pytest.mark.parametrize("rude", [reset, gibberish])
def test_a_connection_broken_in_the_handshake_is_tried_again(
    rude: Callable[[asyncio.StreamWriter], Awaitable[None]],
) -> None:
    async def main() -> list[float]:
        async with tcp_server(rude) as address:
            return await waits_against(f"http://{address}", 6)

    assert_backoff(run_virtual(main()))


def test_a_failed_tls_handshake_is_tried_again() -> None:
    async def main() -> list[float]:
        recorder = Recorder()
        async with (
            tcp_server(gibberish) as address,
            Client(f"https://{address}", clock=FixedClock(), on_status=recorder),
        ):
            await recorder.waited(6)
        assert any(isinstance(event.error.__cause__, ssl.SSLError) for event in recorder.events if event.error)
        return recorder.waits

    assert_backoff(run_virtual(main()))


def test_a_server_that_never_answers_the_handshake_is_given_up_in_bounded_time() -> None:
    silent = asyncio.Event()

    async def never(writer: asyncio.StreamWriter) -> None:
        await silent.wait()
        writer.close()

    async def main() -> tuple[list[float], float]:
        async with tcp_server(never) as address:
            waits = await waits_against(f"http://{address}", 2)
            now = asyncio.get_running_loop().time()
            silent.set()
            return waits, now

    waits, now = run_virtual(main())
    assert_backoff(waits)
    assert 2 * LIMITS.handshake_seconds_max <= now < 3 * LIMITS.handshake_seconds_max


@pytest.mark.parametrize("said", ["7", "Mon, 24 Nov 2025 16:00:07 GMT"])
def test_retry_after_is_waited_for_at_least_once_and_then_the_backoff_goes_on(said: str) -> None:
    async def main() -> list[float]:
        async with MockWebSocketServer() as server:
            server.refuse(503, headers={"Retry-After": said})
            server.refuse(503)
            recorder = Recorder()
            async with Client(server.url, clock=FixedClock(), on_status=recorder) as client:
                await client.wait_status(ConnectionStatus.LIVE)
            return recorder.waits

    first, second = run_virtual(main())
    assert first == pytest.approx(7.0)
    assert bounds(1)[0] <= second <= bounds(1)[1]


def test_an_absurd_retry_after_is_capped() -> None:
    async def main() -> list[float]:
        async with MockWebSocketServer() as server:
            server.refuse(429, headers={"Retry-After": "1e18"})
            recorder = Recorder()
            async with Client(server.url, on_status=recorder):
                return await recorder.waited(1)

    assert run_virtual(main()) == [LIMITS.retry_after_seconds_max]


def test_the_count_starts_again_after_a_stable_period_only() -> None:
    async def main() -> list[float]:
        recorder = Recorder()
        async with MockWebSocketServer() as server:
            for _ in range(5):
                server.refuse(500)
            async with Client(server.url, clock=FixedClock(), on_status=recorder) as client:
                await client.wait_status(ConnectionStatus.LIVE)
                await asyncio.sleep(LIMITS.backoff_reset_seconds - 1)
                server.abort()
                await recorder.waited(6)
                await client.wait_status(ConnectionStatus.LIVE)
                await asyncio.sleep(LIMITS.backoff_reset_seconds)
                server.abort()
                return await recorder.waited(7)

    *early, unstable, stable = run_virtual(main())
    assert_backoff([*early, unstable])
    assert bounds(0)[0] <= stable <= bounds(0)[1]


@pytest.mark.parametrize(
    ("status", "kind"), [(401, UnauthorizedError), (403, ForbiddenOriginError), (426, VersionError)]
)
def test_a_refusal_that_would_only_repeat_is_told_and_not_repeated(status: int, kind: type[UnbrokenError]) -> None:
    async def main() -> None:
        async with MockWebSocketServer() as server, Client(server.url) as client:
            server.write("a", "one")
            server.refuse(status)
            with pytest.raises(kind):
                await client.append("a", "x")
            assert client.status is ConnectionStatus.REFUSED
            with pytest.raises(kind):
                async for _ in client.follow("a"):
                    pass
            await asyncio.sleep(3600)
            assert (server.refused, server.accepted) == (1, 0)
            client.reconnect()
            assert (await client.append("a", "two")).first == 2

    run_virtual(main())


def test_a_server_of_another_version_is_refused_with_both_versions_named() -> None:
    async def main() -> UnbrokenError:
        async with MockWebSocketServer(protocols=("unbroken.v9",)) as server, Client(server.url) as client:
            with pytest.raises(VersionError) as caught:
                await client.create("a")
            return caught.value

    error = run_virtual(main())
    assert "unbroken.v1" in error.message
    assert "unbroken.v9" in error.message


def test_silence_is_noticed_and_the_stream_goes_on_over_a_new_connection() -> None:
    async def main() -> tuple[list[str | None], float]:
        async with MockWebSocketServer() as server, Client(server.url) as client:
            server.write("a", "one")
            follow = client.follow("a")
            got = [(await anext(follow)).text]
            server.connections[0].freeze()
            begun = asyncio.get_running_loop().time()
            server.write("a", "two", close="completed")
            got += [message.text async for message in follow]
            return got, asyncio.get_running_loop().time() - begun

    got, seconds = run_virtual(main())
    assert got == ["one", "two"]
    assert LIMITS.silence_seconds_max <= seconds <= LIMITS.silence_seconds_max + 2


def test_heartbeats_keep_an_idle_connection_for_an_hour() -> None:
    async def main() -> int:
        async with MockWebSocketServer() as server, Client(server.url) as client:
            await client.wait_status(ConnectionStatus.LIVE)
            await asyncio.sleep(3600)
            return server.accepted

    assert run_virtual(main()) == 1


def test_leaving_while_waiting_fails_what_is_unanswered() -> None:
    async def expect_draining(client: Client) -> None:
        with pytest.raises(DrainingError):
            await client.append("a", "x")

    async def alone() -> None:
        client = Client(f"http://127.0.0.1:{free_port()}")
        await client.__aenter__()
        async with asyncio.TaskGroup() as group:
            append = group.create_task(expect_draining(client))
            await client.wait_status(ConnectionStatus.RECONNECTING)
            await client.__aexit__(None, None, None)
            await append

    run_virtual(alone())
