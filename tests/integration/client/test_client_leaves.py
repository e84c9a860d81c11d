"""What the client leaves behind at a real server: nothing that it has told its application is over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.support.speeds import LOCAL, Running, Speed, running_server
from unbroken.client import Client
from unbroken.errors import EpochMismatchError, TrimmedError
from unbroken.messages import NewMessage
from unbroken.requests import NewStream

pytestmark = pytest.mark.anyio
CEILING = 60.0


@pytest.fixture
async def server(anyio_backend: str) -> AsyncIterator[Running]:
    async with running_server(Speed.STANDALONE) as server, asyncio.timeout(CEILING):
        yield server


async def subscriptions(server: Running, client: Client) -> int:
    """How many the server has when it has read everything that the client sent until now."""
    await client.append("other", "x")
    return server.services.hub.subscriptions


async def test_a_follow_that_ends_with_another_incarnation_leaves_no_subscription(server: Running) -> None:
    streams = server.services.streams
    await streams.create(LOCAL, "other", NewStream())
    await streams.delete((await streams.create(LOCAL, "a", NewStream())).stream)
    await streams.create(LOCAL, "a", NewStream())
    async with Client(server.url) as client:
        with pytest.raises(EpochMismatchError):
            await anext(client.follow("a", "1:0"))
        assert await subscriptions(server, client) == 0


async def test_a_follow_that_ends_with_trimmed_messages_leaves_no_subscription(server: Running) -> None:
    streams = server.services.streams
    await streams.create(LOCAL, "other", NewStream())
    stream = (await streams.create(LOCAL, "a", NewStream())).stream
    await streams.append(stream, [NewMessage(text=str(number)) for number in range(5)])
    await streams.trim(stream, 4)
    async with Client(server.url) as client:
        with pytest.raises(TrimmedError) as caught:
            await anext(client.follow("a", f"{stream.epoch}:1"))
        assert await subscriptions(server, client) == 0
        follow = client.follow("a", f"{stream.epoch}:{int(str(caught.value.detail['first'])) - 1}")
        assert (await anext(follow)).text == "3"
        assert await subscriptions(server, client) == 1
