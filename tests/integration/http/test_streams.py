"""Streams and sessions over HTTP: every row of the table does what PROTOCOL.md 2 says, on both embedded stores."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.inprocess import Served, served, store_of
from unbroken.messages import split_encoded
from unbroken.protocol.chain import chain, genesis
from unbroken.protocol.salts import Salts

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["memory", "sqlite"])
async def server(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Served]:
    async with served(store=store_of(request.param, tmp_path)) as made:
        yield made


async def test_a_stream_is_created_once_and_found_again(server: Served) -> None:
    fields = {"kind": "run", "session": "s", "metadata": {"a": 1}, "ttl_seconds": 60}
    view = await server.answer(201, "PUT", "/v1/streams/build/42", json=fields)
    assert (view["stream"], view["state"], view["cursor"]) == ("build/42", "open", f"{view['epoch']}:0")
    assert view.items() >= fields.items()
    again = await server.answer(200, "PUT", "/v1/streams/build/42", json=fields)
    assert again["epoch"] == view["epoch"]
    assert await server.answer(200, "GET", "/v1/streams/build/42") == again
    assert await server.answer(200, "GET", "/v1/streams/build%2F42") == again


async def test_a_deleted_name_can_be_used_again_with_a_greater_epoch(server: Served) -> None:
    first = await server.create("a")
    assert await server.answer(204, "DELETE", "/v1/streams/a") is None
    await server.problem(404, "not_found", "GET", "/v1/streams/a")
    assert (await server.create("a"))["epoch"] > first["epoch"]


@pytest.mark.parametrize("name", ["a b", "ü/日本", "100%", "a?b#c", "-", "..a", "'\";drop table", "a&b=c+d"])
async def test_a_hostile_name_is_just_a_name(server: Served, name: str) -> None:
    path = "/".join(map(_encoded, name.split("/")))
    assert (await server.create(path))["stream"] == name
    await server.append(path, "x")
    assert (await server.answer(200, "GET", f"/v1/messages/{path}"))["stream"]["stream"] == name


def _encoded(segment: str) -> str:
    return "".join(f"%{byte:02X}" for byte in segment.encode())


async def test_listing_filters_and_pages_newest_first(server: Served) -> None:
    for number in range(5):
        await server.create(f"run/{number}", kind="run", session="s")
    await server.create("other")
    await server.answer(200, "POST", "/v1/close/run/0", json={"state": "failed"})

    async def names(query: str) -> list[str]:
        found = await server.answer(200, "GET", f"/v1/streams?{query}")
        assert found["next"] is None
        return [view["stream"] for view in found["streams"]]

    assert await names("") == ["other", "run/4", "run/3", "run/2", "run/1", "run/0"]
    assert await names("kind=run&active=true") == ["run/4", "run/3", "run/2", "run/1"]
    assert await names("state=failed") == ["run/0"]
    assert await names("active=false") == ["run/0"]
    assert await names("prefix=oth") == ["other"]
    assert await names("session=s&prefix=run/3") == ["run/3"]
    paged, page = [], ""
    while True:
        found = await server.answer(200, "GET", f"/v1/streams?session=s&limit=2&page={page}")
        paged += [view["stream"] for view in found["streams"]]
        assert len(found["streams"]) <= 2
        page = found["next"]
        if page is None:
            break
    assert paged == ["run/4", "run/3", "run/2", "run/1", "run/0"]


async def test_an_append_is_answered_with_its_places(server: Served) -> None:
    epoch = (await server.create("a"))["epoch"]
    answer = await server.append("a", "one", "two")
    assert answer == {
        "first": 1,
        "last": 2,
        "head": 2,
        "state": "open",
        "duplicate": False,
        "cursor": f"{epoch}:2",
    }
    answer = await server.append("a", "three", close={"state": "completed", "reason": {"exit_code": 0}})
    assert (answer["first"], answer["last"], answer["state"]) == (3, 3, "completed")
    view = await server.answer(200, "GET", "/v1/streams/a")
    assert (view["state"], view["reason"], view["head"]) == ("completed", {"exit_code": 0}, 3)


async def test_an_append_creates_the_stream_when_told_how(server: Served) -> None:
    create = {"kind": "run", "session": "s"}
    assert (await server.append("a", "one", create=create))["head"] == 1
    assert (await server.append("a", "two", create=create))["head"] == 2
    view = await server.answer(200, "GET", "/v1/streams/a")
    assert (view["kind"], view["session"], view["head"]) == ("run", "s", 2)


async def test_a_repeated_append_has_no_second_effect(server: Served) -> None:
    await server.create("a")
    first = await server.append("a", "one", producer={"id": "p", "epoch": 1, "seq": 0})
    again = await server.append("a", "one", producer={"id": "p", "epoch": 1, "seq": 0})
    assert (first["duplicate"], again["duplicate"], again["first"], again["head"]) == (False, True, 1, 1)
    await server.append("a", "two", producer={"id": "p", "epoch": 1, "seq": 1})
    old = await server.append("a", "one", producer={"id": "p", "epoch": 1, "seq": 0})
    assert (old["duplicate"], old["first"], old["last"], old["head"]) == (True, 0, 0, 2)


async def test_a_read_is_the_stored_bytes_and_its_hash_can_be_checked(server: Served) -> None:
    view = await server.create("a")
    payload = base64.b64encode(b"\x00\xff").decode()
    body = b'{"messages":[{"json":{"n":1.50,"big":12345678901234567890, "e":1e400}},{"data":"%b"},{"text":"\\u00e4"}]}'
    response = await server.client.post("/v1/messages/a", content=body % payload.encode())
    assert response.status_code == 200, response.text
    response = await server.client.get("/v1/messages/a")
    inside = response.content.partition(b'"messages":[')[2].removesuffix(b"]}")
    assert b'"n":1.50,"big":12345678901234567890, "e":1e400' in inside
    messages = split_encoded(inside)
    assert len(messages) == 3
    page = response.json()
    salts = Salts(base64.b64decode(page["salts"]))
    assert chain(genesis("local", "a", view["epoch"]), 1, messages, salts).hex() == page["hash"]


async def test_reads_go_on_where_the_cursor_is(server: Served) -> None:
    epoch = (await server.create("a"))["epoch"]
    for number in range(1, 8):
        await server.append("a", str(number))

    async def read(query: str) -> tuple[list[str], int, int, bool]:
        found = await server.answer(200, "GET", f"/v1/messages/a?{query}")
        assert found["cursor"] == f"{epoch}:{found['last']}"
        return [message["text"] for message in found["messages"]], found["first"], found["last"], found["up_to_date"]

    assert await read("") == (list("1234567"), 1, 7, True)
    assert await read(f"after={epoch}:3&limit=2") == (["4", "5"], 4, 5, False)
    assert await read("after=5") == (["6", "7"], 6, 7, True)
    assert await read("after=last:2") == (["6", "7"], 6, 7, True)
    assert await read("after=last:99") == (list("1234567"), 1, 7, True)
    assert await read("after=now") == ([], 8, 7, True)
    await server.answer(200, "POST", "/v1/trim/a", json={"first": 5})
    assert await read("after=start") == (["5", "6", "7"], 5, 7, True)
    assert await read("after=4") == (["5", "6", "7"], 5, 7, True)


async def test_a_stream_is_closed_once_and_closing_it_the_same_way_again_is_harmless(server: Served) -> None:
    await server.create("a")
    for _ in range(2):
        view = await server.answer(200, "POST", "/v1/close/a", json={"reason": {"why": "done"}})
        assert (view["state"], view["reason"]) == ("completed", {"why": "done"})
    await server.problem(409, "ended", "POST", "/v1/close/a", json={"state": "cancelled"})


async def test_cancelling_is_idempotent_and_asks_a_leased_producer(server: Served) -> None:
    await server.create("free")
    await server.create("leased", lease={"id": "p", "epoch": 1}, lease_seconds=60)
    for _ in range(2):
        assert (await server.answer(202, "POST", "/v1/cancel/free"))["state"] == "cancelled"
        view = await server.answer(202, "POST", "/v1/cancel/leased")
        assert (view["state"], view["cancel_requested"], view["producer"]) == ("running", True, "p")


async def test_a_lease_is_taken_renewed_and_given_back(server: Served) -> None:
    await server.create("a")
    lease = {"producer": {"id": "p", "epoch": 1}}
    assert (await server.answer(200, "POST", "/v1/lease/a", json=lease))["state"] == "running"
    assert (await server.answer(200, "POST", "/v1/lease/a", json={**lease, "seconds": 9}))["producer"] == "p"
    assert (await server.answer(200, "POST", "/v1/lease/a", json={**lease, "seconds": 0}))["state"] == "open"


async def test_pausing_and_resuming(server: Served) -> None:
    await server.create("a")
    assert (await server.answer(200, "POST", "/v1/pause/a"))["state"] == "paused"
    assert (await server.answer(200, "POST", "/v1/resume/a", json={}))["state"] == "open"


async def test_verify_says_what_it_checked(server: Served) -> None:
    await server.create("a")
    await server.append("a", "one", "two", "three")
    found = await server.answer(200, "GET", "/v1/verify/a")
    view = await server.answer(200, "GET", "/v1/streams/a")
    assert found == {
        "ok": True,
        "checked": 3,
        "first": 1,
        "last": 3,
        "bad": None,
        "bad_last": None,
        "erased": 0,
        "hash": view["hash"],
    }


async def test_a_session_lives_from_put_to_delete(server: Served) -> None:
    made = await server.answer(201, "PUT", "/v1/sessions/chat/1", json={"metadata": {"user": "u"}})
    assert (made["session"], made["state"], made["metadata"]) == ("chat/1", "active", {"user": "u"})
    changed = await server.answer(200, "PUT", "/v1/sessions/chat/1", json={"state": "paused"})
    assert (changed["state"], changed["metadata"]) == ("paused", {"user": "u"})
    assert await server.answer(200, "GET", "/v1/sessions/chat/1") == changed
    assert (await server.answer(200, "GET", "/v1/sessions"))["sessions"] == [changed]
    assert await server.answer(204, "DELETE", "/v1/sessions/chat/1") is None
    await server.problem(404, "not_found", "GET", "/v1/sessions/chat/1")


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
async def test_the_streams_of_a_session_come_oldest_first_in_pages(server: Served, limit: int) -> None:
    for number in range(7):
        await server.create(f"s/{number}", session="s")
        await server.create(f"t/{number}", session="t")
    found: list[str] = []
    page = ""
    while True:
        answer = await server.answer(200, "GET", f"/v1/session-streams/s?limit={limit}&page={page}")
        names = [view["stream"] for view in answer["streams"]]
        assert len(names) <= limit
        found += names
        page = answer["next"]
        if page is None:
            break
        if names == ["s/1"]:
            await server.client.delete("/v1/streams/s/0")  # what a page's end named may be gone
    assert found == [f"s/{number}" for number in range(7)]


async def test_all_messages_of_a_session_come_in_order_and_in_pages(server: Served) -> None:
    for number in range(3):
        await server.create(f"s/{number}", session="s")
    for turn in range(4):
        for number in range(3):
            await server.append(f"s/{number}", f"{number}-{turn}-a", f"{number}-{turn}-b")
    found: dict[str, list[str]] = {}
    order: list[str] = []
    page = ""
    while True:
        answer = await server.answer(200, "GET", f"/v1/session-messages/s?limit=3&page={page}")
        for batch in answer["batches"]:
            texts = found.setdefault(batch["stream"], [])
            assert batch["first"] == len(texts) + 1
            texts += [message["text"] for message in batch["messages"]]
            order.append(batch["stream"])
        page = answer["next"]
        if page is None:
            break
    assert order == sorted(order)
    assert found == {
        f"s/{number}": [f"{number}-{turn}-{part}" for turn in range(4) for part in "ab"] for number in range(3)
    }


async def test_head_answers_as_get_without_a_body_and_options_says_what_there_is(server: Served) -> None:
    await server.create("a")
    await server.append("a", "x")
    for path in ("/v1/streams", "/v1/streams/a", "/v1/messages/a", "/v1/verify/a", "/v1/sessions"):
        head, get = await server.client.head(path), await server.client.get(path)
        assert (head.status_code, head.content) == (200, b"")
        for name in ("content-type", "content-length", "cache-control"):
            assert head.headers[name] == get.headers[name], name
    assert (await server.client.head("/v1/streams/none")).status_code == 404
    options = await server.client.options("/v1/streams/a")
    assert (options.status_code, options.headers["allow"]) == (204, "GET, PUT, DELETE, HEAD, OPTIONS")
