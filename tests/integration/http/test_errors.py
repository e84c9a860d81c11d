"""Every way in which a request can be wrong has its status, its code and the field that it is about."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.support.inprocess import Served, served, store_of
from unbroken.limits import DEFAULT_LIMITS

pytestmark = pytest.mark.anyio

LIMITS = replace(
    DEFAULT_LIMITS,
    body_bytes_max=64 * 1024,
    discard_bytes_max=8 * 1024 * 1024,
    message_bytes_max=8 * 1024,
    append_messages_max=10,
    append_bytes_max=16 * 1024,
)


@pytest.fixture(scope="module", params=["memory", "sqlite"])
async def server(
    anyio_backend: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Served]:
    """A server with one stream of each kind of trouble."""
    directory: Path = tmp_path_factory.mktemp("http")
    async with served(store=store_of(request.param, directory, LIMITS), limits=LIMITS) as made:
        await made.create("open", kind="run", session="s")
        await made.append("open", "1", "2", "3")
        await made.create("ended")
        await made.append("ended", "1", close={"state": "completed"})
        await made.create("trimmed")
        await made.append("trimmed", "1", "2", "3")
        await made.answer(200, "POST", "/v1/trim/trimmed", json={"first": 3})
        await made.create("reborn")
        await made.client.delete("/v1/streams/reborn")
        await made.create("reborn")
        await made.create("leased", lease={"id": "owner", "epoch": 3})
        await made.create("produced")
        await made.append("produced", "1", producer={"id": "p", "epoch": 5, "seq": 0})
        await made.answer(201, "PUT", "/v1/sessions/resting", json={"state": "paused"})
        yield made


@dataclass(frozen=True)
class Bad:
    """A request and the problem that it must give; `facts` are part of those in the answer."""

    method: str
    path: str
    status: int
    code: str
    body: Any = None
    content: bytes | None = None
    facts: dict[str, Any] | None = None
    headers: dict[str, str] | None = None

    def __str__(self) -> str:
        return f"{self.method} {self.path[:40]} {self.body or self.content or ''!r}"[:100]


def field(name: str) -> dict[str, Any]:
    return {"field": name}


POST = ("POST", "/v1/messages/open")
ONE = {"messages": [{"text": "x"}]}
NOBODY = {"id": "", "epoch": 0, "seq": 0}
WITH_BODY = [
    ("PUT", "/v1/streams/new"),
    ("POST", "/v1/messages/open"),
    ("POST", "/v1/close/open"),
    ("POST", "/v1/cancel/open"),
    ("POST", "/v1/lease/open"),
    ("POST", "/v1/pause/open"),
    ("POST", "/v1/resume/open"),
    ("POST", "/v1/trim/open"),
    ("PUT", "/v1/sessions/new"),
    ("POST", "/v1/tickets"),
]
NAMED = [
    ("GET", "/v1/streams/"),
    ("PUT", "/v1/streams/"),
    ("DELETE", "/v1/streams/"),
    ("GET", "/v1/messages/"),
    ("POST", "/v1/messages/"),
    ("POST", "/v1/close/"),
    ("POST", "/v1/cancel/"),
    ("POST", "/v1/pause/"),
    ("POST", "/v1/resume/"),
    ("GET", "/v1/verify/"),
    ("GET", "/v1/sessions/"),
    ("PUT", "/v1/sessions/"),
    ("DELETE", "/v1/sessions/"),
    ("GET", "/v1/session-streams/"),
    ("GET", "/v1/session-messages/"),
]

BODIES = [
    *[Bad(*row, 400, "invalid", content=b"{", facts=field("body")) for row in WITH_BODY],
    *[Bad(*row, 400, "invalid", content=b"[]", facts=field("body")) for row in WITH_BODY],
    *[Bad(*row, 400, "invalid", content=b"\xff\xfe", facts=field("body")) for row in WITH_BODY],
    Bad(*POST, 400, "invalid", content=b'{"messages":[{"json":' + b"[" * 5000, facts=field("body")),
    Bad(*POST, 400, "invalid", content=b'{"messages":[{"json":"\xff"}]}', facts=field("body")),
    Bad("PUT", "/v1/streams/new", 400, "invalid", content=b'{"metadata":{"a":"\xff"}}', facts=field("body")),
    *[Bad(*row, 400, "invalid", body={"no_such": 1}, facts=field("no_such")) for row in WITH_BODY],
    *[Bad(*row, 413, "too_large", content=b" " * 65_537, facts={"limit": "body_bytes_max"}) for row in WITH_BODY],
    Bad("PUT", "/v1/streams/new", 400, "invalid", {"kind": 7}, facts=field("kind")),
    Bad("PUT", "/v1/streams/new", 400, "invalid", {"kind": "k" * 65}, facts=field("kind")),
    Bad("PUT", "/v1/streams/new", 400, "invalid", {"kind": ""}, facts=field("kind")),
    Bad("PUT", "/v1/streams/new", 400, "invalid", {"content_type": "t" * 257}, facts=field("content_type")),
    Bad("PUT", "/v1/streams/new", 400, "invalid", {"session": "../x"}, facts=field("name")),
    Bad("PUT", "/v1/streams/new", 400, "invalid", {"metadata": [1]}, facts=field("metadata")),
    Bad("PUT", "/v1/streams/new", 400, "invalid", {"metadata": "x"}, facts=field("metadata")),
    Bad("PUT", "/v1/streams/new", 413, "too_large", {"metadata": {"a": "x" * 16_384}}),
    Bad("PUT", "/v1/streams/new", 400, "invalid", {"ttl_seconds": -1}, facts=field("ttl_seconds")),
    Bad("PUT", "/v1/streams/new", 400, "invalid", {"ttl_seconds": 10**12}, facts=field("ttl_seconds")),
    Bad("PUT", "/v1/streams/new", 400, "invalid", {"ttl_seconds": 10**30}, facts=field("ttl_seconds")),
    Bad("PUT", "/v1/streams/new", 400, "invalid", {"lease": {"epoch": 1}}, facts=field("lease.id")),
    Bad("PUT", "/v1/streams/new", 400, "invalid", {"lease": {"id": ""}}, facts=field("producer.id")),
    Bad("PUT", "/v1/streams/new", 400, "invalid", {"lease": {"id": "p"}, "lease_seconds": 0.1}),
    Bad("PUT", "/v1/streams/new", 409, "transition", {"session": "resting"}),
    Bad("PUT", "/v1/streams/open", 409, "already_exists", {"kind": "other", "session": "s"}),
    Bad("PUT", "/v1/streams/open", 409, "already_exists", {"kind": "run"}),
    Bad(*POST, 400, "invalid", {}, facts=field("messages")),
    Bad(*POST, 400, "invalid", {"messages": [{}]}, facts=field("messages")),
    Bad(*POST, 400, "invalid", {"messages": [{"text": "a", "json": 1}]}, facts=field("messages")),
    Bad(*POST, 400, "invalid", {"messages": [{"text": 7}]}, facts=field("messages[0].text")),
    Bad(*POST, 400, "invalid", {"messages": [{"text": "a", "seq": 9}]}, facts=field("messages[0].seq")),
    Bad(*POST, 400, "invalid", {"messages": [{"data": "not base64!"}]}, facts=field("messages[0].data")),
    Bad(*POST, 400, "invalid", {"messages": [{"text": "a", "kind": "a b"}]}, facts=field("kind")),
    Bad(*POST, 400, "invalid", content=b'{"messages":[{"json":{"a":tru}}]}', facts=field("body")),
    Bad(*POST, 413, "too_large", {"messages": [{"text": "x" * 9000}]}, facts={"limit": "message_bytes_max"}),
    Bad(*POST, 413, "too_large", {"messages": [{"text": "x"}] * 11}, facts={"limit": "append_messages_max"}),
    Bad(*POST, 413, "too_large", {"messages": [{"text": "x" * 7000}] * 3}, facts={"limit": "append_bytes_max"}),
    Bad(*POST, 400, "invalid", {**ONE, "expected_head": -1}, facts=field("expected_head")),
    Bad(*POST, 400, "invalid", {**ONE, "expected_head": 2**53}, facts=field("expected_head")),
    Bad(*POST, 400, "invalid", {**ONE, "expected_head": "3"}, facts=field("expected_head")),
    Bad(*POST, 409, "conflict", {**ONE, "expected_head": 2}, facts={"head": 3}),
    Bad(*POST, 400, "invalid", {**ONE, "producer": {"id": "p" * 257}}, facts=field("producer.id")),
    Bad(*POST, 400, "invalid", {**ONE, "producer": {"id": "p", "epoch": -1}}, facts=field("producer")),
    Bad(*POST, 400, "invalid", {**ONE, "producer": {"id": "p", "seq": 2**53}}, facts=field("producer")),
    Bad(*POST, 400, "invalid", {**ONE, "close": {"state": "open"}}, facts=field("state")),
    Bad(*POST, 400, "invalid", {**ONE, "close": {"state": "done"}}, facts=field("state")),
    Bad(*POST, 400, "invalid", {**ONE, "close": {"reason": "why"}}, facts=field("reason")),
    Bad(*POST, 400, "invalid", {**ONE, "close": {"reason": {"a": "x" * 4096}}}, facts=field("reason")),
    Bad("POST", "/v1/messages/none", 404, "not_found", ONE),
    Bad("POST", "/v1/messages/none", 400, "invalid", {**ONE, "create": {"kind": ""}}, facts=field("kind")),
    Bad("POST", "/v1/messages/none", 400, "invalid", {**ONE, "create": {"knd": "x"}}, facts=field("create.knd")),
    Bad(
        "POST",
        "/v1/messages/none",
        400,
        "invalid",
        {**ONE, "create": {}, "producer": NOBODY},
        facts=field("producer.id"),
    ),
    Bad("POST", "/v1/messages/ended", 409, "ended", ONE, facts={"head": 1, "state": "completed"}),
    Bad("POST", "/v1/messages/leased", 403, "fenced", {**ONE, "producer": {"id": "thief", "epoch": 9}}),
    Bad("POST", "/v1/messages/produced", 403, "fenced", {**ONE, "producer": {"id": "p", "epoch": 4, "seq": 0}}),
    Bad("POST", "/v1/messages/produced", 409, "producer_gap", {**ONE, "producer": {"id": "p", "epoch": 5, "seq": 2}}),
    Bad("POST", "/v1/close/open", 400, "invalid", {"state": "running"}, facts=field("state")),
    Bad("POST", "/v1/close/open", 400, "invalid", {"reason": [1]}, facts=field("reason")),
    Bad("POST", "/v1/close/ended", 409, "ended", {"state": "failed"}),
    Bad("POST", "/v1/close/none", 404, "not_found", {}),
    Bad("POST", "/v1/cancel/none", 404, "not_found", {}),
    Bad("POST", "/v1/lease/open", 400, "invalid", {}, facts=field("producer")),
    Bad("POST", "/v1/lease/open", 400, "invalid", {"producer": {"id": ""}}, facts=field("producer.id")),
    Bad("POST", "/v1/lease/open", 400, "invalid", {"producer": {"id": "p"}, "seconds": 1e9}, facts=field("seconds")),
    Bad("POST", "/v1/lease/open", 400, "invalid", {"producer": {"id": "p"}, "seconds": -1}, facts=field("seconds")),
    Bad("POST", "/v1/lease/leased", 403, "fenced", {"producer": {"id": "thief", "epoch": 9}, "seconds": 5}),
    Bad("POST", "/v1/lease/ended", 409, "ended", {"producer": {"id": "p"}, "seconds": 5}),
    Bad("POST", "/v1/lease/none", 404, "not_found", {"producer": {"id": "p"}}),
    Bad("POST", "/v1/pause/ended", 409, "ended", {}),
    Bad("POST", "/v1/pause/none", 404, "not_found", {}),
    Bad("POST", "/v1/resume/open", 409, "transition", {}),
    Bad("POST", "/v1/resume/none", 404, "not_found", {}),
    Bad("POST", "/v1/trim/open", 400, "invalid", {}, facts=field("first")),
    Bad("POST", "/v1/trim/open", 400, "invalid", {"first": -1}, facts=field("first")),
    Bad("POST", "/v1/trim/open", 400, "invalid", {"first": 99}),
    Bad("POST", "/v1/trim/none", 404, "not_found", {"first": 1}),
    Bad("PUT", "/v1/sessions/new", 400, "invalid", {"state": "asleep"}, facts=field("state")),
    Bad("PUT", "/v1/sessions/new", 400, "invalid", {"metadata": 1}, facts=field("metadata")),
    Bad("DELETE", "/v1/sessions/s", 409, "already_exists"),
]

QUERIES = [
    *[
        Bad("GET", f"/v1/messages/open?{query}", 400, "invalid", facts=field(name))
        for query, name in [
            ("limit=0", "limit"),
            ("limit=", "limit"),
            ("live=", "live"),
            ("limit=-1", "limit"),
            ("limit=1.5", "limit"),
            ("limit=99999999999999999999", "limit"),
            ("limit=%D9%A3", "limit"),
            ("live=maybe", "live"),
            ("afer=start", "afer"),
            ("after=1&after=2", "after"),
            ("after=4", "after"),
            ("after=1:2:3", "cursor"),
            ("after=last:0", "cursor"),
            ("after=-1", "cursor"),
            ("after=%20", "cursor"),
            ("after=%FF", "query"),
        ]
    ],
    Bad("GET", "/v1/messages/reborn?after=1:0", 410, "epoch_mismatch"),
    Bad("GET", "/v1/messages/trimmed?after=0", 410, "trimmed", facts={"first": 3}),
    Bad("GET", "/v1/messages/trimmed?after=1&live=sse", 410, "trimmed", facts={"first": 3}),
    Bad("GET", "/v1/messages/none", 404, "not_found"),
    Bad("GET", "/v1/messages/none?live=sse", 404, "not_found"),
    Bad("GET", "/v1/messages/none?live=long-poll", 404, "not_found"),
    Bad("GET", "/v1/messages/open?live=sse", 400, "invalid", headers={"Last-Event-ID": "nonsense"}),
    Bad("GET", "/v1/messages/open?live=sse", 410, "epoch_mismatch", headers={"Last-Event-ID": "99:1"}),
    Bad("GET", "/v1/streams?state=asleep", 400, "invalid", facts=field("state")),
    Bad("GET", "/v1/streams?active=yes", 400, "invalid", facts=field("active")),
    Bad("GET", "/v1/streams?limit=x", 400, "invalid", facts=field("limit")),
    *[
        Bad("GET", f"/v1/streams?{name}=", 400, "invalid", facts=field(name))
        for name in ("limit", "state", "active", "run")
    ],
    Bad("GET", "/v1/streams?order=old", 400, "invalid", facts=field("order")),
    Bad("GET", "/v1/streams?page=nonsense", 400, "invalid"),
    Bad("GET", "/v1/streams/open?x=1", 400, "invalid", facts=field("x")),
    Bad("GET", "/v1/sessions?page=nonsense", 400, "invalid"),
    Bad("GET", "/v1/sessions?limit=0", 400, "invalid", facts=field("limit")),
    Bad("GET", "/v1/session-streams/s?page=x", 400, "invalid", facts=field("page")),
    Bad("GET", "/v1/session-messages/s?page=nonsense", 400, "invalid"),
    Bad("GET", "/v1/streams/none", 404, "not_found"),
    Bad("DELETE", "/v1/streams/none", 404, "not_found"),
    Bad("GET", "/v1/verify/none", 404, "not_found"),
    Bad("GET", "/v1/sessions/none", 404, "not_found"),
    Bad("DELETE", "/v1/sessions/none", 404, "not_found"),
    Bad("GET", "/v1/session-streams/none", 404, "not_found"),
    Bad("GET", "/v1/session-messages/none", 404, "not_found"),
    Bad("GET", "/v1/nothing", 404, "not_found"),
    Bad("GET", "/nothing", 404, "not_found"),
    Bad("PATCH", "/v1/streams/open", 405, "protocol"),
    Bad("POST", "/v1/streams", 405, "protocol"),
    Bad("GET", "/v1/close/open", 405, "protocol"),
    Bad("DELETE", "/v1/tickets", 405, "protocol"),
]

NAMES = [
    Bad(method, path + name, 400, "invalid", facts=field("name"))
    for method, path in NAMED
    for name in ("", "a//b", "a/%2E%2E/b", "%2E", "a%00b", "a%0A", "a%1Bb", "%FF", "a%C2%85b", "n" * 513)
]


async def check(server: Served, bad: Bad) -> None:
    options: dict[str, Any] = {"headers": bad.headers or {}}
    if bad.content is not None:
        options["content"] = bad.content
    elif bad.body is not None:
        options["json"] = bad.body
    document = await server.problem(bad.status, bad.code, bad.method, bad.path, **options)
    found = {name: document["facts"].get(name) for name in bad.facts or {}}
    assert found == (bad.facts or {}), document


@pytest.mark.parametrize("bad", BODIES, ids=str)
async def test_a_bad_body_is_told_by_its_field(server: Served, bad: Bad) -> None:
    await check(server, bad)


@pytest.mark.parametrize("bad", QUERIES, ids=str)
async def test_a_bad_query_is_told_by_its_parameter(server: Served, bad: Bad) -> None:
    await check(server, bad)


@pytest.mark.parametrize("bad", NAMES, ids=str)
async def test_a_bad_name_is_refused_on_every_path(server: Served, bad: Bad) -> None:
    await check(server, bad)


async def test_nothing_of_all_that_had_an_effect(server: Served) -> None:
    """Runs last: the streams are as the fixture left them."""
    heads = {view["stream"]: view["head"] for view in (await server.answer(200, "GET", "/v1/streams"))["streams"]}
    assert heads == {"open": 3, "ended": 1, "trimmed": 3, "reborn": 0, "leased": 0, "produced": 1}
    sessions = await server.answer(200, "GET", "/v1/sessions")
    assert {view["session"] for view in sessions["sessions"]} == {"resting", "s"}


async def spaces(bytes_max: int, sent: list[int]) -> AsyncIterator[bytes]:
    while sum(sent) < bytes_max:
        sent.append(4096)
        yield b" " * 4096


async def test_a_body_without_a_length_is_refused_when_it_is_too_large(server: Served) -> None:
    content = spaces(LIMITS.body_bytes_max + 4096, [])
    await server.problem(413, "too_large", "POST", "/v1/messages/open", content=content)


async def test_an_endless_body_is_cut_off(server: Served) -> None:
    sent: list[int] = []
    with contextlib.suppress(httpx2.TransportError):  # the answer may be lost: we close while it is still being sent
        response = await server.client.post("/v1/messages/open", content=spaces(256 * 1024 * 1024, sent))
        assert response.status_code == 413
    assert sum(sent) < 32 * 1024 * 1024
