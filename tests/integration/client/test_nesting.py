"""JSON nested too deep is refused at every entry, and what is taken can be read from a deep stack."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx2
import pytest

from tests.support.speeds import LOCAL, Running, Speed, running_server
from unbroken.client import Client, Received
from unbroken.limits import DEFAULT_LIMITS
from unbroken.messages import payload_bytes
from unbroken.requests import NewStream

pytestmark = pytest.mark.anyio
CEILING = 60.0
MOST = DEFAULT_LIMITS.json_depth_max
STACK = 500


def arrays(depth: int) -> str:
    return "[" * depth + "]" * depth


@pytest.fixture
async def server(anyio_backend: str) -> AsyncIterator[Running]:
    async with running_server(Speed.STANDALONE) as server, asyncio.timeout(CEILING):
        await server.services.streams.create(LOCAL, "a", NewStream())
        yield server


async def first(url: str, below: int) -> Received:
    """The first message, as an application gets it that has already so much on its stack."""
    if below:
        return await first(url, below - 1)
    async with Client(url) as client:
        return await anext(client.follow("a"))


async def test_a_frame_with_deep_json_is_refused_alone_and_the_deepest_taken_reaches_everybody(server: Running) -> None:
    async with server.peer() as peer:
        await peer.receive("hello")
        for number, depth in enumerate((MOST + 1, 500, MOST)):
            text = f'{{"type":"append","id":{number},"stream":"a","messages":[{{"json":{arrays(depth)}}}]}}'
            await peer.socket.send(text)
        for number in range(2):
            error = await peer.receive("error")
            assert (error["id"], error["code"], error["detail"]) == (number, "too_large", {"limit": "json_depth_max"})
        assert (await peer.receive("acks"))["acks"][0]["id"] == 2
    received = await first(server.url, STACK)
    assert (received.seq, payload_bytes(received.message)) == (1, arrays(MOST).encode())


@pytest.mark.parametrize("depth", [MOST + 1, 500, 100_000])
async def test_both_faces_of_http_refuse_it(server: Running, depth: int) -> None:
    async with httpx2.AsyncClient(base_url=server.url) as http:
        body = f'{{"messages":[{{"json":{arrays(depth)}}}]}}'
        headers = {"Content-Type": "application/json"}
        refused = await http.post("/v1/messages/a", content=body, headers=headers)
        assert refused.status_code == (413 if depth < 1000 else 400)
        refused = await http.post("/v1/stream/a", content=f"[{arrays(depth)}]", headers=headers)
        assert refused.status_code == (413 if depth < 1000 else 400)
        assert (await http.post("/v1/stream/a", content=f"[{arrays(MOST)}]", headers=headers)).is_success
        assert (await http.get("/v1/stream/a")).text == f"[{arrays(MOST)}]"
