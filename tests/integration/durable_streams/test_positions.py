"""Where a reader of the Durable Streams face is: what the public suite cannot know of epochs, trimming and pages."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.database import connect
from tests.support.inprocess import Served, served, store_of
from unbroken.identity import Principal, Verb
from unbroken.messages import StreamState
from unbroken.requests import AppendOptions
from unbroken.store.base import Close

pytestmark = pytest.mark.anyio
TEXT = {"Content-Type": "text/plain"}
JSON = {"Content-Type": "application/json"}
NEXT = "stream-next-offset"
WAYS: tuple[dict[str, str], ...] = ({}, {"live": "long-poll"}, {"live": "sse"})
"""Every way of reading."""


@pytest.fixture(params=["memory", "sqlite"])
async def server(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Served]:
    async with served(store=store_of(request.param, tmp_path)) as running:
        yield running


async def put(server: Served, name: str, body: bytes | str = b"", **headers: str) -> str:
    """Create a text stream; its tail."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    response = await server.client.put(f"/v1/stream/{name}", content=body, headers={**TEXT, **names})
    assert response.status_code == 201, response.text
    return str(response.headers[NEXT])


async def post(server: Served, name: str, body: bytes | str) -> str:
    response = await server.client.post(f"/v1/stream/{name}", content=body, headers=TEXT)
    assert response.status_code == 204, response.text
    return str(response.headers[NEXT])


async def everything(server: Served, name: str) -> tuple[bytes, list[str]]:
    """The whole stream read page by page, and the offsets behind the pages."""
    body, offsets = b"", ["-1"]
    while True:
        response = await server.client.get(f"/v1/stream/{name}", params={"offset": offsets[-1]})
        assert response.status_code == 200, response.text
        body += response.content
        offsets.append(response.headers[NEXT])
        if "stream-up-to-date" in response.headers:
            return body, offsets


async def test_an_offset_of_an_earlier_stream_of_the_name_is_gone(server: Served) -> None:
    old = await put(server, "a", "one")
    assert (await server.client.delete("/v1/stream/a")).status_code == 204
    new = await put(server, "a", "two")
    assert new > old
    for live in WAYS:
        await server.problem(410, "epoch_mismatch", "GET", "/v1/stream/a", params={"offset": old, **live})
    headers = {"Stream-Forked-From": "/v1/stream/a", "Stream-Fork-Offset": old}
    await server.problem(400, "invalid", "PUT", "/v1/stream/fork", headers=headers)


async def test_an_offset_beyond_the_tail_is_refused(server: Served) -> None:
    tail = await put(server, "a", "one")
    beyond = f"{tail[:-1]}2"
    for live in WAYS:
        await server.problem(400, "invalid", "GET", "/v1/stream/a", params={"offset": beyond, **live})


async def test_a_trimmed_prefix_is_gone_and_the_start_is_what_is_left(server: Served) -> None:
    offsets = [await put(server, "a"), *[await post(server, "a", text) for text in ("one", "two", "three")]]
    await server.answer(200, "POST", "/v1/trim/a", json={"first": 3})
    for live in WAYS:
        problem = await server.problem(410, "trimmed", "GET", "/v1/stream/a", params={"offset": offsets[1], **live})
        assert problem["facts"] == {"first": 3, "stream": "a"}
    for offset in ("-1", "0000000000000000_0000000000000000", offsets[2]):
        assert (await server.client.get("/v1/stream/a", params={"offset": offset})).content == b"three"


async def test_a_large_body_is_stored_in_pieces_and_read_in_pages(server: Served) -> None:
    body = "".join(f"{number:07d}\n" for number in range(300_000))
    await put(server, "a")
    response = await server.client.post("/v1/stream/a", content=body, headers=TEXT)
    assert response.status_code == 204
    assert response.headers[NEXT].endswith("_0000000000000019")
    read, offsets = await everything(server, "a")
    assert read == body.encode()
    assert len(offsets) > 3
    assert offsets[1:] == sorted(offsets[1:])


async def test_a_page_that_is_not_the_last_is_neither_up_to_date_nor_closed(server: Served) -> None:
    await put(server, "a", "x" * 2_000_000, Stream_Closed="true")
    first = await server.client.get("/v1/stream/a")
    assert not {"stream-up-to-date", "stream-closed"} & set(first.headers)
    again = await server.client.get("/v1/stream/a", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content, again.headers[NEXT]) == (304, b"", first.headers[NEXT])


async def test_the_tag_changes_when_the_stream_ends(server: Served) -> None:
    await put(server, "a", "x")
    tag = (await server.client.get("/v1/stream/a")).headers["etag"]
    await server.client.post("/v1/stream/a", headers={"Stream-Closed": "true"})
    response = await server.client.get("/v1/stream/a", headers={"If-None-Match": tag})
    assert (response.status_code, response.headers["stream-closed"]) == (200, "true")


