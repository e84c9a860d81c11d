"""A Starlette application mounts it and enters its lifespan; one that forgets the lifespan is told so in a sentence."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from websockets.exceptions import InvalidStatus

from tests.integration.embed.host import hosted
from unbroken import Unbroken
from unbroken.errors import LifespanError
from unbroken.server.wire import TransportWire

pytestmark = pytest.mark.anyio

SENTENCE = "Unbroken's lifespan was never entered"
CURE = "include_router(unbroken.router)"


def mounted(unbroken: Unbroken, **options: Any) -> Starlette:
    return Starlette(routes=[Mount("/streams", app=unbroken.asgi)], **options)


async def test_a_mounted_application_with_the_lifespan_works() -> None:
    unbroken = Unbroken("memory:")
    async with hosted(mounted(unbroken, lifespan=unbroken.lifespan)) as host:
        assert (await host.client.put("/streams/v1/streams/a")).status_code == 201
        page = await host.client.get("/streams/")
        assert page.headers["content-type"].startswith("text/html")
        async with host.peer("/streams/v1/ws") as peer:
            await peer.receive("hello")
            (connection,) = unbroken.services.connections
            assert isinstance(connection._wire, TransportWire)


async def test_the_lifespan_may_be_entered_from_the_applications_own() -> None:
    unbroken = Unbroken("memory:")

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with unbroken.lifespan(app):
            yield

    async with hosted(mounted(unbroken, lifespan=lifespan)) as host:
        assert (await host.client.put("/streams/v1/streams/a")).status_code == 201


async def test_entering_the_lifespan_twice_is_entering_it_once() -> None:
    unbroken = Unbroken("memory:")
    async with unbroken.lifespan():
        async with unbroken.lifespan():
            assert unbroken.services.started
        assert unbroken.services.started, "leaving the inner one stops nothing"
    assert not unbroken.services.started


@pytest.mark.parametrize(("method", "path"), [("GET", "v1/streams"), ("PUT", "v1/streams/a"), ("PUT", "v1/stream/a")])
async def test_without_the_lifespan_the_first_request_says_so(
    method: str, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with hosted(mounted(Unbroken("memory:"))) as host:
        answer = await host.client.request(method, f"/streams/{path}")
        problem = answer.json()
        assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
        assert (problem["code"], problem["retryable"]) == ("lifespan", False)
        assert SENTENCE in problem["detail"]
        assert CURE in problem["cure"]
    assert [record for record in caplog.records if record.exc_info and record.levelno >= logging.ERROR] == []


async def test_without_the_lifespan_a_websocket_is_refused_with_the_same_sentence(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with hosted(mounted(Unbroken("memory:"))) as host:
        with pytest.raises(InvalidStatus) as refused:
            async with host.peer("/streams/v1/ws"):
                pass
        problem = json.loads(refused.value.response.body or b"")
        assert (refused.value.response.status_code, problem["code"]) == (500, "lifespan")
        assert SENTENCE in problem["detail"]
        assert (await host.client.get("/streams/readyz")).status_code == 503
    assert [record for record in caplog.records if record.exc_info] == []


async def test_without_the_lifespan_a_start_says_so_and_begins_nothing() -> None:
    unbroken = Unbroken("memory:")
    begun = False

    async def source() -> AsyncIterator[str]:
        nonlocal begun
        begun = True
        yield "x"

    with pytest.raises(LifespanError, match=SENTENCE):
        await unbroken.start(source(), "a")
    with pytest.raises(LifespanError):
        await unbroken.state("a")
    with pytest.raises(LifespanError):
        await anext(aiter(unbroken.follow("a")))
    assert not begun


async def test_served_alone_it_is_a_whole_application() -> None:
    unbroken = Unbroken("memory:")
    async with hosted(unbroken.asgi) as host:
        assert (await host.client.put("/v1/streams/a")).status_code == 201
        async with host.peer("/v1/ws") as peer:
            await peer.receive("hello")


async def test_a_server_without_lifespan_events_is_told_the_same() -> None:
    unbroken = Unbroken("memory:")
    async with hosted(mounted(unbroken, lifespan=unbroken.lifespan), lifespan="off") as host:
        assert (await host.client.get("/streams/v1/streams")).json()["code"] == "lifespan"
