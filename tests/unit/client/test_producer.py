"""Appends take effect once, in order, under backpressure, and the producer learns what concerns it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from unbroken.client import Appended, Client, Producer
from unbroken.client.values import Json, append_bytes_max
from unbroken.errors import (
    ConflictError,
    EndedError,
    FencedError,
    InvalidError,
    NotFoundError,
    OverloadedError,
    TooLargeError,
    UnauthorizedError,
    UnbrokenError,
)
from unbroken.limits import Limits
from unbroken.messages import NewMessage
from unbroken.protocol.frames import Ack, Acks, AppendFrame, ErrorFrame, Heartbeat, LeaseFrame, Unsubscribe
from unbroken.testing import MockConnection, MockWebSocketServer

pytestmark = [pytest.mark.anyio, pytest.mark.scenario("INFRA-001")]

CEILING = 60.0
LIMITS = Limits(backoff_seconds_min=0.01, backoff_seconds_max=0.05)


@pytest.fixture
async def server(anyio_backend: str) -> AsyncIterator[MockWebSocketServer]:
    async with MockWebSocketServer() as server, asyncio.timeout(CEILING):
        yield server


@pytest.fixture
async def client(server: MockWebSocketServer) -> AsyncIterator[Client]:
    async with Client(server.url, limits=LIMITS) as client:
        await client.create("a")
        yield client


def texts(server: MockWebSocketServer, stream: str = "a") -> list[object]:
    return [message.text for message in server.log.streams[stream].messages]


async def test_an_append_gives_the_places_of_its_messages(client: Client, server: MockWebSocketServer) -> None:
    assert await client.append("a", "one") == Appended(1, 1)
    assert await client.append("a", ["two", {"n": 3}, b"\x00four", NewMessage(kind="k", text="five")]) == Appended(2, 5)
    assert [message.kind for message in server.log.streams["a"].messages] == ["message"] * 4 + ["k"]


async def test_an_append_whose_answer_was_lost_takes_effect_once(client: Client, server: MockWebSocketServer) -> None:
    await client.append("a", "before")
    connection = server.connections[-1]
    connection.silent = True  # stored, but the acknowledgement never leaves
    append = asyncio.ensure_future(client.append("a", "once"))  # noqa: TID251 - awaited below
    while server.log.streams["a"].head < 2:
        await asyncio.sleep(0.005)
    server.abort()
    assert await append == Appended(2, 2, duplicate=True)
    assert texts(server) == ["before", "once"]


async def test_concurrent_appends_are_each_stored_once(client: Client, server: MockWebSocketServer) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(client.append("a", f"m{number}")) for number in range(200)]
        while server.log.streams["a"].head < 20:
            await asyncio.sleep(0)
        server.abort()
    assert sorted(task.result().first for task in tasks) == list(range(1, 201))
    assert sorted(map(str, texts(server))) == sorted(f"m{number}" for number in range(200))


async def test_a_refused_append_leaves_no_gap_for_the_next(client: Client, server: MockWebSocketServer) -> None:
    await client.append("a", "one")
    with pytest.raises(ConflictError) as caught:
        await client.append("a", "two", expected_head=7)
    assert caught.value.detail == {"head": 1}
    assert (await client.append("a", "two", expected_head=1)).first == 2


async def test_a_cancelled_append_does_not_block_the_next(client: Client, server: MockWebSocketServer) -> None:
    server.connections[-1].silent = True
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await client.append("a", "unknown")
    server.abort()
    await client.append("a", "next")
    assert texts(server)[-1] == "next"


async def test_a_refused_connection_leaves_no_number_behind_for_the_next_append(
    client: Client, server: MockWebSocketServer
) -> None:
    server.connections[-1].silent = True
    first = asyncio.ensure_future(client.append("a", "A"))  # noqa: TID251 - awaited below
    while server.log.streams["a"].head < 1:
        await asyncio.sleep(0.005)
    server.refuse(401)
    server.abort()
    with pytest.raises(UnauthorizedError):  # which says nothing about the append: it was stored
        await first
    client.reconnect()
    assert await client.append("a", "B") == Appended(2, 2)
    assert texts(server) == ["A", "B"]


async def test_what_is_too_large_is_refused_before_it_is_sent(client: Client, server: MockWebSocketServer) -> None:
    limits = client.limits
    with pytest.raises(TooLargeError):
        await client.append("a", "x" * limits.message_bytes_max)
    large = ["x" * (limits.message_bytes_max - 100)] * (limits.append_bytes_max // limits.message_bytes_max + 1)
    with pytest.raises(TooLargeError):
        await client.append("a", large)
    with pytest.raises(TooLargeError):
        await client.producer("a", id="p").send(large)
    with pytest.raises(TooLargeError):
        await client.append("a", ["x"] * (limits.append_messages_max + 1))
    with pytest.raises(InvalidError):
        await client.append("a", {"not": object()})
    endless: dict[str, Json] = {}
    endless["itself"] = endless
    with pytest.raises(InvalidError):
        await client.append("a", endless)
    deep = NewMessage(json=msgspec.Raw(b"[" * 1000 + b"]" * 1000))
    with pytest.raises(TooLargeError):
        await client.append("a", deep)
    producer = client.producer("a", id="p")
    with pytest.raises(TooLargeError):
        await producer.send(deep)
    assert producer.error is None
    assert server.log.streams["a"].head == 0


async def test_the_largest_append_of_each_kind_fits_its_frame(client: Client, server: MockWebSocketServer) -> None:
    limits = client.limits
    count = append_bytes_max(limits) // limits.message_bytes_max
    async with client.producer("a", id="p" * limits.producer_id_bytes_max) as producer:
        last = (await producer.append(['"' * (limits.message_bytes_max // 2 - 400)] * count)).last
        await producer.append(["x"] * limits.append_messages_max)
    assert last == count
    assert len(texts(server)) == count + limits.append_messages_max


async def test_an_append_too_large_for_this_server_fails_alone(server: MockWebSocketServer) -> None:
    async with MockWebSocketServer(limits=Limits(frame_bytes_max=5000)) as small, Client(small.url) as client:
        await client.create("a")
        await client.append("a", "fits")
        with pytest.raises(TooLargeError):
            await client.append("a", "x" * 5000)
        assert await client.append("a", "fits too") == Appended(2, 2)
        assert small.accepted == 1


async def test_an_unknown_stream_is_told(client: Client) -> None:
    with pytest.raises(NotFoundError):
        await client.append("missing", "x")


async def test_a_producer_keeps_its_order_and_batches_what_waits(client: Client, server: MockWebSocketServer) -> None:
    async with client.producer("a", id="p") as producer:
        for number in range(3000):
            await producer.send(f"m{number}")
        assert await producer.append("last") == Appended(3001, 3001)
        await producer.close("completed", {"exit": 0})
    assert texts(server) == [*(f"m{number}" for number in range(3000)), "last"]
    appends = [frame for frame in server.history if isinstance(frame, AppendFrame)]
    assert len(appends) < 60
    assert server.log.streams["a"].state == "completed"
    assert server.log.streams["a"].reason == b'{"exit":0}'


async def test_a_producer_survives_resets_exactly_once(client: Client, server: MockWebSocketServer) -> None:
    async with client.producer("a", id="p", lease_seconds=6) as producer:
        for number in range(500):
            await producer.send(f"m{number}")
            if number % 50 == 0:
                await producer.flush()
                server.abort()
        await producer.close()
    assert texts(server) == [f"m{number}" for number in range(500)]
    assert server.accepted > 5


async def test_a_producer_waits_when_too_much_is_unacknowledged(server: MockWebSocketServer) -> None:
    limits = Limits(client_pending_messages_max=50)
    async with Client(server.url, limits=limits) as client:
        await client.create("a")
        producer = client.producer("a", id="p")
        await producer.append("first")
        server.connections[-1].freeze()
        sent = await send_until_it_waits(producer)
        assert sent == 50
        server.abort()
        await producer.flush()
        assert server.log.streams["a"].head == 51
        await producer.send("and on")
        await producer.flush()


async def send_until_it_waits(producer: Producer) -> int:
    for sent in range(1000):
        try:
            async with asyncio.timeout(0.3):
                await producer.send("x")
        except TimeoutError:
            return sent
    return 1000


async def test_a_newer_epoch_fences_the_older_producer(client: Client, server: MockWebSocketServer) -> None:
    old = client.producer("a", id="p", epoch=1)
    await old.append("old")
    async with client.producer("a", id="p", epoch=2) as new:
        await new.append("new")
        with pytest.raises(FencedError):
            await old.append("too late")
        assert old.fenced
        with pytest.raises(FencedError):
            await old.send("never")
        with pytest.raises(FencedError):
            await old.flush()
    assert texts(server) == ["old", "new"]


async def test_what_waits_behind_a_refused_append_fails_with_it(client: Client, server: MockWebSocketServer) -> None:
    producer = client.producer("a", id="p")
    await producer.append("one")
    server.write("a", close="completed")
    failures = await asyncio.gather(*(producer.append(f"m{n}") for n in range(40)), return_exceptions=True)
    assert {type(failure) for failure in failures} == {EndedError}
    assert server.log.streams["a"].head == 1


async def test_a_request_to_stop_reaches_the_producer(client: Client, server: MockWebSocketServer) -> None:
    async with client.producer("a", id="p", lease_seconds=3600) as producer:
        await producer.append("working")
        view = await client.cancel("a")
        assert view.cancel_requested
        await producer.cancel_requested.wait()
    assert server.log.streams["a"].state == "cancelled"


async def test_a_body_that_raises_ends_its_stream_as_failed(client: Client, server: MockWebSocketServer) -> None:
    async def work() -> None:
        async with client.producer("a", id="p", lease_seconds=6) as producer:
            await producer.send("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await work()
    assert texts(server) == ["half"]
    assert (server.log.streams["a"].state, server.log.streams["a"].reason) == (
        "failed",
        b'{"error":"ZeroDivisionError"}',
    )


async def test_a_body_that_just_ends_gives_the_lease_back(client: Client, server: MockWebSocketServer) -> None:
    async with client.producer("a", id="p", lease_seconds=6) as producer:
        await producer.send("x")
        assert server.log.streams["a"].view().producer == "p"
    view = server.log.streams["a"].view()
    assert (view.producer, view.state) == (None, "open")
    assert texts(server) == ["x"]


async def test_the_lease_is_renewed_in_the_background(client: Client, server: MockWebSocketServer) -> None:
    async with client.producer("a", id="p", lease_seconds=0.06):
        while sum(isinstance(frame, LeaseFrame) for frame in server.history) < 4:
            await asyncio.sleep(0.005)


async def test_a_producer_leaves_nothing_behind(client: Client, server: MockWebSocketServer) -> None:
    tasks = len(asyncio.all_tasks())
    for number in range(5):
        async with client.producer("a", id=f"p{number}") as producer:
            await producer.append("x")
    while sum(isinstance(frame, Unsubscribe) for frame in server.history) < 5:
        await asyncio.sleep(0.005)
    assert len(asyncio.all_tasks()) == tasks


class Overloaded:
    """A server that refuses the first appends for the moment, and every append behind a refused one as a gap."""

    def __init__(self, refusals: int) -> None:
        self.refusals = refusals
        self.stored: list[object] = []

    async def __call__(self, connection: MockConnection) -> None:
        expected = 0
        while True:
            frame = await connection.receive()
            if not isinstance(frame, AppendFrame):
                continue
            assert frame.producer is not None
            if self.refusals and frame.producer.seq == expected:
                self.refusals -= 1
                error = ErrorFrame(code="overloaded", message="later", retryable=True, id=frame.id, stream="a")
                await connection.send(error)
            elif frame.producer.seq != expected:
                detail: dict[str, str | int | bool | None] = {"expected": expected}
                await connection.send(ErrorFrame(code="producer_gap", message="gap", id=frame.id, detail=detail))
            else:
                expected += 1
                self.stored += [message.text for message in frame.messages]
                last = len(self.stored)
                await connection.send(Acks(acks=[Ack(id=frame.id, first=last, last=last)]))
                await connection.send(Heartbeat())


async def test_a_refusal_that_can_pass_is_retried_with_everything_behind_it() -> None:
    overloaded = Overloaded(3)
    async with (
        asyncio.timeout(CEILING),
        MockWebSocketServer(script=overloaded) as server,
        Client(server.url, limits=LIMITS) as client,
    ):
        producer = client.producer("a", id="p")
        for number in range(10):
            await producer.send(f"m{number}")
            await asyncio.sleep(0)  # an append of its own
        await producer.flush()
    assert overloaded.stored == [f"m{number}" for number in range(10)]
    assert overloaded.refusals == 0


async def test_a_refusal_that_does_not_pass_is_told_after_bounded_retries() -> None:
    async with (
        asyncio.timeout(CEILING),
        MockWebSocketServer(script=Overloaded(1000)) as server,
        Client(server.url, limits=Limits(backoff_seconds_min=0.001, backoff_seconds_max=0.01)) as client,
    ):
        with pytest.raises(OverloadedError):
            await client.append("a", "x")
        assert sum(isinstance(frame, AppendFrame) for frame in server.history) == 1 + client.limits.client_retries_max


async def test_after_leaving_everything_is_refused(server: MockWebSocketServer) -> None:
    client = Client(server.url)
    async with client:
        await client.create("a")
        producer = client.producer("a", id="p")
    for call in (lambda: client.append("a", "x"), lambda: producer.send("x"), lambda: client.create("b")):
        with pytest.raises(UnbrokenError):
            await call()
    with pytest.raises(UnbrokenError):
        client.follow("a")
