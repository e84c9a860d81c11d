"""One line puts everything into a FastAPI application: HTTP, WebSocket, SSE, page and lifespan, behind its own guards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import Depends, FastAPI, HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.types import ASGIApp, Receive, Scope, Send
from websockets.exceptions import InvalidStatus

from tests.integration.embed.host import Hosted, hosted
from unbroken import Unbroken
from unbroken.server.connection import Connection
from unbroken.server.wire import AsgiWire, TransportWire

pytestmark = pytest.mark.anyio

PREFIX = "/streams"


class HandsOn:
    """A middleware that leaves the callables alone, as most do."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


class Wraps(HandsOn):
    """A middleware that puts its own callables in between, so that nobody can see which server is behind."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def received() -> Any:
            return await receive()

        async def sent(message: Any) -> None:
            await send(message)

        await self._app(scope, received, sent)


def application(unbroken: Unbroken, **include: Any) -> FastAPI:
    app = FastAPI()
    app.include_router(unbroken.router, prefix=PREFIX, **include)
    return app


def wire_of(unbroken: Unbroken) -> object:
    """What carries the one connection that there is."""
    (connection,) = unbroken.services.connections
    assert isinstance(connection, Connection)
    return connection._wire


async def converse(host: Hosted, unbroken: Unbroken) -> object:
    """Create, append and follow over one WebSocket; gives what carried it."""
    async with host.peer(f"{PREFIX}/v1/ws") as peer:
        await peer.receive("hello")
        await peer.send(type="create", id=1, stream="a")
        await peer.receive("result")
        await peer.send(type="subscribe", id=2, stream="a", after="start")
        await peer.receive("subscribed")
        await peer.send(type="append", id=3, stream="a", messages=[{"text": "one"}, {"text": "two"}])
        frames = [await peer.receive("messages", "acks") for _ in range(2)]
        (messages,) = [frame for frame in frames if frame["type"] == "messages"]
        assert [message["text"] for message in messages["messages"]] == ["one", "two"]
        return wire_of(unbroken)


async def test_the_router_carries_http_sse_page_and_lifespan() -> None:
    unbroken = Unbroken("memory:")
    async with hosted(application(unbroken)) as host:
        assert unbroken.services.started
        created = await host.client.put(f"{PREFIX}/v1/streams/a/b", json={"session": "s"})
        assert (created.status_code, created.json()["stream"]) == (201, "a/b")
        body = {"messages": [{"text": "one"}], "close": {"state": "completed"}}
        appended = await host.client.post(f"{PREFIX}/v1/messages/a/b", json=body)
        assert appended.json()["last"] == 1
        events = await host.client.get(f"{PREFIX}/v1/messages/a/b?live=sse")
        assert events.headers["content-type"].startswith("text/event-stream")
        assert '"text":"one"' in events.text
        assert "event: state" in events.text
        page = await host.client.get(f"{PREFIX}/")
        assert page.headers["content-type"].startswith("text/html")
        script = await host.client.get(f"{PREFIX}/static/client/unbroken.js")
        assert script.headers["content-type"].startswith("text/javascript")
        assert (await host.client.get(f"{PREFIX}/readyz")).json()["ready"]
    assert not unbroken.services.started


async def test_the_prefix_without_its_slash_leads_to_the_page() -> None:
    async with hosted(application(Unbroken("memory:"))) as host:
        page = await host.client.get(PREFIX, follow_redirects=True)
        assert page.status_code == 200
        assert page.url.path == f"{PREFIX}/"


async def test_websockets_are_taken_over_from_uvicorn() -> None:
    unbroken = Unbroken("memory:")
    async with hosted(application(unbroken)) as host:
        assert isinstance(await converse(host, unbroken), TransportWire)


@pytest.mark.parametrize(
    ("middleware", "wire"), [(HandsOn, TransportWire), (Wraps, AsgiWire)], ids=["hands-on", "wraps"]
)
async def test_it_works_behind_pure_asgi_middleware(middleware: type[HandsOn], wire: type) -> None:
    unbroken = Unbroken("memory:")
    app = application(unbroken)
    app.add_middleware(middleware)
    async with hosted(app) as host:
        assert isinstance(await converse(host, unbroken), wire)
        assert (await host.client.get(f"{PREFIX}/v1/streams/a")).json()["head"] == 2


@pytest.mark.filterwarnings("ignore:The `websockets` implementation is deprecated")
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:websockets.*")
async def test_a_websocket_implementation_that_cannot_be_taken_over_gives_the_plain_path() -> None:
    unbroken = Unbroken("memory:")
    async with hosted(application(unbroken), ws="websockets") as host:
        assert isinstance(await converse(host, unbroken), AsgiWire)


async def test_the_applications_own_routes_and_documentation_are_as_before() -> None:
    app = FastAPI()

    @app.get("/hello")
    async def hello() -> str:
        return "hello"

    app.include_router(Unbroken("memory:").router, prefix=PREFIX)
    async with hosted(app) as host:
        assert (await host.client.get("/hello")).json() == "hello"
        assert list((await host.client.get("/openapi.json")).json()["paths"]) == ["/hello"]
        unknown = await host.client.get("/v1/streams")
        assert (unknown.status_code, unknown.json()) == (404, {"detail": "Not Found"})


async def signed_in(connection: HTTPConnection) -> None:
    """An application's own guard, for HTTP and WebSocket alike."""
    if connection.headers.get("x-user") != "alice":
        raise HTTPException(401, "who are you?")


