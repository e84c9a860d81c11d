"""Listings of what grants speak of: streams, sessions and a session's messages, in pages that are right."""

from __future__ import annotations

from itertools import combinations

import pytest

from tests.support.builders import ALICE, BOB, NOW_MS, create, done, numbered
from unbroken.identity import Grant, Verb
from unbroken.messages import StreamInfo
from unbroken.store.base import PutSession, StreamFilter, StreamingMessageRepository

pytestmark = [pytest.mark.anyio, pytest.mark.scenario("SEC-002")]
Store = StreamingMessageRepository
READ = frozenset({Verb.READ})
NAMES = ("a", "a/1", "a/2", "a/2/x", "a0", "ab", "b", "b/%_", "b/\U0010ffff", "z\U0010ffff", 'q"\\', "é", "日/本")


def exactly(name: str, epoch: int | None = None) -> Grant:
    return Grant(name, READ, epoch=epoch)


def beginning(name: str, epoch: int | None = None) -> Grant:
    return Grant(name, READ, prefix=True, epoch=epoch)


async def world(store: Store) -> list[StreamInfo]:
    """Streams of every name, newest first; somebody else has the same names."""
    made = []
    for number, name in enumerate(NAMES):
        run = '{"type":"task","name":"t"}' if number % 2 else None
        made.append(await create(store, name, session="s" if number % 3 else None, run=run, messages=numbered(1, 2)))
        await create(store, name, BOB, session="s", messages=numbered(1, 1))
    return made[::-1]


async def listed(store: Store, where: StreamFilter, limit: int) -> list[StreamInfo]:
    found: list[StreamInfo] = []
    token: str | None = None
    while True:
        page = await store.list_streams(ALICE, where, limit=limit, after=token)
        assert len(page.items) <= limit
        found += page.items
        token = page.next
        if token is None:
            return found
        assert len(page.items) == limit, "a page that is not the last is full"


async def test_a_listing_shows_what_a_grant_covers_and_its_pages_have_no_holes(store: Store) -> None:
    made = await world(store)
    epochs = {info.name: info.epoch for info in made}
    grants = [
        exactly("a"),
        exactly("missing"),
        exactly('q"\\'),
        exactly("b/%_", epochs["b/%_"]),
        exactly("ab", epochs["ab"] + 1),
        beginning("a/"),
        beginning("a/2", epochs["a/2"]),
        beginning("\U0010ffff"),
        beginning("z\U0010ffff"),
        beginning("日"),
        beginning(""),
    ]
    sets = [(), *[(grant,) for grant in grants], *combinations(grants[:-1], 2), tuple(grants[:-1])]
    for among in sets:
        expected = [info for info in made if any(grant.covers(info.name, info.epoch) for grant in among)]
        assert await listed(store, StreamFilter(among=among), 3) == expected, among


async def test_every_filter_goes_together_with_grants(store: Store) -> None:
    made = await world(store)
    among = (beginning("a"), exactly("b/%_"), exactly("é"))
    shown = [info for info in made if info.name.startswith("a") or info.name in {"b/%_", "é"}]
    for prefix in ("a", "a/", "a/2", "b/", "b/%_", "b/%_more", "é", "x", ""):
        for session in (None, "s"):
            for run in (None, True, False):
                where = StreamFilter(prefix=prefix, session=session, run=run, among=among)
                expected = [
                    info
                    for info in shown
                    if info.name.startswith(prefix)
                    and session in {None, info.session}
                    and run in {None, info.run is not None}
                ]
                assert await listed(store, where, 2) == expected, where


async def test_a_sessions_messages_are_those_of_streams_that_a_grant_covers(store: Store) -> None:
    made = [info for info in reversed(await world(store)) if info.session == "s" and info.name.startswith("a")]
    assert len(made) > 2
    where, found, token = StreamFilter(session="s", among=(beginning("a"),)), [], None
    for _ in range(20):
        page = await store.read_session(ALICE, where, limit=2, after=token)
        found += [info.name for info, _ in page.items]
        token = page.next
        if token is None:
            break
    assert found == [info.name for info in made]


async def test_sessions_are_covered_by_a_prefix_and_never_by_a_single_name(store: Store) -> None:
    for name in ("s/1", "s/2", "t", "s/3", "s"):
        await done(store, PutSession(principal=ALICE, name=name, now_ms=NOW_MS))
        await done(store, PutSession(principal=BOB, name=name, now_ms=NOW_MS))

    async def shown(*among: Grant) -> list[str]:
        found: list[str] = []
        token: str | None = None
        while True:
            page = await store.list_sessions(ALICE, limit=2, after=token, among=among)
            found += [session.name for session in page.items]
            token = page.next
            if token is None:
                return found

    assert await shown(beginning("s/")) == ["s/3", "s/2", "s/1"]
    assert await shown(beginning("s/"), beginning("t"), exactly("s")) == ["s/3", "t", "s/2", "s/1"]
    assert await shown(beginning("")) == ["s", "s/3", "t", "s/2", "s/1"]
    assert await shown(beginning("s", epoch=1), exactly("t")) == []
    assert await shown() == []
