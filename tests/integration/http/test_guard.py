"""What stands in front of every route: Host, Origin, credentials, the state of the server, and how errors look."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import replace

import httpx2
import pytest
from starlette.responses import Response
from starlette.routing import Mount, Route, Router
from starlette.types import Receive, Scope, Send
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin, Subprotocol

from tests.support.inprocess import Served, served, serving
from unbroken.auth.access import Access
from unbroken.errors import CorruptError, OverloadedError
from unbroken.limits import DEFAULT_LIMITS
from unbroken.server.app import build_routes, build_services
from unbroken.server.middleware import ProblemMiddleware
from unbroken.server.services import Services
from unbroken.store.memory import MemoryStore

pytestmark = pytest.mark.anyio

TOKEN = "correct-horse"
APP = "https://app.example"
LISTED = Access(allow_origins=frozenset({APP}), allow_hosts=frozenset({"chat.example"}))
NEEDS_CREDENTIALS = [
    ("GET", "/v1/streams"),
    ("PUT", "/v1/streams/a"),
    ("GET", "/v1/streams/a"),
    ("DELETE", "/v1/streams/a"),
    ("POST", "/v1/messages/a"),
    ("GET", "/v1/messages/a"),
    ("GET", "/v1/messages/a?live=sse"),
    ("GET", "/v1/messages/a?live=long-poll"),
    ("POST", "/v1/close/a"),
    ("POST", "/v1/cancel/a"),
    ("POST", "/v1/lease/a"),
    ("POST", "/v1/pause/a"),
    ("POST", "/v1/resume/a"),
    ("POST", "/v1/trim/a"),
    ("GET", "/v1/verify/a"),
    ("GET", "/v1/sessions"),
    ("PUT", "/v1/sessions/a"),
    ("GET", "/v1/sessions/a"),
    ("DELETE", "/v1/sessions/a"),
    ("GET", "/v1/session-streams/a"),
    ("GET", "/v1/session-messages/a"),
    ("POST", "/v1/tickets"),
    ("GET", "/metrics"),
]


@pytest.fixture(scope="module")
async def server(anyio_backend: str) -> AsyncIterator[Served]:
    async with served(access=LISTED) as made:
        yield made


@pytest.fixture(scope="module")
async def guarded(anyio_backend: str) -> AsyncIterator[Served]:
    async with served(access=replace(LISTED, token=TOKEN)) as made:
        yield made


@pytest.fixture
def services() -> Services:
    """The parts of a server that was never started."""
    return build_services(MemoryStore(limits=DEFAULT_LIMITS), Access())


def own(server: Served) -> str:
    return f"http://127.0.0.1:{server.port}"


@pytest.mark.parametrize("origin", ["null", "https://evil.example", "http://127.0.0.1:1", "http://app.example"])
@pytest.mark.parametrize(("method", "path"), NEEDS_CREDENTIALS)
async def test_a_page_of_another_origin_reaches_nothing(server: Served, method: str, path: str, origin: str) -> None:
    response = await server.client.request(method, path, headers={"Origin": origin})
    assert (response.status_code, response.json()["code"]) == (403, "forbidden_origin")
    assert "access-control-allow-origin" not in response.headers


@pytest.mark.parametrize("host", ["evil.example", "localhost:1", "127.0.0.1.evil.example", "chat.example.evil"])
@pytest.mark.parametrize("path", ["/v1/streams", "/", "/static/x.js", "/metrics", "/nothing"])
async def test_a_foreign_host_reaches_nothing(server: Served, path: str, host: str) -> None:
    await server.problem(403, "forbidden_origin", "GET", path, headers={"Host": host})


async def test_hosts_and_origins_of_ours_are_let_in(server: Served) -> None:
    for host in (f"127.0.0.1:{server.port}", f"localhost:{server.port}", f"[::1]:{server.port}", "chat.example"):
        headers = {"Host": host, "Origin": f"http://{host}"}
        assert (await server.client.get("/v1/streams", headers=headers)).status_code == 200
    assert (await server.client.get("/v1/streams", headers={"Origin": APP})).status_code == 200


async def test_probes_are_answered_under_any_host(server: Served) -> None:
    for path in ("/livez", "/readyz"):
        assert (await server.client.get(path, headers={"Host": "10.1.2.3:4437"})).status_code == 200


async def test_a_cross_site_form_changes_nothing(server: Served) -> None:
    for site in ("cross-site", "same-site"):
        headers = {"Sec-Fetch-Site": site, "Content-Type": "text/plain"}
        await server.problem(403, "forbidden_origin", "POST", "/v1/messages/x", headers=headers, content=b"{}")
    headers = {"Sec-Fetch-Site": "cross-site"}
    assert (await server.client.get("/v1/streams", headers=headers)).status_code == 200


async def test_an_allowed_origin_gets_exactly_itself_allowed(server: Served) -> None:
    for path, status in (("/v1/streams", 200), ("/v1/streams/none", 404)):
        response = await server.client.get(path, headers={"Origin": APP})
        assert response.status_code == status
        assert response.headers["access-control-allow-origin"] == APP
        assert response.headers["vary"] == "Origin"
        assert "access-control-allow-credentials" not in response.headers
    same = await server.client.get("/v1/streams", headers={"Origin": own(server)})
    assert "access-control-allow-origin" not in same.headers
    assert same.headers["vary"] == "Origin"


async def test_a_preflight_is_answered_for_allowed_origins_without_credentials(guarded: Served) -> None:
    asked = {"Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "authorization,content-type"}
    response = await guarded.client.options("/v1/streams/a", headers={"Origin": APP, **asked})
    assert response.status_code == 204
    assert response.headers["access-control-allow-origin"] == APP
    assert "PUT" in response.headers["access-control-allow-methods"]
    assert response.headers["access-control-allow-headers"] == "authorization,content-type"
    await guarded.problem(
        403, "forbidden_origin", "OPTIONS", "/v1/streams/a", headers={"Origin": "https://evil.example", **asked}
    )


@pytest.mark.parametrize("credential", [None, "Bearer wrong", f"Basic {TOKEN}", "Bearer", f"Bearer {TOKEN}x"])
@pytest.mark.parametrize(("method", "path"), NEEDS_CREDENTIALS)
async def test_without_the_token_nothing_is_told(
    guarded: Served, method: str, path: str, credential: str | None
) -> None:
    headers = {} if credential is None else {"Authorization": credential}
    response = await guarded.client.request(method, path, headers=headers)
    assert (response.status_code, response.json()["code"]) == (401, "unauthorized")
    assert response.headers["www-authenticate"] == "Bearer"
    assert TOKEN not in response.text


async def test_with_the_token_everything_works_and_the_rest_is_open(guarded: Served) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    await guarded.answer(201, "PUT", "/v1/streams/mine", headers=headers)
    await guarded.answer(200, "GET", "/v1/streams/mine", headers=headers)
    for path in ("/livez", "/readyz"):
        assert (await guarded.client.get(path)).status_code == 200
    # a token in the URL is no credential, and is refused as the unknown parameter that it is
    await guarded.problem(401, "unauthorized", "GET", f"/v1/streams?token={TOKEN}")


async def test_a_ticket_opens_one_connection_of_its_own_page(guarded: Served) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}", "Origin": own(guarded)}
    url = f"ws://127.0.0.1:{guarded.port}/v1/ws"

    async def status(ticket: str, origin: str) -> int:
        offered = [Subprotocol("unbroken.v1"), Subprotocol(f"ticket.{ticket}")]
        try:
            async with connect(url, subprotocols=offered, origin=Origin(origin), compression=None) as socket:
                assert socket.subprotocol == "unbroken.v1"
                return 101
        except InvalidStatus as refused:
            return refused.response.status_code

    async def ticket() -> str:
        answer = await guarded.answer(201, "POST", "/v1/tickets", headers=headers)
        assert answer["expires_in"] == 30
        return str(answer["ticket"])

    first, second = await ticket(), await ticket()
    assert await status(first, own(guarded)) == 101
    assert await status(first, own(guarded)) == 401
    assert await status(second, "https://evil.example") == 403
    assert await status(second, APP) == 401
    assert await status(second, own(guarded)) == 401
    assert await status("forged", own(guarded)) == 401


async def test_every_response_carries_the_headers_that_protect_it(server: Served) -> None:
    for path in ("/v1/streams", "/v1/streams/none", "/livez", "/metrics", "/nothing", "/v1/messages/none"):
        headers = (await server.client.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert headers["cache-control"] == "no-store"


async def test_a_draining_server_takes_no_new_work_and_still_reads() -> None:
    async with served() as server:
        await server.create("a")
        server.services.draining = True
        for method, path in (("PUT", "/v1/streams/b"), ("POST", "/v1/messages/a"), ("POST", "/v1/tickets")):
            document = await server.problem(503, "draining", method, path, json={})
            assert document["retryable"] is True
        assert (await server.client.post("/v1/tickets")).headers["retry-after"] == "1"
        assert (await server.answer(200, "GET", "/v1/streams/a"))["stream"] == "a"
        assert (await server.client.get("/readyz")).status_code == 503


async def test_a_server_whose_lifespan_was_not_entered_says_so(services: Services) -> None:
    async with serving(ProblemMiddleware(Router(build_routes(services)), services)) as client:
        response = await client.get("/v1/streams")
        assert (response.status_code, response.json()["code"]) == (500, "lifespan")
        assert "include_router" in response.json()["cure"]
        assert (await client.get("/livez")).status_code == 200
        assert (await client.get("/readyz")).json()["reasons"][0]["code"] == "lifespan"


class Failing:
    """A route that fails, before or after its response began."""

    def __init__(self, error: Exception, *, late: bool = False) -> None:
        self.error = error
        self.late = late

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.late:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"10")]})
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise self.error


async def test_an_unexpected_error_is_logged_counted_and_not_shown(
    services: Services, caplog: pytest.LogCaptureFixture
) -> None:
    app = ProblemMiddleware(Router([Route("/boom", Failing(ValueError("secret detail")))]), services)
    async with serving(app) as client:
        response = await client.get("/boom")
    assert (response.status_code, response.json()["code"]) == (500, "internal")
    assert "secret detail" not in response.text
    assert "secret detail" in caplog.text
    assert "/boom" in caplog.text
    assert b'unbroken_errors_total{code="internal"} 1.0' in services.metrics.expose()


async def test_an_error_in_the_middle_cuts_the_response_off(services: Services) -> None:
    app = ProblemMiddleware(Router([Route("/late", Failing(CorruptError("bad page"), late=True))]), services)
    async with serving(app) as client:
        with pytest.raises(httpx2.TransportError):
            await client.get("/late")
    assert b'unbroken_errors_total{code="corrupt"} 1.0' in services.metrics.expose()


async def test_errors_say_when_to_come_back_and_are_logged_by_code(
    services: Services, caplog: pytest.LogCaptureFixture
) -> None:
    error = OverloadedError("full", retry_after_seconds=7)
    routes = [Route("/full", Failing(error)), Route("/bad", Failing(CorruptError("bad page")))]
    caplog.set_level(logging.WARNING, "unbroken.server.problems")
    async with serving(ProblemMiddleware(Router(routes), services)) as client:
        response = await client.get("/full")
        assert (response.status_code, response.headers["retry-after"]) == (429, "7")
        assert response.json()["facts"] == {"retry_after_seconds": 7}
        assert (await client.get("/bad")).status_code == 500
    assert [record.getMessage().split(" ")[0] for record in caplog.records] == ["corrupt"]


async def test_what_the_router_does_not_know_is_a_problem_too(services: Services) -> None:
    def hello(_request: object) -> Response:
        return Response(b"hello")

    app = ProblemMiddleware(Router([Mount("/in", app=Router([Route("/hello", hello)]))]), services)

    async def with_app(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "app": None}, receive, send)  # as inside of another Starlette application

    async with serving(with_app) as client:
        assert (await client.get("/in/hello")).content == b"hello"
        missing, wrong = await client.get("/in/none"), await client.delete("/in/hello")
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
    assert (wrong.status_code, wrong.json()["code"]) == (405, "protocol")
    assert "GET" in wrong.headers["allow"]


async def test_a_client_that_leaves_in_the_middle_of_its_body_harms_nobody(server: Served) -> None:
    for _ in range(3):
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        head = f"POST /v1/messages/a HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Length: 1000\r\n\r\n"
        writer.write(head.encode() + b'{"messages":[')
        await writer.drain()
        writer.close()
        await writer.wait_closed()
    await server.answer(200, "GET", "/v1/streams")


async def exchange(server: Served, request: str) -> bytes:
    """Send `request` as it stands and give everything that comes back."""
    async with asyncio.timeout(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(request.encode())
        answer = await reader.read()
        writer.close()
    return answer


async def test_a_body_that_is_only_announced_is_refused_without_asking_for_it(server: Served) -> None:
    answer = await exchange(
        server,
        f"POST /v1/messages/a HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
        "Content-Length: 99999999\r\nExpect: 100-continue\r\n\r\n",
    )
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"limit":"body_bytes_max"' in answer


@pytest.mark.parametrize(
    "doubled",
    ["Host: evil.example", "Origin: https://evil.example\r\nOrigin: https://app.example"],
)
async def test_a_header_that_decides_may_be_there_once_only(server: Served, doubled: str) -> None:
    head = f"GET /v1/streams HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n{doubled}\r\nConnection: close\r\n\r\n"
    assert (await exchange(server, head)).startswith(b"HTTP/1.1 400 ")