GUARDED = [
    "v1/streams",
    "v1/streams/a",
    "v1/messages/a?live=sse",
    "",
    "static/client/unbroken.js",
    "metrics",
    "nothing",
]


@pytest.mark.parametrize("path", GUARDED)
async def test_dependencies_of_include_router_guard_every_http_path(path: str) -> None:
    async with hosted(application(Unbroken("memory:"), dependencies=[Depends(signed_in)])) as host:
        refused = await host.client.get(f"{PREFIX}/{path}")
        assert (refused.status_code, refused.json()) == (401, {"detail": "who are you?"})
        admitted = await host.client.get(f"{PREFIX}/{path}", headers={"X-User": "alice"})
        assert admitted.status_code != 401


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE", "HEAD", "OPTIONS", "PATCH"])
async def test_dependencies_of_include_router_guard_every_method(method: str) -> None:
    async with hosted(application(Unbroken("memory:"), dependencies=[Depends(signed_in)])) as host:
        refused = await host.client.request(method, f"{PREFIX}/v1/streams/a")
        assert refused.status_code == 401


async def test_dependencies_of_include_router_guard_the_websocket() -> None:
    unbroken = Unbroken("memory:")
    async with hosted(application(unbroken, dependencies=[Depends(signed_in)])) as host:
        with pytest.raises(InvalidStatus) as refused:
            async with host.peer(f"{PREFIX}/v1/ws"):
                pass
        assert refused.value.response.status_code in {401, 403}
        assert len(unbroken.services.connections) == 0
        async with host.peer(f"{PREFIX}/v1/ws", {"X-User": "alice"}) as peer:
            await peer.receive("hello")
            assert isinstance(wire_of(unbroken), TransportWire)


async def for_requests_only(request: Request) -> None:
    """A guard that cannot work for a WebSocket."""


async def test_a_guard_that_cannot_judge_a_websocket_keeps_it_out() -> None:
    unbroken = Unbroken("memory:")
    async with hosted(application(unbroken, dependencies=[Depends(for_requests_only)])) as host:
        with pytest.raises(InvalidStatus) as refused:
            async with host.peer(f"{PREFIX}/v1/ws"):
                pass
        assert refused.value.response.status_code == 500
        assert len(unbroken.services.connections) == 0
        assert (await host.client.get(f"{PREFIX}/v1/streams")).status_code == 200


async def test_a_prefix_may_have_parameters() -> None:
    seen: list[str] = []

    async def tenant(tenant: str) -> str:
        seen.append(tenant)
        return tenant

    app = FastAPI()
    app.include_router(Unbroken("memory:").router, prefix="/of/{tenant}/streams", dependencies=[Depends(tenant)])
    async with hosted(app) as host:
        created = await host.client.put("/of/acme/streams/v1/streams/a")
        assert (created.status_code, seen) == (201, ["acme"])


async def test_the_applications_own_lifespan_runs_around_it() -> None:
    unbroken = Unbroken("memory:")
    seen: list[bool] = []

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        seen.append(unbroken.services.started)
        yield
        seen.append(unbroken.services.started)

    app = FastAPI(lifespan=lifespan)
    app.include_router(unbroken.router, prefix=PREFIX)
    async with hosted(app) as host:
        assert (await host.client.put(f"{PREFIX}/v1/streams/a")).status_code == 201
    assert seen == [False, False]


async def test_an_application_may_be_started_again(tmp_path: Any) -> None:
    unbroken = Unbroken(f"sqlite:///{tmp_path}/a.db", durability="process")
    app = application(unbroken)
    for expected in (201, 200):
        async with hosted(app) as host:
            assert (await host.client.put(f"{PREFIX}/v1/streams/a")).status_code == expected
            await converse_nothing(host)


async def converse_nothing(host: Hosted) -> None:
    async with host.peer(f"{PREFIX}/v1/ws") as peer:
        await peer.receive("hello")


async def test_shutdown_sends_websockets_away_to_come_back() -> None:
    async with hosted(application(Unbroken("memory:"))) as host, host.peer(f"{PREFIX}/v1/ws") as peer:
        await peer.receive("hello")
        async with asyncio.timeout(20):
            await host.stop()
        assert await peer.closed() == 1012


async def test_an_endpoint_may_use_it_as_a_dependency() -> None:
    unbroken = Unbroken("memory:")
    app = application(unbroken)

    async def streams() -> Unbroken:
        return unbroken

    @app.get("/count")
    async def count(of: Unbroken = Depends(streams)) -> int:
        return len([message async for message in of.follow("a")])

    async with hosted(app) as host:
        await host.client.put(f"{PREFIX}/v1/streams/a")
        body = {"messages": [{"text": "one"}, {"text": "two"}], "close": {}}
        await host.client.post(f"{PREFIX}/v1/messages/a", json=body)
        assert (await host.client.get("/count")).json() == 2
