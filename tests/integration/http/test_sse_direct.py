"""SSE past ASGI: taken where uvicorn's own bytes prove it right, left alone everywhere else, and never in the wrong order."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import AsyncExitStack
from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tests.support.inprocess import CEILING_SECONDS, Carrier, Events, Served, served, serving
from unbroken import Unbroken
from unbroken.protocol.sse import SseParser
from unbroken.server.direct import Direct

pytestmark = pytest.mark.anyio

PATH = "/v1/messages/a"
PAST = [Carrier.HTTPTOOLS, Carrier.H11]


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The chunks that were written past ASGI."""
    chunks: list[bytes] = []
    write = Direct.write

    def noting(self: Direct, data: bytes) -> bool:
        done = write(self, data)
        if done:
            chunks.append(data)
        return done

    monkeypatch.setattr(Direct, "write", noting)
    return chunks


async def opened(server: Served, head: str = "") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A raw connection that has asked for the events of the stream."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1 << 20)
    version = "1.0" if head == "1.0" else "1.1"
    writer.write(f"GET {PATH}?live=sse HTTP/{version}\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode())
    await writer.drain()
    return reader, writer


async def told(viewer: Events) -> None:
    """Wait until the viewer has the state that it found."""
    event = await viewer.next()
    assert event is not None
    assert event.event == "state"


@pytest.mark.parametrize("carrier", PAST)
async def test_live_batches_go_past_asgi_as_the_same_bytes_for_all(carrier: Carrier, written: list[bytes]) -> None:
    async with served(carrier=carrier) as server, AsyncExitStack() as stack:
        await server.create("a")
        viewers = [await stack.enter_async_context(server.events(PATH)) for _ in range(5)]
        for viewer in viewers:
            await told(viewer)
        await server.append("a", "one", "two")
        for viewer in viewers:
            assert [json.loads(event.data)["seq"] for event in await viewer.take(2)] == [1, 2]
        assert len(written) == 5
        assert len({id(chunk) for chunk in written}) == 1


async def test_without_the_takeover_nothing_goes_past_asgi(written: list[bytes]) -> None:
    async with served(carrier=Carrier.ASGI) as server:
        await server.create("a")
        async with server.events(PATH) as viewer:
            await told(viewer)
            await server.append("a", "one")
            await viewer.take(1)
    assert written == []


async def test_a_uvicorn_that_was_not_tested_is_left_alone(
    written: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uvicorn.__version__", "0.99.0")
    async with served(carrier=Carrier.HTTPTOOLS) as server:
        await server.create("a")
        async with server.events(PATH) as viewer:
            await told(viewer)
            await server.append("a", "one")
            await viewer.take(1)
    assert written == []


@pytest.mark.parametrize("carrier", PAST)
async def test_a_client_of_http_1_0_is_left_alone(carrier: Carrier, written: list[bytes]) -> None:
    async with served(carrier=carrier) as server:
        await server.create("a")
        reader, writer = await opened(server, "1.0")
        await reader.readuntil(b"event: state")
        await server.append("a", "one", close={"state": "completed"})
        async with asyncio.timeout(CEILING_SECONDS):
            rest = await reader.read()
        writer.close()
    assert b'"text":"one"' in rest
    assert b'"state":"completed"' in rest
    assert written == []


class Shouts:
    """A middleware that changes every body on its way out, and hides nothing of the server."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def louder(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": message.get("body", b"").upper()}
            await send(message)

        await self._app(scope, receive, louder)


class Watches(Shouts):
    """A middleware that only looks at the beginning of every answer, and hides nothing of the server."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def seen(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-seen", b"yes")]
            await send(message)

        await self._app(scope, receive, seen)


