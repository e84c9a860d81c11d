"""Tokens over HTTP: what is handed on is never more than what one has, nor for longer, and ends with it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from tests.integration.secrets.conftest import files_with
from tests.support.inprocess import Served, served, store_of
from tests.support.speeds import Peer
from unbroken.auth.access import Access
from unbroken.auth.stored import NewToken, StoredTokens, credential_of
from unbroken.clock import SystemClock
from unbroken.errors import UnauthorizedError
from unbroken.identity import Principal
from unbroken.limits import DEFAULT_LIMITS
from unbroken.protocol.frames import PROTOCOL
from unbroken.store.memory import MemoryStore
from unbroken.store.tokens import StoredToken

pytestmark = [pytest.mark.anyio, pytest.mark.scenario("SEC-002")]
DAY = 86_400
ALICE, BOB = Principal("local", "alice"), Principal("local", "bob")


@pytest.fixture(params=["memory", "sqlite"])
async def server(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Served]:
    """A server that lets nobody in without a credential."""
    operator = "only-for-this-test"
    async with served(store=store_of(request.param, tmp_path), access=Access(token=operator)) as made:
        yield made


async def key_of(server: Served, principal: Principal, **new: Any) -> str:
    return (await server.services.tokens.make(principal, NewToken(**new))).secret


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


async def made(server: Served, secret: str, **body: Any) -> Any:
    return await server.answer(201, "POST", "/v1/tokens", headers=bearer(secret), json=body)


async def ids(server: Served, secret: str) -> list[str]:
    answer = await server.answer(200, "GET", "/v1/tokens", headers=bearer(secret))
    return [token["id"] for token in answer["tokens"]]


def read(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "verbs": ["read"], **more}


async def test_an_owner_makes_sees_and_revokes_tokens_and_their_secrets_are_shown_once(server: Served) -> None:
    alice, bob = await key_of(server, ALICE), await key_of(server, BOB)
    key = await made(
        server, alice, label="worker", grants=[{"name": "a/", "prefix": True, "verbs": ["append", "read"]}]
    )
    link = await made(server, alice, kind="link", grants=[read("a/1", epoch=4)], expires_in=DAY)
    assert key["token"].startswith("ubk_")
    assert link["token"].startswith("ubl_")
    assert (key["label"], key["expires"]) == ("worker", None)
    assert link["grants"] == [read("a/1", epoch=4)]
    assert link["expires"] == link["created"] + DAY * 1000
    listed = await server.answer(200, "GET", "/v1/tokens", headers=bearer(alice), params={"limit": 2})
    assert [token["id"] for token in listed["tokens"]] == [link["id"], key["id"]]
    assert "token" not in listed["tokens"][0]
    assert len(await ids(server, bob)) == 1
    for unknown in (key["id"], "nothing", "a%2Fb"):
        problem = await server.problem(404, "not_found", "DELETE", f"/v1/tokens/{unknown}", headers=bearer(bob))
        assert unknown == "a%2Fb" or problem["detail"] == f"no token {unknown!r}"
    await server.answer(204, "DELETE", f"/v1/tokens/{key['id']}", headers=bearer(alice))
    await server.problem(401, "unauthorized", "GET", "/v1/streams", headers=bearer(key["token"]))
    await server.answer(200, "GET", "/v1/streams", headers=bearer(link["token"]))


async def test_more_than_one_has_is_not_handed_on(server: Served) -> None:
    alice = await key_of(server, ALICE)
    some = [{"name": "a/", "prefix": True, "verbs": ["append", "manage", "read"]}, {"name": "b", "verbs": ["read"]}]
    partial = await made(server, alice, grants=some, expires_in=1_000)
    headers = bearer(partial["token"])
    for grants in (
        None,
        [{"name": "a/1", "verbs": ["cancel"]}],
        [{"name": "a", "prefix": True, "verbs": ["read"]}],
        [{"name": "", "prefix": True, "verbs": ["read"]}],
        [{"name": "a", "verbs": ["read"]}],
        [read("b")],
        [read("a/1"), read("c")],
    ):
        body = {} if grants is None else {"grants": grants}
        await server.problem(403, "forbidden", "POST", "/v1/tokens", headers=headers, json=body)
    child = await made(
        server, partial["token"], grants=[read("a/1"), {"name": "a/2/", "prefix": True, "verbs": ["append"]}]
    )
    assert child["expires"] == partial["expires"]
    shorter = await made(server, partial["token"], grants=[read("a/1")], expires_in=10)
    assert shorter["expires"] < partial["expires"]
    longer = await made(server, partial["token"], grants=[read("a/1")], expires_in=DAY)
    assert longer["expires"] == partial["expires"]
    await server.problem(
        403, "forbidden", "POST", "/v1/tokens", headers=bearer(child["token"]), json={"grants": [read("a/1")]}
    )
    assert await ids(server, partial["token"]) == [longer["id"], shorter["id"], child["id"]]
    assert await ids(server, child["token"]) == []


async def test_what_was_handed_on_ends_with_it_and_only_ones_own_can_be_taken_back(server: Served) -> None:
    alice = await key_of(server, ALICE)
    rights = [{"name": "a/", "prefix": True, "verbs": ["manage", "read"]}]
    one, other = await made(server, alice, grants=rights), await made(server, alice, grants=rights)
    child = await made(server, one["token"], grants=rights)
    grandchild = await made(server, child["token"], grants=[read("a/1")])
    for mine, theirs in ((other, child), (one, grandchild), (grandchild, child), (child, one)):
        await server.problem(404, "not_found", "DELETE", f"/v1/tokens/{theirs['id']}", headers=bearer(mine["token"]))
    await server.answer(204, "DELETE", f"/v1/tokens/{other['id']}", headers=bearer(other["token"]))
    await server.problem(401, "unauthorized", "GET", "/v1/streams", headers=bearer(other["token"]))
    await server.answer(204, "DELETE", f"/v1/tokens/{one['id']}", headers=bearer(alice))
    for gone in (one, child, grandchild):
        await server.problem(401, "unauthorized", "GET", "/v1/streams", headers=bearer(gone["token"]))


async def test_an_owner_has_so_many_tokens_and_a_token_so_many_grants() -> None:
    limits = replace(DEFAULT_LIMITS, tokens_of_owner_max=3, token_grants_max=2)
    async with served(limits=limits, access=Access(token="only-for-this-test")) as server:
        alice, bob = await key_of(server, ALICE), await key_of(server, BOB)
        grants = [read("a"), read("b")]
        child = await made(server, alice, grants=[{"name": "a", "verbs": ["manage", "read"]}])
        many = {"grants": [*grants, read("c")]}
        large = await server.problem(413, "too_large", "POST", "/v1/tokens", headers=bearer(alice), json=many)
        assert large["facts"]["limit"] == "token_grants_max"
        await made(server, child["token"], grants=[read("a")])
        for secret in (alice, child["token"]):
            body = {"grants": [read("a")]}
            full = await server.problem(429, "overloaded", "POST", "/v1/tokens", headers=bearer(secret), json=body)
            assert full["facts"]["limit"] == "tokens_of_owner_max"
        await made(server, bob, grants=grants)
        await server.answer(204, "DELETE", f"/v1/tokens/{child['id']}", headers=bearer(alice))
        await made(server, alice, grants=grants)


async def test_no_file_of_the_database_holds_the_secret_of_a_token(tmp_path: Path) -> None:
    async with served(store=store_of("sqlite", tmp_path), access=Access(token="only-for-this-test")) as server:
        secrets = [await key_of(server, ALICE, label="found-by-its-label")]
        secrets.append((await made(server, secrets[0], kind="link", grants=[read("a")], expires_in=DAY))["token"])
        for _ in range(2):
            assert files_with(tmp_path, "found-by-its-label")
            for secret in secrets:
                assert len(secret.partition("_")[2]) >= 43, "of 256 bits"
                assert files_with(tmp_path, secret.partition("_")[2]) == []
                digest = hashlib.sha256(secret.encode()).digest()
                assert await server.services.store.token_by_hash(digest) is not None
            await server.answer(200, "GET", "/v1/tokens", headers=bearer(secrets[0]))


class Hasty(MemoryStore):
    """In which whoever makes a token is logged out, or has its own revoked, just before that is stored."""

    by: Principal | None = None

    async def put_token(self, token: StoredToken, *, at_most: int) -> bool:
        if self.by is not None:
            by, self.by = self.by, None
            await StoredTokens(self, limits=DEFAULT_LIMITS, clock=SystemClock()).revoke(by)
        return await super().put_token(token, at_most=at_most)


@pytest.mark.parametrize("stored", [False, True], ids=["logged out", "its token is revoked"])
async def test_a_token_that_is_made_while_its_maker_is_revoked_is_none(stored: bool) -> None:
    store = Hasty()
    tokens = StoredTokens(store, limits=DEFAULT_LIMITS, clock=SystemClock())
    key = (await tokens.make(ALICE, NewToken())).token
    by = replace(ALICE, credential=credential_of(key.id) if stored else "jwt:one")
    store.by = by
    with pytest.raises(UnauthorizedError, match="revoked"):
        await tokens.make(by, NewToken())
    left = (await tokens.list(ALICE, limit=9, page=None)).items
    assert [token.id for token in left] == ([] if stored else [key.id])


REFUSED: tuple[tuple[dict[str, Any], str], ...] = (
    ({"kind": "link", "grants": [read("a")]}, "expires"),
    ({"kind": "link", "grants": [read("a")], "expires_in": 91 * DAY}, "expires"),
    ({"kind": "link", "grants": [{"name": "a", "verbs": ["read", "append"]}], "expires_in": DAY}, "grants"),
    ({"kind": "link", "expires_in": DAY}, "grants"),
    ({"kind": "link", "grants": [], "expires_in": DAY}, "grants"),
    ({"kind": "other"}, "kind"),
    ({"expires_in": 0}, "expires"),
    ({"grants": [{"name": "a", "verbs": []}]}, "grants.verbs"),
    ({"grants": [{"name": "a", "verbs": ["all"]}]}, "grants.verbs"),
    ({"grants": [{"name": "a/../b", "verbs": ["read"]}]}, "name"),
    ({"grants": [{"name": "a\n", "prefix": True, "verbs": ["read"]}]}, "grants.name"),
    ({"grants": [{"name": "a", "verbs": ["read"], "epoch": -1}]}, "grants.epoch"),
    ({"grants": [{"name": "a", "verbs": ["read"], "more": 1}]}, "grants[0].more"),
    ({"label": "alice"}, "label"),
    ({"label": "x" * 101}, "label"),
    ({"label": "a\u202eb\n"}, "label"),
)


async def test_what_cannot_be_a_token_is_refused_with_its_field(server: Served) -> None:
    alice = await key_of(server, ALICE)
    for body, field in REFUSED:
        problem = await server.problem(400, "invalid", "POST", "/v1/tokens", headers=bearer(alice), json=body)
        assert problem["facts"]["field"] == field, body
    assert len(await ids(server, alice)) == 1


async def test_a_token_tells_who_acts_and_sends_its_viewers_away_when_it_is_revoked(server: Served) -> None:
    alice = await key_of(server, ALICE)
    helper = await made(server, alice, label="helper", grants=[{"name": "a", "verbs": ["append", "cancel", "read"]}])
    await server.answer(201, "PUT", "/v1/streams/a", headers=bearer(helper["token"]), json={"lease": _producer()})
    view = await server.answer(202, "POST", "/v1/cancel/a", headers=bearer(helper["token"]))
    assert view["cancel_requested_by"] == "helper"
    async with connect(
        f"ws://127.0.0.1:{server.port}/v1/ws",
        subprotocols=[Subprotocol(PROTOCOL)],
        additional_headers=bearer(helper["token"]),
    ) as socket:
        peer = Peer(socket)
        await peer.receive("hello")
        await server.answer(204, "DELETE", f"/v1/tokens/{helper['id']}", headers=bearer(alice))
        assert await peer.closed() == 4401


async def test_a_fork_takes_the_right_to_read_its_source(server: Served) -> None:
    alice = await key_of(server, ALICE)
    plain = {"content-type": "text/plain"}
    source = "/v1/stream/source"
    assert (await server.client.put(source, headers={**bearer(alice), **plain}, content="seen")).status_code == 201
    writes = {"name": "f/", "prefix": True, "verbs": ["append", "read"]}
    without = await made(server, alice, grants=[writes])
    told = []
    for path in (source, "/v1/stream/absent"):
        headers = {**bearer(without["token"]), **plain, "stream-forked-from": path}
        problem = await server.problem(404, "not_found", "PUT", "/v1/stream/f/1", headers=headers)
        told.append(json.dumps(problem).replace(path, source))
    assert told[0] == told[1]
    also = await made(server, alice, grants=[writes, read("source")])
    headers = {**bearer(also["token"]), **plain, "stream-forked-from": source}
    assert (await server.client.put("/v1/stream/f/1", headers=headers)).status_code == 201
    assert (await server.client.get("/v1/stream/f/1", headers=headers)).text == "seen"


async def test_a_ticket_carries_the_rights_of_who_asked_for_it_once(server: Served) -> None:
    alice = await key_of(server, ALICE)
    for name in ("a", "b"):
        await server.answer(201, "PUT", f"/v1/streams/{name}", headers=bearer(alice), json={})
    link = await made(server, alice, kind="link", grants=[read("a")], expires_in=DAY)
    ticket = (await server.answer(201, "POST", "/v1/tickets", headers=bearer(link["token"]), json={}))["ticket"]
    address = f"ws://127.0.0.1:{server.port}/v1/ws"
    offered = [Subprotocol(PROTOCOL), Subprotocol(f"ticket.{ticket}")]
    async with connect(address, subprotocols=offered) as socket:
        peer = Peer(socket)
        await peer.receive("hello")
        await peer.send(type="subscribe", id=1, stream="a")
        assert (await peer.receive("subscribed", "error"))["type"] == "subscribed"
        await peer.send(type="append", id=2, stream="a", messages=[{"text": "x"}])
        assert (await peer.receive("acks", "error"))["code"] == "forbidden"
        await peer.send(type="subscribe", id=3, stream="b")
        assert (await peer.receive("subscribed", "error"))["code"] == "not_found"
    guess = ticket[:-1] + ("A" if ticket[-1] != "A" else "B")
    for used in (ticket, guess):
        with pytest.raises(InvalidStatus) as refused:
            async with connect(address, subprotocols=[Subprotocol(PROTOCOL), Subprotocol(f"ticket.{used}")]):
                pass
        assert refused.value.response.status_code == 401


def _producer() -> dict[str, Any]:
    return {"id": "p", "epoch": 1, "seq": 0}


@pytest.mark.parametrize("guard", [{"identify": lambda request: Principal()}, {"embedded": True}])
async def test_no_shared_cache_may_keep_what_an_application_lets_in(guard: dict[str, Any]) -> None:
    async with served(access=Access(**guard)) as made:
        await made.client.put("/v1/stream/d", headers={"content-type": "text/plain"}, content="secret")
        found = await made.client.get("/v1/stream/d")
        assert (found.text, found.headers["cache-control"]) == ("secret", "no-store")