async def test_one_stream_is_seen_by_both_faces(server: Served) -> None:
    await server.client.put("/v1/stream/a", content='[{"a": 1}, 2]', headers=JSON)
    view = await server.answer(200, "GET", "/v1/streams/a")
    assert (view["kind"], view["content_type"], view["head"]) == ("durable", "application/json", 2)
    native = await server.answer(200, "GET", "/v1/messages/a")
    assert [(message["json"], message.get("continues", False)) for message in native["messages"]] == [
        ({"a": 1}, False),
        (2, True),
    ]
    await server.append("a", "three")
    assert (await server.client.get("/v1/stream/a")).json() == [{"a": 1}, 2, "three"]


async def test_a_stream_of_the_native_face_is_found_by_its_content_type(server: Served) -> None:
    await server.create("a", content_type="application/json")
    assert (await server.client.put("/v1/stream/a", headers=JSON)).status_code == 200
    await server.problem(409, "already_exists", "PUT", "/v1/stream/a", headers=TEXT)


async def test_how_a_stream_ended_is_told_beside_that_it_is_closed(server: Served) -> None:
    await put(server, "a", "x")
    streams = server.services.streams
    info = await streams.get(Principal(), "a", may=Verb.READ)
    await streams.append_durably(info, [], AppendOptions(close=Close(StreamState.FAILED, json.dumps({"why": "no"}))))
    for method in ("GET", "HEAD"):
        response = await server.client.request(method, "/v1/stream/a")
        assert (response.headers["stream-closed"], response.headers["stream-state"]) == ("true", "failed")
    async with server.events("/v1/stream/a?offset=-1&live=sse") as events:
        found = await events.rest()
    assert [event.event for event in found] == ["data", "control"]
    assert json.loads(found[1].data)["streamState"] == "failed"


async def test_inherited_places_of_a_fork_are_those_of_its_source(server: Served) -> None:
    one = await put(server, "source", "one")
    two = await post(server, "source", "two")
    assert await put(server, "fork", Stream_Forked_From="/v1/stream/source", Stream_Fork_Offset=one) == one
    three = await post(server, "fork", "three")
    assert three > one
    assert three[:16] != one[:16]
    assert (await server.client.get("/v1/stream/fork", params={"offset": one})).content == b"three"
    await server.problem(410, "epoch_mismatch", "GET", "/v1/stream/fork", params={"offset": two})
    assert await put(server, "deep", Stream_Forked_From="/v1/stream/fork", Stream_Fork_Offset=one) == one
    assert await put(server, "deeper", Stream_Forked_From="/v1/stream/fork") == three
    assert (await everything(server, "deeper"))[0] == b"onethree"


async def test_a_sub_offset_counts_bytes_through_the_pieces_of_one_append(server: Served) -> None:
    body = "".join(f"{number:07d}\n" for number in range(40_000))
    await put(server, "source", body)
    await post(server, "source", "another append")
    fork: dict[str, str] = {}
    for name, count in (("inside", 131_073), ("edge", 131_072), ("whole", len(body))):
        fork = {
            "Stream-Forked-From": "/v1/stream/source",
            "Stream-Fork-Offset": "0" * 16 + "_" + "0" * 16,
            "Stream-Fork-Sub-Offset": str(count),
        }
        url = f"/v1/stream/{name}"
        assert (await server.client.put(url, headers={**TEXT, **fork})).status_code == 201
        assert (await everything(server, name))[0] == body[:count].encode()
        assert (await server.client.put(url, headers={**TEXT, **fork})).status_code == 200
        fork["Stream-Fork-Sub-Offset"] = str(count - 1)
        assert (await server.client.put(url, headers={**TEXT, **fork})).status_code == 409
    fork["Stream-Fork-Sub-Offset"] = str(len(body) + 1)
    await server.problem(400, "invalid", "PUT", "/v1/stream/more", headers={**TEXT, **fork})


async def test_a_sub_offset_may_cut_a_character(server: Served) -> None:
    await put(server, "source", "a\u00e9")
    fork = {"Stream_Forked_From": "/v1/stream/source", "Stream_Fork_Offset": "0" * 16 + "_" + "0" * 16}
    await put(server, "fork", Stream_Fork_Sub_Offset="2", **fork)
    assert (await everything(server, "fork"))[0] == b"a\xc3"


async def test_a_fork_that_somebody_has_made_its_own_source_is_corrupt(tmp_path: Path) -> None:
    async with served(store=store_of("sqlite", tmp_path)) as server, asyncio.timeout(60):
        offset = await put(server, "source", "one")
        await put(server, "fork", Stream_Forked_From="/v1/stream/source", Stream_Fork_Offset=offset)
        with closing(connect(tmp_path / "http.db")) as raw:
            raw.execute("UPDATE stream SET forked_from = id WHERE name = 'fork'")
        await server.problem(500, "corrupt", "GET", "/v1/stream/fork", params={"offset": offset})