@pytest.mark.parametrize(("middleware", "past"), [(Shouts, 0), (Watches, 1)], ids=["shouts", "watches"])
@pytest.mark.parametrize("http", ["httptools", "h11"])
async def test_a_middleware_that_changes_bodies_gets_every_piece(
    middleware: type[Shouts], past: int, http: str, written: list[bytes]
) -> None:
    unbroken = Unbroken("memory:")
    async with unbroken.lifespan(), serving(middleware(unbroken.asgi), http=http) as client:
        await client.put("/v1/streams/a", json={})
        async with asyncio.timeout(CEILING_SECONDS), client.stream("GET", f"{PATH}?live=sse") as response:
            chunks = response.aiter_raw()
            raw = b""
            while b"}\n\n" not in raw:  # the state
                raw += await anext(chunks)
            await client.post(PATH, json={"messages": [{"text": "one"}]})
            await client.post("/v1/close/a", json={})
            raw += b"".join([chunk async for chunk in chunks])
        assert response.headers.get("x-seen") == ("yes" if middleware is Watches else None)
    assert raw.startswith(b"RETRY" if middleware is Shouts else b"retry")
    assert (b'"TEXT":"ONE"' in raw) is (middleware is Shouts)
    assert (b'"text":"one"' in raw) is (middleware is Watches)
    assert len(written) == past


@pytest.mark.parametrize("carrier", list(Carrier))
async def test_behind_the_end_the_connection_serves_the_next_request(
    carrier: Carrier, caplog: pytest.LogCaptureFixture
) -> None:
    async with served(carrier=carrier) as server:
        await server.create("a")
        reader, writer = await opened(server)
        await reader.readuntil(b"event: state")
        await server.append("a", "one")
        await reader.readuntil(b'"text":"one"')
        await server.answer(200, "POST", "/v1/close/a", json={})
        async with asyncio.timeout(CEILING_SECONDS):
            end = await reader.readuntil(b"\r\n0\r\n\r\n")
            assert b'"state":"completed"' in end
            writer.write(f"GET /livez HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode())
            assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200")
        writer.close()
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.mark.scenario("STRESS-004")
@pytest.mark.parametrize("carrier", list(Carrier))
async def test_a_viewer_that_stalls_now_and_then_gets_everything_in_order(
    carrier: Carrier, written: list[bytes]
) -> None:
    async with served(carrier=carrier) as server:
        await server.create("a")
        async with server.events(PATH) as viewer:
            await told(viewer)
            total = 0
            seen: list[Any] = []
            for turn in range(4):
                for _ in range(120 if turn % 2 == 0 else 5):  # 12 MB, more than the sockets hold; then live again
                    await server.append("a", *["x" * 10_000] * 10)
                    total += 10
                seen += [json.loads(event.data)["seq"] for event in await viewer.take(total - len(seen))]
            assert seen == list(range(1, total + 1))
    if carrier is not Carrier.ASGI:
        assert written, "nothing went past ASGI"
        assert len(written) < total // 10, "the viewer never fell behind"


@pytest.mark.parametrize("carrier", PAST)
async def test_what_a_viewer_that_reads_nothing_is_sent_past_asgi_is_bounded(
    carrier: Carrier, written: list[bytes]
) -> None:
    async with served(carrier=carrier) as server:
        await server.create("a")
        reader, writer = await opened(server)
        await reader.readuntil(b"event: state")
        for _ in range(300):  # 30 MB
            await server.append("a", *["x" * 10_000] * 10)
        (subscription,) = next(iter(server.services.hub._live.values())).viewers
        assert subscription.cursor < 3_000
        before = len(written)
        await server.append("a", "more")
        assert len(written) == before
        writer.close()
        await server.viewers(0)


@pytest.mark.parametrize("carrier", PAST)
async def test_a_viewer_that_breaks_off_disturbs_neither_the_producer_nor_others(
    carrier: Carrier, written: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    async with served(carrier=carrier) as server:
        await server.create("a")
        async with server.events(PATH) as viewer:
            await told(viewer)
            for number in range(20):
                _, writer = await opened(server)
                await server.viewers(2)
                writer.transport.abort()
                await server.append("a", f"m{number}")
            found = [json.loads(event.data)["text"] for event in await viewer.take(20)]
            assert found == [f"m{number}" for number in range(20)]
            await server.viewers(1)
    assert written
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("carrier", PAST)
async def test_every_chunk_is_whole_events(carrier: Carrier, written: list[bytes]) -> None:
    async with served(carrier=carrier) as server:
        await server.create("a")
        async with server.events(PATH) as viewer:
            await told(viewer)
            for count in (1, 3, 7):
                await server.append("a", *["x"] * count)
                await viewer.take(count)
        for data, count in zip(written, (1, 3, 7), strict=True):
            size, _, rest = data.partition(b"\r\n")
            assert rest[int(size, 16) :] == b"\r\n"
            assert len(SseParser().feed(rest[:-2])) == count
