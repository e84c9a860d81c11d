"""Writing through the Durable Streams face: races, expiry, producers, names and credentials."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from starlette.routing import Mount, Router

from tests.support.inprocess import Served, served, serving, store_of
from unbroken.auth.access import Access
from unbroken.limits import Limits
from unbroken.server.durable_streams import routes
from unbroken.server.middleware import ProblemMiddleware

pytestmark = pytest.mark.anyio
TEXT = {"Content-Type": "text/plain"}
PAST = {**TEXT, "Stream-Expires-At": "2001-01-01T00:00:00Z"}
# Retention never runs here: what is expired must be so without it.
LIMITS = Limits(reap_interval_seconds=3_600, body_bytes_max=65_536, append_messages_max=10)
METHODS = ("GET", "HEAD", "POST", "DELETE")


@pytest.fixture(params=["memory", "sqlite"])
async def server(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Served]:
    async with served(store=store_of(request.param, tmp_path, LIMITS), limits=LIMITS) as running:
        yield running


def producer(name: str, epoch: int, seq: int) -> dict[str, str]:
    return {**TEXT, "Producer-Id": name, "Producer-Epoch": str(epoch), "Producer-Seq": str(seq)}


async def test_of_many_creators_one_creates(server: Served) -> None:
    responses = await asyncio.gather(
        *[server.client.put("/v1/stream/a", content=f"{number}", headers=TEXT) for number in range(20)]
    )
    assert sorted(response.status_code for response in responses) == [200] * 19 + [201]
    assert len({response.headers["stream-next-offset"] for response in responses}) == 1
    assert len((await server.client.get("/v1/stream/a")).content) in {1, 2}


@pytest.mark.parametrize("method", METHODS)
async def test_an_expired_stream_is_not_there_though_nothing_has_deleted_it(server: Served, method: str) -> None:
    assert (await server.client.put("/v1/stream/a", content="x", headers=PAST)).status_code == 201
    content = "y" if method == "POST" else None
    response = await server.client.request(method, "/v1/stream/a", headers=TEXT, content=content)
    assert response.status_code == 404


async def test_an_expired_stream_is_created_anew(server: Served) -> None:
    old = await server.client.put("/v1/stream/a", content="x", headers=PAST)
    new = await server.client.put("/v1/stream/a", content="y", headers=TEXT)
    assert new.status_code == 201
    assert new.headers["stream-next-offset"] > old.headers["stream-next-offset"]
    assert (await server.client.get("/v1/stream/a")).content == b"y"


async def test_an_expired_source_cannot_be_forked(server: Served) -> None:
    await server.client.put("/v1/stream/a", content="x", headers=PAST)
    response = await server.client.put("/v1/stream/b", headers={**TEXT, "Stream-Forked-From": "/v1/stream/a"})
    assert response.status_code == 404


async def test_reading_does_not_write_for_less_than_a_hundredth_of_the_time_to_live(server: Served) -> None:
    await server.client.put("/v1/stream/a", content="x", headers={**TEXT, "Stream-TTL": "100000"})
    commits = await commits_of(server)
    for query in ("", "?offset=now", "?offset=-1&live=long-poll"):
        assert (await server.client.get(f"/v1/stream/a{query}")).status_code == 200
    assert await commits_of(server) == commits
    await server.client.put("/v1/stream/b", content="x", headers={**TEXT, "Stream-TTL": "1"})
    await asyncio.sleep(0.02)  # a fiftieth of its time
    assert (await server.client.get("/v1/stream/b")).status_code == 200
    assert await commits_of(server) == commits + 2


async def test_reading_goes_on_when_nothing_can_be_written(server: Served) -> None:
    await server.client.put("/v1/stream/a", content="x", headers={**TEXT, "Stream-TTL": "1"})
    await asyncio.sleep(0.02)
    await server.services.log.drain()
    response = await server.client.get("/v1/stream/a")
    assert (response.status_code, response.content) == (200, b"x")


@pytest.mark.parametrize("content_type", ["text/html\r\nX-Evil: 1", "text/\u00e9", "text/\u65e5\u672c", "text/x\0"])
async def test_a_content_type_that_no_header_can_carry_reaches_none(server: Served, content_type: str) -> None:
    await server.client.put("/v1/streams/a", json={"content_type": content_type})
    for method in ("GET", "HEAD"):
        response = await server.client.request(method, "/v1/stream/a")
        assert response.status_code in {200, 404}  # 404 where the native face does not take such a type
        assert "x-evil" not in response.headers
        assert response.headers["content-type"] in {"application/octet-stream", "application/problem+json"}
    response = await server.client.put("/v1/stream/b", headers={b"Content-Type": "text/\u00e9".encode("latin-1")})
    assert response.status_code == 400


async def test_a_browser_runs_nothing_of_a_streams_content(server: Served) -> None:
    await server.client.put("/v1/stream/a", content="<script>alert(1)</script>", headers={"Content-Type": "text/html"})
    for query in ("", "?offset=-1&live=long-poll"):
        response = await server.client.get(f"/v1/stream/a{query}")
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["content-security-policy"] == "sandbox; default-src 'none'; frame-ancestors 'none'"


async def commits_of(server: Served) -> int:
    lines = (await server.client.get("/metrics")).text.splitlines()
    return int(float(next(line.split()[1] for line in lines if line.startswith("unbroken_commits_total "))))


async def test_below_a_prefix_everything_is_below_it(server: Served) -> None:
    inner = ProblemMiddleware(Router(routes=routes(server.services)), server.services)
    async with serving(Router(routes=[Mount("/pre/fix", app=inner)])) as client:
        response = await client.put("/pre/fix/v1/stream/a/b", content="x", headers=TEXT)
        assert response.headers["location"] == str(client.base_url.join("/pre/fix/v1/stream/a/b"))
        fork = {**TEXT, "Stream-Forked-From": "/pre/fix/v1/stream/a/b"}
        assert (await client.put("/pre/fix/v1/stream/fork", headers=fork)).status_code == 201
        fork["Stream-Forked-From"] = "/v1/stream/a/b"
        assert (await client.put("/pre/fix/v1/stream/other", headers=fork)).status_code == 404


async def test_a_producer_hears_why_it_is_refused(server: Served) -> None:
    await server.client.put("/v1/stream/a", headers=TEXT)

    async def append(name: str, epoch: int, seq: int) -> tuple[int, dict[str, str]]:
        response = await server.client.post("/v1/stream/a", content="x", headers=producer(name, epoch, seq))
        told = {name: value for name, value in response.headers.items() if name.startswith("producer-")}
        return response.status_code, told

    gap = {"producer-expected-seq": "0", "producer-received-seq": "3"}
    assert await append("p", 5, 3) == (409, gap)
    assert await append("p", 5, 0) == (200, {"producer-epoch": "5", "producer-seq": "0"})
    assert await append("p", 5, 1) == (200, {"producer-epoch": "5", "producer-seq": "1"})
    assert await append("p", 5, 0) == (204, {"producer-epoch": "5", "producer-seq": "1"})
    assert await append("p", 4, 9) == (403, {"producer-epoch": "5"})
    assert await append("p", 6, 1) == (400, {})
    assert await append("p", 5, 3) == (409, {"producer-expected-seq": "2", "producer-received-seq": "3"})
    assert (await server.client.get("/v1/stream/a")).content == b"xx"


async def test_a_leased_stream_takes_nothing_from_others(server: Served) -> None:
    await server.client.put("/v1/stream/a", headers=TEXT)
    await server.answer(200, "POST", "/v1/lease/a", json={"producer": {"id": "run", "epoch": 2}, "seconds": 60})
    await server.problem(403, "fenced", "POST", "/v1/stream/a", content="x", headers=TEXT)
    response = await server.client.post("/v1/stream/a", content="x", headers=producer("run", 2, 0))
    assert response.status_code == 200


async def test_bodies_beyond_the_limits_are_refused_whole(server: Served) -> None:
    headers = {"Content-Type": "application/json"}
    await server.client.put("/v1/stream/a", headers=headers)
    many = str(list(range(11)))
    problem = await server.problem(413, "too_large", "POST", "/v1/stream/a", content=many, headers=headers)
    assert problem["facts"]["limit"] == "append_messages_max"
    large = b" " * 65_537
    problem = await server.problem(413, "too_large", "POST", "/v1/stream/a", content=large, headers=headers)
    assert problem["facts"]["limit"] == "body_bytes_max"
    assert (await server.client.get("/v1/stream/a")).json() == []


@pytest.mark.parametrize("name", ["__ds", "__ds/subscriptions/x", "a/__ds/b"])
async def test_the_reserved_segment_names_no_stream(server: Served, name: str) -> None:
    await server.problem(404, "not_found", "PUT", f"/v1/stream/{name}", headers=TEXT)


@pytest.mark.parametrize("path", ["a//b", "a/%2e%2e/b", "a%00b", "%ff"])
async def test_a_bad_name_is_refused(server: Served, path: str) -> None:
    response = await server.client.put(f"/v1/stream/{path}", headers=TEXT)
    assert response.status_code == 400


async def test_the_location_is_the_whole_url_as_it_was_written(server: Served) -> None:
    response = await server.client.put("/v1/stream/caf%C3%A9/a%20b", headers=TEXT)
    assert response.headers["location"] == f"http://127.0.0.1:{server.port}/v1/stream/caf%C3%A9/a%20b"
    assert (await server.answer(200, "GET", "/v1/streams/caf%C3%A9/a%20b"))["stream"] == "caf\u00e9/a b"


async def test_a_source_is_named_as_in_a_url(server: Served) -> None:
    await server.client.put("/v1/stream/a%20b", content="x", headers=TEXT)
    root = f"http://127.0.0.1:{server.port}"
    for number, source in enumerate(("/v1/stream/a%20b", f"{root}/v1/stream/a%20b")):
        response = await server.client.put(f"/v1/stream/fork{number}", headers={**TEXT, "Stream-Forked-From": source})
        assert response.status_code == 201
    for source in ("a%20b", "/v1/streams/a%20b", "/v1/stream/", "http://["):
        response = await server.client.put("/v1/stream/other", headers={**TEXT, "Stream-Forked-From": source})
        assert response.status_code == 404, source


async def test_another_method_is_told_which_there_are(server: Served) -> None:
    response = await server.client.request("PATCH", "/v1/stream/a")
    assert (response.status_code, "PUT" in response.headers["allow"]) == (405, True)


@pytest.mark.parametrize("query", ["offset=-1&offset=-1", "live=sse", "live=x&offset=-1", "offset=%FF", "offset="])
async def test_a_bad_query_is_refused(server: Served, query: str) -> None:
    await server.client.put("/v1/stream/a", headers=TEXT)
    await server.problem(400, "invalid", "GET", f"/v1/stream/a?{query}")


async def test_every_method_wants_the_token() -> None:
    async with served(access=Access(token="sesame")) as server:
        for method in ("PUT", *METHODS):
            response = await server.client.request(method, "/v1/stream/a", headers=TEXT)
            assert response.status_code == 401, method
        server.client.headers["Authorization"] = "Bearer sesame"
        await server.client.put("/v1/stream/a", content="x", headers=TEXT)
        response = await server.client.get("/v1/stream/a")
        assert response.headers["cache-control"] == "no-store"


async def test_without_a_token_anybody_may_cache_what_was_read(server: Served) -> None:
    await server.client.put("/v1/stream/a", content="x", headers=TEXT)
    response = await server.client.get("/v1/stream/a")
    assert response.headers["cache-control"] == "public, max-age=60, stale-while-revalidate=300"
