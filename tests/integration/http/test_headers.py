"""What keeps a browser from misusing an answer is on every answer: of every route, by every method, and on every error."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import httpx2
import pytest

from tests.support.server import ServerProcess
from unbroken.auth.access import Access
from unbroken.limits import DEFAULT_LIMITS
from unbroken.server.app import build_routes, build_services
from unbroken.store.memory import MemoryStore

pytestmark = pytest.mark.anyio

TOKEN = "headers-are-for-everybody"
CEILING_SECONDS = 60.0
METHODS = ("GET", "HEAD", "OPTIONS", "PUT", "POST", "PATCH", "DELETE")
"""In an order in which what one makes, the next ones find."""
PAGE = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
    "trusted-types 'none'"
)
DATA = "default-src 'none'; frame-ancestors 'none'"
SANDBOX = "sandbox; default-src 'none'; frame-ancestors 'none'"
EVERYWHERE = {
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


def templates() -> list[str]:
    """The path of every route of every face."""
    services = build_services(MemoryStore(limits=DEFAULT_LIMITS), Access())
    return sorted({getattr(route, "path", "") for route in build_routes(services)})


PATHS = [path.replace("{path:path}", "main.js").replace("{name:path}", "headers/a") for path in templates()]


@pytest.fixture(scope="module")
async def server(anyio_backend: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServerProcess]:
    folder: Path = tmp_path_factory.mktemp("headers")
    async with ServerProcess(folder, environment={"UNBROKEN_TOKEN": TOKEN}) as running:
        yield running


@pytest.fixture
async def client(server: ServerProcess) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=server.url, timeout=CEILING_SECONDS, trust_env=False) as made:
        made.headers["Authorization"] = f"Bearer {TOKEN}"
        yield made


def check(headers: Mapping[str, str], policies: set[str], caching: set[str]) -> None:
    """Every header is there, once, and as strict as promised."""
    assert EVERYWHERE.items() <= dict(headers).items(), headers
    assert "camera=(), " in headers["permissions-policy"]
    assert headers["content-security-policy"] in policies, headers
    assert headers["cache-control"] in caching, headers
    assert "server" not in headers


def promised(path: str) -> tuple[set[str], set[str]]:
    """The policies and the caching that answers of `path` may have; errors have those of data."""
    if path == "/" or path.startswith("/static/"):
        return {PAGE, DATA}, {"no-cache", "no-store"}
    if path.startswith(("/v1/stream/", "/v1/content/")):
        return {SANDBOX, DATA}, {"no-store", "no-cache, no-store, no-transform"}
    return {DATA}, {"no-store"}


@pytest.mark.parametrize("path", PATHS)
async def test_every_route_by_every_method_with_and_without_credentials(client: httpx2.AsyncClient, path: str) -> None:
    policies, caching = promised(path)
    for method in METHODS:
        body = {"content": b"{}"} if method in {"PUT", "POST", "PATCH"} else {}
        for credentials in ({}, {"Authorization": "Bearer wrong"}):
            response = await client.request(method, path, headers=credentials, **body)  # type: ignore[arg-type]
            assert response.status_code < 500
            check(response.headers, policies, caching)


async def test_the_page_has_its_own_policy(client: httpx2.AsyncClient) -> None:
    for path in ("/", "/static/main.js", "/static/app.css", "/static/icon.svg"):
        response = await client.get(path)
        assert response.status_code == 200
        check(response.headers, {PAGE}, {"no-cache"})
        again = await client.get(path, headers={"If-None-Match": response.headers["etag"]})
        assert again.status_code == 304
        check(again.headers, {PAGE}, {"no-cache"})


async def test_what_is_stored_is_sent_to_be_saved_and_never_to_be_shown(client: httpx2.AsyncClient) -> None:
    (await client.put("/v1/streams/files/x.html", json={"content_type": "text/html"})).raise_for_status()
    messages = {"messages": [{"text": "<script>alert(1)</script>"}]}
    (await client.post("/v1/messages/files/x.html", json=messages)).raise_for_status()
    saved = await client.get("/v1/content/files/x.html")
    assert saved.headers["content-disposition"] == "attachment; filename*=UTF-8''x.html"
    check(saved.headers, {SANDBOX}, {"no-store"})
    (await client.put("/v1/streams/files/a\u202ef\u200fdp.exe")).raise_for_status()
    turned = await client.head("/v1/content/files/a\u202ef\u200fdp.exe")
    assert turned.headers["content-disposition"] == "attachment; filename*=UTF-8''afdp.exe"
    (await client.put("/v1/stream/a.html", content="<b>", headers={"Content-Type": "text/html"})).raise_for_status()
    for query in ("", "?offset=-1", "?offset=now", "?offset=-1&live=long-poll"):
        shown = await client.get(f"/v1/stream/a.html{query}")
        assert shown.status_code == 200
        check(shown.headers, {SANDBOX}, {"no-store"})


async def test_live_answers_are_kept_by_nobody(client: httpx2.AsyncClient) -> None:
    (await client.put("/v1/streams/live")).raise_for_status()
    (await client.put("/v1/stream/live-too", headers={"Content-Type": "text/plain"})).raise_for_status()
    for path in ("/v1/messages/live?live=sse", "/v1/stream/live-too?offset=-1&live=sse"):
        async with client.stream("GET", path) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            check(response.headers, {DATA, SANDBOX}, {"no-cache, no-store, no-transform"})


@pytest.mark.parametrize(
    ("status", "options"),
    [
        (403, {"url": "/v1/streams", "headers": {"Host": "evil.example"}}),
        (403, {"url": "/v1/streams", "headers": {"Origin": "null"}}),
        (403, {"url": "/", "headers": {"Host": "evil.example"}}),
        (404, {"url": "/no/such/path"}),
        (404, {"url": "/v1/streams/not/there"}),
        (400, {"url": "/v1/streams/%FF"}),
        (400, {"url": "/v1/streams?no=such"}),
        (400, {"url": "/v1/messages/a", "method": "POST", "content": b"["}),
        (405, {"url": "/v1/streams", "method": "PROPFIND"}),
    ],
)
async def test_every_refusal(client: httpx2.AsyncClient, status: int, options: dict[str, str]) -> None:
    response = await client.request(**{"method": "GET", **options})  # type: ignore[arg-type]
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    check(response.headers, {DATA}, {"no-store"})


UPGRADE = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
OURS = "Sec-WebSocket-Protocol: unbroken.v1\r\n"
KEY = "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
WIRE = {
    "no request at all": (400, "\x01\x02\x03\r\n\r\n"),
    "a header without a name": (400, "GET /v1/streams HTTP/1.1\r\n: x\r\n\r\n"),
    "two lengths": (
        400,
        "POST /v1/messages/a HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    ),
    "a body that is too large": (
        413,
        "POST /v1/messages/a HTTP/1.1\r\nHost: {host}\r\nExpect: 100-continue\r\nContent-Length: 99999999999\r\n\r\n",
    ),
    "a handshake without a token": (401, f"GET /v1/ws HTTP/1.1\r\nHost: {{host}}\r\n{UPGRADE}{KEY}{OURS}\r\n"),
    "a handshake from elsewhere": (
        403,
        f"GET /v1/ws HTTP/1.1\r\nHost: {{host}}\r\nOrigin: https://evil.example\r\n{UPGRADE}{KEY}\r\n",
    ),
    "a handshake without a key": (400, f"GET /v1/ws HTTP/1.1\r\nHost: {{host}}\r\n{UPGRADE}\r\n"),
    "a handshake of another protocol": (426, f"GET /v1/ws HTTP/1.1\r\nHost: {{host}}\r\n{UPGRADE}{KEY}\r\n"),
    "a handshake of an old version": (
        400,
        f"GET /v1/ws HTTP/1.1\r\nHost: {{host}}\r\n{UPGRADE}{KEY}{OURS}\r\n".replace("Version: 13", "Version: 8"),
    ),
    "a handshake at another path": (404, f"GET /v1/streams HTTP/1.1\r\nHost: {{host}}\r\n{UPGRADE}{KEY}\r\n"),
    "the socket's path without a handshake": (404, "GET /v1/ws HTTP/1.1\r\nHost: {host}\r\n\r\n"),
}


@pytest.mark.parametrize("request_name", WIRE)
async def test_what_never_reaches_the_application(server: ServerProcess, request_name: str) -> None:
    status, text = WIRE[request_name]
    async with asyncio.timeout(CEILING_SECONDS):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(text.replace("{host}", f"127.0.0.1:{server.port}").encode("latin-1"))
        first = (await reader.readline()).decode()
        lines = [line.decode("latin-1").strip() async for line in _until_empty(reader)]
        writer.close()
    assert first.startswith(f"HTTP/1.1 {status} "), (first, lines)
    pairs = [line.split(": ", 1) for line in lines]
    headers = {name.lower(): value for name, value in pairs}
    assert len(headers) == len(pairs), "a header is there twice"
    check(headers, {DATA}, {"no-store"})


async def _until_empty(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while (line := await reader.readline()).strip():
        yield line
