"""Sessions and listings, in pages; messages of a session in order."""

from __future__ import annotations

import pytest

from tests.support.builders import ALICE, BOB, EVE, NOW_MS, append, create, done, numbered, rejected, texts
from unbroken.errors import AlreadyExistsError, InvalidError, NotFoundError
from unbroken.identity import Principal
from unbroken.limits import DEFAULT_LIMITS
from unbroken.messages import Seq, SessionState, StreamState
from unbroken.store.base import (
    Close,
    DeleteSession,
    DeleteStream,
    PutSession,
    StreamFilter,
    StreamingMessageRepository,
    Trim,
)

pytestmark = pytest.mark.anyio
Store = StreamingMessageRepository


async def names(store: Store, where: StreamFilter, principal: Principal = ALICE, limit: int = 3) -> list[str]:
    """All names, gathered in pages."""
    found: list[str] = []
    token: str | None = None
    while True:
        page = await store.list_streams(principal, where, limit=limit, after=token)
        assert len(page.items) <= limit
        assert page.items or page.next is None
        found += [stream.name for stream in page.items]
        token = page.next
        if token is None:
            return found


async def test_a_session_is_made_changed_and_deleted(store: Store) -> None:
    made = await done(store, PutSession(principal=ALICE, name="s", now_ms=NOW_MS, metadata='{"a":1}'))
    assert made.created
    assert made.session is not None
    assert (made.session.state, made.session.metadata, made.session.owner) == ("active", '{"a":1}', "alice")
    paused = await done(store, PutSession(principal=ALICE, name="s", now_ms=NOW_MS + 1, state=SessionState.PAUSED))
    assert not paused.created
    assert paused.session is not None
    assert (paused.session.state, paused.session.metadata) == (SessionState.PAUSED, '{"a":1}')
    assert (paused.session.created_ms, paused.session.updated_ms) == (NOW_MS, NOW_MS + 1)
    assert await store.get_session(ALICE, "s") == paused.session
    assert await store.get_session(BOB, "s") is None
    assert isinstance(await rejected(store, DeleteSession(principal=BOB, name="s")), NotFoundError)
    await done(store, DeleteSession(principal=ALICE, name="s"))
    assert await store.get_session(ALICE, "s") is None


async def test_a_session_with_streams_stays(store: Store) -> None:
    stream = await create(store, "a", session="s")
    delete = DeleteSession(principal=ALICE, name="s")
    assert isinstance(await rejected(store, delete), AlreadyExistsError)
    await done(store, DeleteStream(stream=stream.id, epoch=stream.epoch))
    await done(store, delete)


async def test_sessions_are_listed_newest_first_in_pages(store: Store) -> None:
    for n in range(7):
        await done(store, PutSession(principal=ALICE, name=f"s{n}", now_ms=NOW_MS))
    await done(store, PutSession(principal=BOB, name="other", now_ms=NOW_MS))
    await done(store, PutSession(principal=ALICE, name="s2", now_ms=NOW_MS, metadata='{"changed":1}'))
    found: list[str] = []
    token: str | None = None
    for _ in range(4):
        page = await store.list_sessions(ALICE, limit=2, after=token)
        found += [session.name for session in page.items]
        token = page.next
    assert found == ["s6", "s5", "s4", "s3", "s2", "s1", "s0"]
    assert token is None


async def test_streams_are_listed_newest_first_and_only_to_their_owner(store: Store) -> None:
    for n in range(8):
        await create(store, f"a{n}")
        await create(store, f"b{n}", BOB)
    assert await names(store, StreamFilter()) == [f"a{n}" for n in range(7, -1, -1)]
    assert await names(store, StreamFilter(), limit=8) == [f"a{n}" for n in range(7, -1, -1)]
    assert await names(store, StreamFilter(), EVE) == []


async def test_every_filter_alone_and_all_together(store: Store) -> None:
    await create(store, "x/1", session="s", kind="run")
    await create(store, "x/2", session="s", kind="run", close=Close(StreamState.FAILED))
    await create(store, "x/3", session="t", kind="run", lease_producer="p", lease_until_ms=NOW_MS)
    await create(store, "y/4", session="s")
    await create(store, "x/5", BOB, session="s", kind="run", close=Close(StreamState.FAILED))
    assert await names(store, StreamFilter(session="s")) == ["y/4", "x/2", "x/1"]
    assert await names(store, StreamFilter(kind="run")) == ["x/3", "x/2", "x/1"]
    assert await names(store, StreamFilter(prefix="x/")) == ["x/3", "x/2", "x/1"]
    assert await names(store, StreamFilter(state=StreamState.RUNNING)) == ["x/3"]
    assert await names(store, StreamFilter(active=True)) == ["y/4", "x/3", "x/1"]
    assert await names(store, StreamFilter(active=False)) == ["x/2"]
    everything = StreamFilter(session="s", prefix="x/", kind="run", state=StreamState.FAILED, active=False)
    assert await names(store, everything) == ["x/2"]
    assert await names(store, StreamFilter(session="none")) == []
    assert await names(store, StreamFilter(prefix="")) == ["y/4", "x/3", "x/2", "x/1"]


RUN = '{"type":"task","name":"t"}'


