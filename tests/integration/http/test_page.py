"""The built-in page: right types, hard headers, nothing outside of its folder, under any prefix."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
from starlette.routing import Mount, Router

from tests.support.inprocess import CEILING_SECONDS, serving
from unbroken.auth.access import Access
from unbroken.limits import DEFAULT_LIMITS
from unbroken.server import page
from unbroken.server.app import build_services
from unbroken.server.middleware import ProblemMiddleware
from unbroken.store.memory import MemoryStore

pytestmark = pytest.mark.anyio

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
    "trusted-types 'none'"
)
FILES = {
    "index.html": ("/", "text/html; charset=utf-8"),
    "app.js": ("/static/app.js", "text/javascript; charset=utf-8"),
    "style.css": ("/static/style.css", "text/css; charset=utf-8"),
    "vendor/lib.mjs": ("/static/vendor/lib.mjs", "text/javascript; charset=utf-8"),
    "vendor/LICENSE.lib": ("/static/vendor/LICENSE.lib", "text/plain; charset=utf-8"),
    "icon.svg": ("/static/icon.svg", "image/svg+xml"),
    "data.bin": ("/static/data.bin", "application/octet-stream"),
}


@pytest.fixture(scope="module", params=["", "/prefix", "/a/b"])
async def client(
    anyio_backend: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[httpx2.AsyncClient]:
    """A server with a page of its own, mounted somewhere."""
    folder: Path = tmp_path_factory.mktemp("page")
    (folder / "secret.txt").write_text("secret")
    root = folder / "web"
    for name in [*FILES, "module.py", "__pycache__/module.pyc"]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"content of {name}")
    services = build_services(MemoryStore(limits=DEFAULT_LIMITS), Access())
    app = ProblemMiddleware(Router(page.routes(services, root)), services)
    prefix: str = request.param
    async with serving(Router([Mount(prefix, app=app)]) if prefix else app) as made:
        made.base_url = made.base_url.join(prefix + "/")
        yield made


@pytest.mark.parametrize(("name", "path", "media_type"), [(name, *rest) for name, rest in FILES.items()])
async def test_each_file_is_served_as_what_it_is(
    client: httpx2.AsyncClient, name: str, path: str, media_type: str
) -> None:
    response = await client.get(path)
    assert (response.status_code, response.text) == (200, f"content of {name}")
    headers = response.headers
    assert headers["content-type"] == media_type
    assert headers["content-security-policy"] == CSP
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["cache-control"] == "no-cache"
    head = await client.head(path)
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", headers["content-length"])


async def test_what_was_fetched_before_is_not_sent_again(client: httpx2.AsyncClient) -> None:
    for path in ("/", "/static/app.js"):
        etag = (await client.get(path)).headers["etag"]
        for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
            response = await client.get(path, headers={"If-None-Match": known})
            assert (response.status_code, response.content, response.headers["etag"]) == (304, b"", etag)
        assert (await client.get(path, headers={"If-None-Match": '"other"'})).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/static/../../secret.txt",
        "/static/..%2F..%2Fsecret.txt",
        "/static/%2e%2e/%2e%2e/secret.txt",
        "/static/....//secret.txt",
        "/static//etc/passwd",
        "/static/..%5c..%5csecret.txt",
        "/static/vendor/../app.js",
        "/static/vendor",
        "/static/vendor/",
        "/static/",
        "/static",
        "/static/module.py",
        "/static/__pycache__/module.pyc",
        "/static/APP.JS",
        "/static/app.js%00.png",
        "/index.html",
    ],
)
async def test_nothing_else_can_be_had(client: httpx2.AsyncClient, path: str) -> None:
    # written to the socket as it stands: a client library would tidy the path
    base = client.base_url
    async with asyncio.timeout(CEILING_SECONDS):
        reader, writer = await asyncio.open_connection(base.host, base.port)
        target = base.path.rstrip("/") + path
        writer.write(f"GET {target} HTTP/1.1\r\nHost: {base.host}:{base.port}\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
    status = int(answer.split(b" ", 2)[1])
    assert status in {400, 404}, answer
    assert b"secret" not in answer.partition(b"\r\n\r\n")[2].replace(path.encode(), b"")


async def test_only_reading_is_a_method(client: httpx2.AsyncClient) -> None:
    for path in ("/", "/static/app.js"):
        response = await client.post(path)
        assert (response.status_code, response.headers["allow"]) == (405, "GET, HEAD")


async def test_a_prefix_without_its_slash_leads_to_the_page() -> None:
    services = build_services(MemoryStore(limits=DEFAULT_LIMITS), Access())
    app = ProblemMiddleware(Router(page.routes(services)), services)

    async def mounted(scope: object, receive: object, send: object) -> None:
        await app({**scope, "root_path": "/a/b c"}, receive, send)  # type: ignore[dict-item,arg-type]

    async with serving(mounted) as client:
        response = await client.get("/a/b%20c")
        assert response.status_code == 307
        assert response.headers["location"] == "./b%20c/"
        assert (await client.get("/a/b%20c", follow_redirects=True)).status_code in {200, 404}
    async with serving(Router([Mount("/prefix", app=app)])) as client:
        response = await client.get("/prefix")
        assert response.status_code == 307
        assert response.headers["location"].endswith("/prefix/")


async def test_the_package_has_its_page() -> None:
    services = build_services(MemoryStore(limits=DEFAULT_LIMITS), Access())
    async with serving(ProblemMiddleware(Router(page.routes(services)), services)) as client:
        response = await client.get("/static/vendor/preact.mjs")
        assert response.headers["content-type"] == "text/javascript; charset=utf-8"
        assert len(response.content) > 1000
