"""Hostile names, payloads, metadata, cursors and filters on every entry: stored and returned as data, or refused."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from tests.support.inprocess import Served, served, store_of
from tests.support.speeds import Peer
from unbroken.auth.access import Access
from unbroken.auth.stored import NewToken
from unbroken.errors import InvalidError
from unbroken.identity import Principal
from unbroken.limits import DEFAULT_LIMITS
from unbroken.messages import check_name
from unbroken.protocol.frames import PROTOCOL

pytestmark = [pytest.mark.anyio, pytest.mark.scenario("INTEG-003")]
FRAGMENTS = (
    *("'", '"', "';--", "%", "_", "\\", "*", "?1", ":x", "$.a", "[0]", "/", "..", "\u202e", "\U0010ffff", "é", "日"),
    *(
        "' OR 1=1 --",
        "'); DROP TABLE stream; --",
        "/*stream_columns*/",
        "json_each(?1)",
        "\x00",
        "\n",
        "\x01",
        " ",
        "{}",
        "a",
    ),
)
HOSTILE = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=3), min_size=1, max_size=4).map("".join)


def names_well(name: str) -> bool:
    try:
        check_name(name, DEFAULT_LIMITS)
    except InvalidError:
        return False
    return True


NAMES = HOSTILE.filter(names_well)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Served]:
    access = Access(token="the-operators-own-in-this-test")
    async with served(store=store_of("sqlite", tmp_path), access=access) as made:
        yield made


async def test_whatever_is_sent_is_data(server: Served, tmp_path: Path) -> None:
    loop, owners = asyncio.get_running_loop(), count()

    @settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(NAMES, min_size=2, max_size=3, unique=True), HOSTILE, NAMES)
    def holds(names: list[str], text: str, session: str) -> None:
        owner = Principal("it's", f'"{next(owners)}')
        asyncio.run_coroutine_threadsafe(scene(server, owner, (names, text, session)), loop).result(120)

    await asyncio.to_thread(holds)
    database = sqlite3.connect(f"file:{tmp_path}/http.db?mode=ro", uri=True)
    assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert database.execute("SELECT count(*) FROM stream").fetchone()[0] > 0
    assert database.execute("SELECT count(DISTINCT tenant) FROM stream").fetchone() == (1,)
    database.close()


async def scene(server: Served, owner: Principal, given: tuple[list[str], str, str]) -> None:
    """One owner does everything with these names and this text."""
    names, text, session = given
    key = (await server.services.tokens.make(owner, NewToken())).secret
    headers = {"authorization": f"Bearer {key}"}
    metadata = {text: [text, {text: text}]}
    for name in names:
        view = await server.answer(
            201, "PUT", f"/v1/streams/{path(name)}", headers=headers, json={"session": session, "metadata": metadata}
        )
        assert (view["stream"], view["session"], view["metadata"]) == (name, session, metadata)
        body: dict[str, list[dict[str, Any]]] = {
            "messages": [{"text": text}, {"json": metadata, "kind": (text.strip() or "k")[:9]}]
        }
        appended = await server.client.post(f"/v1/messages/{path(name)}", headers=headers, json=body)
        assert appended.status_code in {200, 400}, appended.text
        if appended.status_code == 400:  # what cannot be a kind
            del body["messages"][1]["kind"]
            await server.answer(200, "POST", f"/v1/messages/{path(name)}", headers=headers, json=body)
        found = await server.answer(200, "GET", f"/v1/messages/{path(name)}", headers=headers)
        assert (found["messages"][0]["text"], found["messages"][1]["json"]) == (text, metadata)
    await listings(server, headers, names, session)
    await filters(server, headers, names[0], f"'{text}")
    await durable(server, headers, f"{names[0]}/ds", text)
    await framed(server, headers, f"{names[0]}/ws", text)
    await tokens(server, headers, names, text)


async def listings(server: Served, headers: dict[str, str], names: list[str], session: str) -> None:
    for prefix in (*names, names[0][:1], "no such beginning"):
        shown = await server.answer(200, "GET", "/v1/streams", headers=headers, params={"prefix": prefix})
        assert {view["stream"] for view in shown["streams"]} == {name for name in names if name.startswith(prefix)}
    inside = await server.answer(200, "GET", "/v1/streams", headers=headers, params={"session": session})
    assert {view["stream"] for view in inside["streams"]} == set(names)
    sessions = await server.answer(200, "GET", "/v1/sessions", headers=headers)
    assert [one["session"] for one in sessions["sessions"]] == [session]
    read = await server.answer(200, "GET", f"/v1/session-messages/{path(session)}", headers=headers)
    assert [batch["stream"] for batch in read["batches"]] == names


async def filters(server: Served, headers: dict[str, str], name: str, text: str) -> None:
    """A text that is no value of any of these finds nothing, or is refused; it is never anything else."""
    for field in ("kind", "state", "active", "run", "page", "limit"):
        response = await server.client.get("/v1/streams", headers=headers, params={field: text})
        assert response.status_code == 400 or response.json()["streams"] == [], (field, text, response.text)
    for field in ("after", "limit", "live"):
        response = await server.client.get(f"/v1/messages/{path(name)}", headers=headers, params={field: text})
        assert response.status_code in {400, 410}, (field, text, response.text)
    response = await server.client.get(f"/v1/stream/{path(name)}", headers=headers, params={"offset": text})
    assert response.status_code in {400, 410}, (text, response.text)


async def durable(server: Served, headers: dict[str, str], name: str, text: str) -> None:
    plain = {**headers, "content-type": "text/plain"}
    url = f"/v1/stream/{path(name)}"
    assert (await server.client.put(url, headers=plain)).status_code == 201
    if text:
        assert (await server.client.post(url, headers=plain, content=text.encode())).status_code == 204
    assert (await server.client.get(url, headers=headers)).content == text.encode()


async def framed(server: Served, headers: dict[str, str], name: str, text: str) -> None:
    async with connect(
        f"ws://127.0.0.1:{server.port}/v1/ws", subprotocols=[Subprotocol(PROTOCOL)], additional_headers=headers
    ) as socket:
        peer = Peer(socket)
        await peer.receive("hello")
        await peer.send(type="create", id=1, stream=name, metadata={text: text})
        created = await peer.receive("result", "error")
        assert created["stream"]["metadata"] == {text: text}, created
        await peer.send(type="append", id=2, stream=name, messages=[{"text": text}])
        await peer.receive("acks")
        await peer.send(type="subscribe", id=3, stream=name, after="start")
        assert (await peer.receive("messages"))["messages"][0]["text"] == text
        await peer.send(type="subscribe", id=4, stream=name, after=f"'{text}")
        assert (await peer.receive("error"))["code"] in {"invalid", "epoch_mismatch", "trimmed"}


async def tokens(server: Served, headers: dict[str, str], names: list[str], text: str) -> None:
    grants = [{"name": names[0], "verbs": ["read"]}]
    response = await server.client.post("/v1/tokens", headers=headers, json={"label": text, "grants": grants})
    made = response.json() if response.status_code == 201 else None
    if made is None:
        assert response.json()["facts"]["field"] == "label", response.text
        made = await server.answer(201, "POST", "/v1/tokens", headers=headers, json={"grants": grants})
    else:
        assert made["label"] == text
    limited = {"authorization": f"Bearer {made['token']}"}
    shown = await server.answer(200, "GET", "/v1/streams", headers=limited)
    assert [view["stream"] for view in shown["streams"]] == [names[0]]
    unknown = await server.client.delete(f"/v1/tokens/{quote(text or 'x', safe='')}", headers=headers)
    assert unknown.status_code in {400, 404, 405}, unknown.text


def path(name: str) -> str:
    """As a client writes it in an address."""
    return quote(name, safe="/")


def test_the_names_are_hostile_enough() -> None:
    seen: Any = set()

    @settings(max_examples=200, database=None)
    @given(NAMES)
    def collect(name: str) -> None:
        seen.update(json.dumps(name))

    collect()
    assert {"'", "%", ";", "\\"} <= seen
