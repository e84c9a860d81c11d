"""Tokens and revocations in a store: found by a hash, never more than allowed, gone with what they were handed on with."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.builders import ALICE, BOB, EVE, GRANTS, NOW_MS, digest, token
from unbroken.errors import CorruptError
from unbroken.identity import Principal
from unbroken.limits import DEFAULT_LIMITS
from unbroken.store.base import StreamingMessageRepository
from unbroken.store.sqlite import SQLiteStore
from unbroken.store.sqlite.connection import Connection
from unbroken.store.tokens import KEPT_AFTER_ITS_END_MS, Proof, Revocation, StoredToken, TokenKind, session_mark

pytestmark = pytest.mark.anyio
Store = StreamingMessageRepository


async def put(store: Store, *tokens: StoredToken, at_most: int = 100) -> None:
    for one in tokens:
        assert await store.put_token(one, at_most=at_most)


async def listed(store: Store, owner: Principal = ALICE, parent: str | None = None) -> list[str]:
    found: list[str] = []
    page: str | None = None
    while True:
        rows = await store.list_tokens(owner, parent=parent, limit=2, after=page)
        found += [row.id for row in rows.items]
        page = rows.next
        if page is None:
            return found


async def test_a_token_is_found_by_its_hash_as_it_was_put(store: Store) -> None:
    link = token("l", kind=TokenKind.LINK, grants=GRANTS[:1], expires_ms=NOW_MS + 9, parent="k")
    everything = token("all", grants=None)
    await put(store, token("k"), link, everything)
    assert await store.token_by_hash(digest("k")) == token("k")
    assert await store.token_by_hash(digest("l")) == link
    assert await store.token_by_hash(digest("all")) == everything
    assert await store.token_by_hash(digest("none")) is None
    assert await store.token_by_hash(b"") is None
    assert digest("k").hex() not in repr(token("k"))


@pytest.mark.scenario("SEC-002")
async def test_tokens_are_listed_newest_first_and_deleted_by_whose_things_they_are_for_alone(store: Store) -> None:
    await put(store, *[token(f"t{n}") for n in range(5)], token("b", BOB), token("e", EVE), token("c", parent="t1"))
    assert await listed(store) == ["c", "t4", "t3", "t2", "t1", "t0"]
    assert await listed(store, BOB) == ["b"]
    assert await listed(store, parent="t1") == ["c"]
    for other in (BOB, EVE):
        assert not await store.delete_token(other, "t1")
    assert not await store.delete_token(ALICE, "t1", parent="t0")
    assert not await store.delete_token(ALICE, "nothing")
    assert await store.delete_token(ALICE, "t1")
    assert not await store.delete_token(ALICE, "t1")
    assert await store.token_by_hash(digest("t1")) is None


@pytest.mark.scenario("SEC-002")
async def test_what_was_handed_on_ends_with_what_it_was_handed_on_with(store: Store) -> None:
    await put(store, token("a"), token("b", parent="a"), token("c", parent="b"), token("d", parent="c"), token("x"))
    assert await store.delete_token(ALICE, "b")
    assert await listed(store) == ["x", "a"]
    assert not await store.put_token(token("late", parent="b"), at_most=9)
    assert await listed(store) == ["x", "a"]


async def test_an_owner_has_a_bounded_number_and_expired_ones_do_not_count(store: Store) -> None:
    earlier = NOW_MS - 1
    await put(store, token("old", expires_ms=NOW_MS, created_ms=earlier), at_most=3)
    await put(store, token("child", parent="old", created_ms=earlier), token("lasting", created_ms=earlier), at_most=3)
    await put(store, token("other", BOB), at_most=1)
    assert not await store.put_token(token("more"), at_most=1)
    assert await listed(store) == ["lasting"]
    await put(store, token("more"), at_most=2)
    assert await store.token_by_hash(digest("old")) is None


@pytest.mark.scenario("SEC-001")
async def test_everything_that_is_revoked_is_told_in_one_read(store: Store) -> None:
    await put(store, token("t"))
    await store.revoke(Revocation(tenant="acme", jti="j'1"), NOW_MS)
    await store.revoke(Revocation(tenant="acme", subject="alice", before_ms=500), NOW_MS)
    good = [
        Proof("acme", "alice", token="t"),
        Proof("acme", "alice", jti="new", issued_ms=500),
        Proof("acme", "bob", jti="j", issued_ms=1),
        Proof("other", "alice", jti="j'1", issued_ms=1),
        Proof("acme", "alice"),
    ]
    bad = [
        Proof("acme", "alice", token="gone"),
        Proof("acme", "bob", jti="j'1", issued_ms=9_000),
        Proof("acme", "alice", jti="old", issued_ms=499),
        Proof("acme", "alice", jti="undated"),
    ]
    assert await store.revoked([*good, *bad]) == frozenset(bad)
    assert await store.revoked([]) == frozenset()
    await store.delete_token(ALICE, "t")
    assert good[0] in await store.revoked(good)


async def test_a_revocation_is_only_ever_made_stronger_and_is_forgotten_long_after_its_end(store: Store) -> None:
    older, newer = Proof("acme", "alice", jti="a", issued_ms=400), Proof("acme", "alice", jti="b", issued_ms=900)
    for before, until in ((1_000, 5_000), (500, 2_000)):
        await store.revoke(Revocation(tenant="acme", subject="alice", before_ms=before, until_ms=until), 0)
    assert await store.revoked([older, newer]) == {older, newer}
    await store.revoke(Revocation(tenant="acme", jti="other", until_ms=9_000), KEPT_AFTER_ITS_END_MS + 4_999)
    assert await store.revoked([older]) == {older}
    await store.revoke(Revocation(tenant="acme", jti="lasting"), KEPT_AFTER_ITS_END_MS + 5_000)
    assert await store.revoked([older, newer]) == frozenset()
    await store.revoke(Revocation(tenant="acme", jti="lasting", until_ms=6_000), KEPT_AFTER_ITS_END_MS + 5_000)
    await store.revoke(Revocation(tenant="acme", jti="more"), KEPT_AFTER_ITS_END_MS + 10_000)
    lasting = Proof("acme", "alice", jti="lasting")
    assert await store.revoked([lasting, Proof("acme", "x", jti="other")]) == {lasting}


@pytest.mark.scenario("SEC-001")
@pytest.mark.parametrize("days", [1, 30, 365])
async def test_a_clock_that_jumps_ahead_and_back_while_somebody_revokes_brings_nothing_back(
    store: Store, days: int
) -> None:
    token = Proof("acme", "alice", jti="t", issued_ms=NOW_MS)
    await store.revoke(Revocation(tenant="acme", jti="t", until_ms=NOW_MS + 3_600_000), NOW_MS)
    await store.revoke(Revocation(tenant="acme", jti="other"), NOW_MS + days * 86_400_000)
    assert await store.revoked([token]) == {token}, "which is not over by the clock that is right again"


async def test_tokens_and_revocations_survive_a_restart(sqlite: SQLiteStore) -> None:
    await put(sqlite, token("a"), token("b", parent="a"))
    await sqlite.revoke(Revocation(tenant="acme", jti="j"), NOW_MS)
    await sqlite.close()
    await sqlite.open()
    assert await sqlite.token_by_hash(digest("b")) == token("b", parent="a")
    assert await sqlite.revoked([Proof("acme", "x", jti="j")]) == {Proof("acme", "x", jti="j")}


async def test_grants_that_cannot_be_read_grant_nothing(sqlite: SQLiteStore, path: Path) -> None:
    await put(sqlite, token("a"))
    connection = Connection(path, DEFAULT_LIMITS, full=False)
    for damaged in ("", "null", '[{"name":"a","verbs":["read"],"else":1}]', '[{"name":"a","verbs":["all"]}]', "{}"):
        connection.run("UPDATE token SET grants = ?", (damaged,))
        with pytest.raises(CorruptError):
            await sqlite.token_by_hash(digest("a"))
    connection.close()


async def test_what_was_made_with_a_credential_is_gone_when_that_is_revoked(store: Store) -> None:
    one, two = session_mark("jwt:1"), session_mark("jwt:2")
    await put(store, token(f"a{one}"), token("child", parent=f"a{one}"), token(f"b{two}"), token("operators"))
    await put(store, token(f"bob{one}", BOB), token(f"eve{one}", EVE))
    await store.revoke(Revocation(tenant=ALICE.tenant, jti="jwt:1"), NOW_MS)
    assert await listed(store) == ["operators", f"b{two}"]
    assert await listed(store, EVE) == [f"eve{one}"]
    await put(store, token(f"later{two}", created_ms=NOW_MS + 5))
    await store.revoke(Revocation(tenant=ALICE.tenant, subject=ALICE.subject, before_ms=NOW_MS + 5), NOW_MS)
    assert await listed(store) == [f"later{two}", "operators"]