async def test_runs_and_other_streams_are_listed_apart_in_pages(store: Store) -> None:
    for number in range(8):
        session = "s" if number % 4 < 2 else None
        await create(store, f"x/{number}", session=session, run=RUN if number % 2 else None)
    await create(store, "x/8", run=RUN, close=Close(StreamState.FAILED))
    await create(store, "y/9", run=RUN)
    await create(store, "x/b", BOB, run=RUN)
    assert await names(store, StreamFilter(run=True), limit=2) == ["y/9", "x/8", "x/7", "x/5", "x/3", "x/1"]
    assert await names(store, StreamFilter(run=False), limit=2) == ["x/6", "x/4", "x/2", "x/0"]
    assert await names(store, StreamFilter(run=True, prefix="x/"), limit=1) == ["x/8", "x/7", "x/5", "x/3", "x/1"]
    assert await names(store, StreamFilter(run=False, prefix="x/", session="s")) == ["x/4", "x/0"]
    assert await names(store, StreamFilter(run=True, session="s")) == ["x/5", "x/1"]
    assert await names(store, StreamFilter(run=True, active=True), limit=2) == ["y/9", "x/7", "x/5", "x/3", "x/1"]
    assert await names(store, StreamFilter(run=True, state=StreamState.FAILED)) == ["x/8"]
    gone = await store.get(ALICE, "x/7")
    assert gone is not None
    await done(store, DeleteStream(stream=gone.id, epoch=gone.epoch))
    assert await names(store, StreamFilter(run=True), limit=2) == ["y/9", "x/8", "x/5", "x/3", "x/1"]


TRICKY = (
    "a",
    "a%",
    "a_",
    "a%b",
    "ab",
    "aB",
    "a'b",
    'a"b',
    "a\\b",
    "ä",
    "ä/ö",
    "a\U0010ffff",
    "a\U0010ffffb",
    "b",
    "a\ud7ff",
)


@pytest.mark.parametrize("prefix", TRICKY)
async def test_a_prefix_is_taken_literally(store: Store, prefix: str) -> None:
    for name in TRICKY:
        await create(store, name, session="s")
    expected = [name for name in reversed(TRICKY) if name.startswith(prefix)]
    assert await names(store, StreamFilter(prefix=prefix)) == expected
    assert await names(store, StreamFilter(prefix=prefix, session="s")) == expected


@pytest.mark.parametrize("token", ["", "x", "-1", "1;drop table stream", "0", "99999999999999999999", "1.5.2"])
async def test_a_foreign_page_token_is_refused(store: Store, token: str) -> None:
    with pytest.raises(InvalidError):
        await store.list_streams(ALICE, StreamFilter(), limit=1, after=token)
    with pytest.raises(InvalidError):
        await store.list_sessions(ALICE, limit=1, after=token)
    with pytest.raises(InvalidError):
        await store.read_session(ALICE, StreamFilter(session="s"), limit=1, after=token)


@pytest.mark.scenario("TC-UT-002b")
async def test_more_than_ten_thousand_messages_of_a_session_come_in_order_and_in_pages(store: Store) -> None:
    streams = [await create(store, f"{n}", session="s") for n in range(7)]
    await create(store, "elsewhere", session="t", messages=numbered(1, 5))
    await create(store, "foreign", BOB, session="s", messages=numbered(1, 5))
    empty = await create(store, "empty", session="s")
    for start in range(0, 1_500, 300):
        for stream in streams:
            await append(store, stream, numbered(start + 1, start + 300))
    await create(store, "last", session="s", messages=numbered(1, 2))
    seen: dict[str, list[str]] = {}
    token: str | None = None
    pages = 0
    while True:
        page = await store.read_session(ALICE, StreamFilter(session="s"), limit=1_000, after=token)
        assert sum(batch.last - batch.first + 1 for _, batch in page.items) <= 1_000
        for stream, batch in page.items:
            known = seen.setdefault(stream.name, [])
            assert batch.first == len(known) + 1
            known += texts([batch])
        pages, token = pages + 1, page.next
        if token is None:
            break
    assert pages == 11
    assert list(seen) == ["0", "1", "2", "3", "4", "5", "6", "last"]
    assert all(seen[str(n)] == [str(m) for m in range(1, 1_501)] for n in range(7))
    assert empty.name not in seen


async def test_a_session_page_is_bounded_in_bytes_and_skips_what_was_trimmed(store: Store) -> None:
    stream = await create(store, "a", session="s")
    for n in range(1, 5):
        await append(store, stream, [numbered(n, n)[0].replace(b'"%d"' % n, b'"%s"' % (b"x" * 600_000))])
    await done(store, Trim(stream=stream.id, epoch=stream.epoch, first=Seq(2)))
    await create(store, "b", session="s", messages=numbered(1, 1))
    places: list[list[tuple[str, int, int]]] = []
    token: str | None = None
    while True:
        page = await store.read_session(ALICE, StreamFilter(session="s"), limit=100, after=token)
        places.append([(stream.name, batch.first, batch.last) for stream, batch in page.items])
        assert sum(len(batch.body) for _, batch in page.items) <= DEFAULT_LIMITS.read_bytes_max
        token = page.next
        if token is None:
            break
    assert [place for page_places in places for place in page_places] == [
        ("a", 2, 2),
        ("a", 3, 3),
        ("a", 4, 4),
        ("b", 1, 1),
    ]
