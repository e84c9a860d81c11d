"""A follow gives every message once and in order, whatever the server does to it, in bounded memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from unbroken.client import Client, Follow
from unbroken.errors import EpochMismatchError, InvalidError, NotFoundError, TrimmedError, VerificationError
from unbroken.limits import Limits
from unbroken.messages import StreamState
from unbroken.protocol.chain import chain
from unbroken.protocol.frames import Pause, Resume, Subscribe
from unbroken.testing import (
    Abort,
    Disconnect,
    Duplicate,
    Malformed,
    MockFault,
    MockWebSocketServer,
    Oversized,
    Reorder,
    Skip,
)

pytestmark = [pytest.mark.anyio, pytest.mark.scenario("INFRA-001")]

CEILING = 60.0
LIMITS = Limits(backoff_seconds_min=0.01)


@pytest.fixture
async def server(anyio_backend: str) -> AsyncIterator[MockWebSocketServer]:
    async with MockWebSocketServer(messages_per_frame=4) as server, asyncio.timeout(CEILING):
        yield server


async def rest(follow: Follow) -> list[str | None]:
    return [message.text async for message in follow]


@pytest.mark.parametrize(
    "fault",
    [Disconnect(1012), Disconnect(1000), Abort(), Duplicate(), Skip(), Reorder(), Malformed(), Oversized()],
    ids=repr,
)
async def test_no_misbehaviour_of_a_server_costs_or_doubles_a_message(
    server: MockWebSocketServer, fault: MockFault
) -> None:
    texts = [f"m{number}" for number in range(60)]
    injected = [server.inject(fault, after_messages=after) for after in (0, 9, 30)]
    server.write("a", *texts, close="completed")
    async with Client(server.url, limits=LIMITS) as client:
        follow = client.follow("a", verify=True)
        got = [(message.seq, message.text) async for message in follow]
    assert got == list(enumerate(texts, 1))
    assert [each.bites for each in injected] == [1, 1, 1]
    assert follow.state is not None
    assert follow.state.state == "completed"


@pytest.mark.parametrize(
    ("after", "expected"),
    [("start", ["m1", "m2", "m3"]), ("last:1", ["m3"]), ("1:1", ["m2", "m3"]), ("2", ["m3"]), ("now", [])],
)
async def test_a_follow_begins_where_it_is_told(server: MockWebSocketServer, after: str, expected: list[str]) -> None:
    server.write("a", "m1", "m2", "m3", close="failed")
    async with Client(server.url) as client:
        follow = client.follow("a", after)
        assert await rest(follow) == expected
    assert follow.state is not None
    assert follow.state.state == "failed"


async def test_the_cursor_is_that_of_the_last_message_handed_out(server: MockWebSocketServer) -> None:
    server.write("a", "m1", "m2", "m3")
    async with Client(server.url) as client, client.follow("a") as follow:
        assert (await follow.ready()).head == 3
        assert str(follow.cursor) == "1:0"
        await anext(follow)
        assert str(follow.cursor) == "1:1"
        assert [message.seq for message in await follow.batch()] == [2, 3]
        assert str(follow.cursor) == "1:3"


async def test_a_stream_that_does_not_exist_is_told(server: MockWebSocketServer) -> None:
    async with Client(server.url) as client:
        with pytest.raises(NotFoundError):
            await rest(client.follow("missing"))
        with pytest.raises(NotFoundError):
            await client.follow("missing").ready()


async def test_a_malformed_place_is_refused_at_the_call(server: MockWebSocketServer) -> None:
    async with Client(server.url) as client:
        with pytest.raises(InvalidError):
            client.follow("a", "1:x")


async def test_a_name_that_means_another_stream_now_is_told_after_what_was_got(server: MockWebSocketServer) -> None:
    server.write("a", "old")
    async with Client(server.url, limits=LIMITS) as client:
        follow = client.follow("a")
        await follow.ready()
        del server.log.streams["a"]
        server.write("a", "new")
        server.abort()
        assert (await anext(follow)).text == "old"
        with pytest.raises(EpochMismatchError) as caught:
            await anext(follow)
        assert caught.value.detail["epoch"] == 2
        assert (await anext(client.follow("a"))).text == "new"


async def test_messages_trimmed_while_away_are_told_with_their_number(server: MockWebSocketServer) -> None:
    stream = server.write("a", "m1")
    async with Client(server.url, limits=LIMITS) as client:
        follow = client.follow("a")
        assert (await anext(follow)).text == "m1"
        server.abort()
        server.write("a", "m2", "m3", "m4")
        stream.first = 4
        with pytest.raises(TrimmedError) as caught:
            await rest(follow)
        assert (caught.value.detail["missing"], caught.value.detail["first"]) == (2, 4)


@pytest.mark.scenario("INTEG-001")
async def test_a_changed_message_is_found_when_the_chain_is_verified(server: MockWebSocketServer) -> None:
    stream = server.write("a", "m1", "m2", "m3", close="completed")
    stream.encoded[1] = stream.encoded[1].replace(b"m2", b"mX")
    async with Client(server.url) as client:
        assert await rest(client.follow("a")) == ["m1", "mX", "m3"]
        with pytest.raises(VerificationError) as caught:
            await rest(client.follow("a", verify=True))
        assert (caught.value.detail["seq"], caught.value.detail["last"]) == (1, 3)


async def test_a_stream_rewritten_between_two_connections_is_found(server: MockWebSocketServer) -> None:
    stream = server.write("a", "m1")
    async with Client(server.url, limits=LIMITS) as client:
        follow = client.follow("a", verify=True)
        assert (await anext(follow)).text == "m1"
        stream.heads[1] = bytes(32)
        server.abort()
        with pytest.raises(VerificationError):
            await rest(follow)


async def test_one_stream_can_be_followed_twice_each_from_its_own_place(server: MockWebSocketServer) -> None:
    server.write("a", "m1", "m2", close="completed")
    async with Client(server.url) as client:
        first, second = client.follow("a"), client.follow("a", "1:1")
        assert (await rest(first), await rest(second)) == (["m1", "m2"], ["m2"])
        assert server.accepted == 2


async def test_many_streams_share_one_connection(server: MockWebSocketServer) -> None:
    for number in range(30):
        server.write(f"s{number}", f"only {number}", close="completed")
    async with Client(server.url) as client:
        follows = [client.follow(f"s{number}") for number in range(30)]
        assert [await rest(follow) for follow in follows] == [[f"only {number}"] for number in range(30)]
    assert server.accepted == 1


async def test_a_slow_consumer_pauses_its_own_stream_only_and_loses_nothing(server: MockWebSocketServer) -> None:
    limits = Limits(client_follow_messages_max=100)
    texts = [f"m{number}" for number in range(2000)]
    async with Client(server.url, limits=limits) as client:
        server.write("slow", *texts, close="completed")
        server.write("fast", *texts, close="completed")
        slow, fast = client.follow("slow"), client.follow("fast")
        assert await rest(fast) == texts
        held = server.delivered - len(texts)
        assert held < 500, f"{held} messages were sent to a consumer that takes none"
        assert await rest(slow) == texts
    assert {type(frame) for frame in server.history} >= {Pause, Resume}


async def test_a_server_that_ignores_pause_still_costs_bounded_memory(server: MockWebSocketServer) -> None:
    limits = Limits(client_follow_messages_max=20)
    texts = [f"m{number}" for number in range(500)]
    server.ignore_pause = True
    server.write("a", *texts, close="completed")
    async with Client(server.url, limits=limits) as client:
        follow = client.follow("a")
        await follow.ready()
        while server.delivered < len(texts):
            await asyncio.sleep(0.005)
        await client.create("another")
        assert follow.waiting <= 3 * 20
        assert await rest(follow) == texts
    assert sum(isinstance(frame, Subscribe) for frame in server.history) > 1


async def test_leaving_tells_the_server_and_gives_no_more(server: MockWebSocketServer) -> None:
    server.write("a", "m1", "m2")
    async with Client(server.url) as client:
        async with client.follow("a") as follow:
            assert (await anext(follow)).text == "m1"
        assert await rest(follow) == []
        server.write("a", "m3", close="completed")
        assert await rest(client.follow("a", "last:1")) == ["m3"]
        assert server.accepted == 1


async def test_cancelling_a_wait_for_the_next_message_loses_none(server: MockWebSocketServer) -> None:
    server.write("a", "m1")
    async with Client(server.url) as client:
        follow = client.follow("a")
        got = [(await anext(follow)).text]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await anext(follow)
        server.write("a", "m2", close="completed")
        assert got + await rest(follow) == ["m1", "m2"]


async def test_an_error_of_the_application_passes_through_the_client_unchanged(server: MockWebSocketServer) -> None:
    async def application() -> None:
        async with Client(server.url) as client:
            client.follow("a")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await application()


@pytest.mark.scenario("INTEG-001")
async def test_a_server_that_tells_a_whole_other_story_is_found_by_a_head_kept_from_before(
    server: MockWebSocketServer,
) -> None:
    stream = server.write("a", "m1", "m2", "m3")
    async with Client(server.url, limits=LIMITS) as client:
        follow = client.follow("a", verify=True)
        for _ in range(3):
            await anext(follow)
        kept = follow.head
        assert kept is not None
        assert kept[0] == 3
        await follow.aclose()
    stream.encoded[1] = stream.encoded[1].replace(b"m2", b"mX")
    for seq, message in enumerate(stream.encoded, 1):
        stream.heads[seq] = chain(stream.heads[seq - 1], seq, [message], stream.salts)
    stream.state = StreamState.COMPLETED
    async with Client(server.url, limits=LIMITS) as client:
        assert await rest(client.follow("a", verify=True)) == ["m1", "mX", "m3"], "it is consistent with itself"
        with pytest.raises(VerificationError) as caught:
            await rest(client.follow("a", verify=dict([kept])))
    assert (caught.value.detail["seq"], caught.value.detail["last"]) == (1, 3)
