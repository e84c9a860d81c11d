"""Creating streams: names, epochs, sessions, first messages."""

from __future__ import annotations

import pytest

from tests.support.builders import ALICE, BOB, EVE, NOW_MS, create, done, numbered, read_all, rejected, write
from unbroken.errors import TransitionError
from unbroken.messages import SessionState, StreamState
from unbroken.protocol.chain import chain, genesis
from unbroken.store.base import (
    Append,
    Close,
    Created,
    CreateStream,
    DeleteStream,
    PutSession,
    Rejected,
    StreamFilter,
    StreamingMessageRepository,
)

pytestmark = pytest.mark.anyio
Store = StreamingMessageRepository


async def test_a_fresh_stream_is_what_was_asked_for_and_is_found_by_its_owner_alone(store: Store) -> None:
    stream = await create(
        store, "a/b", kind="run", content_type="text/plain", session="s", metadata='{"a":1}', ttl_seconds=60
    )
    assert (stream.tenant, stream.owner, stream.name) == ("acme", "alice", "a/b")
    assert (stream.kind, stream.content_type, stream.session, stream.metadata) == ("run", "text/plain", "s", '{"a":1}')
    assert (stream.state, stream.first, stream.head, stream.expires_ms) == (StreamState.OPEN, 1, 0, NOW_MS + 60_000)
    assert stream.genesis == stream.hash == genesis("acme", "a/b", stream.epoch)
    assert await store.get(ALICE, "a/b") == await store.get_by_id(stream.id) == stream
    assert await store.get(BOB, "a/b") is None
    assert await store.get(EVE, "a/b") is None
    assert await store.get(ALICE, "a") is None


@pytest.mark.scenario("SEC-002")
async def test_two_owners_use_one_name_and_never_meet(store: Store) -> None:
    mine = await create(store, "a", kind="run", messages=numbered(1, 3))
    theirs = await create(store, "a", BOB, kind="other")
    elsewhere = await create(store, "a", EVE)
    for owner, stream in ((ALICE, mine), (BOB, theirs), (EVE, elsewhere)):
        assert await store.get(owner, "a") == stream
        for where in (StreamFilter(), StreamFilter(prefix="a"), StreamFilter(prefix="")):
            assert (await store.list_streams(owner, where, limit=9, after=None)).items == (stream,)
    assert len({mine.id, theirs.id, elsewhere.id}) == len({mine.epoch, theirs.epoch, elsewhere.epoch}) == 3
    assert theirs.genesis != mine.genesis
    again = await write(store, CreateStream(principal=BOB, name="a", now_ms=NOW_MS))
    assert again == Created(theirs, created=False)
    await done(store, DeleteStream(stream=theirs.id, epoch=theirs.epoch))
    assert await store.get(BOB, "a") is None
    assert await read_all(store, mine.id) == ["1", "2", "3"]


async def test_a_taken_name_gives_the_stream_that_has_it_and_changes_nothing(store: Store) -> None:
    stream = await create(store, "a", kind="run")
    again = CreateStream(
        principal=ALICE, name="a", now_ms=NOW_MS + 1, kind="other", session="fresh", messages=numbered(1, 1)
    )
    assert await write(store, again) == Created(stream, created=False)
    assert await store.get_session(ALICE, "fresh") is None
    assert (await create(store, "a", EVE)).id != stream.id


async def test_two_creates_of_one_name_in_one_write_make_one_stream(store: Store) -> None:
    op = CreateStream(principal=ALICE, name="a", now_ms=NOW_MS)
    first, second = await store.write([op, op])
    assert isinstance(first, Created)
    assert isinstance(second, Created)
    assert (first.created, second.created, second.stream) == (True, False, first.stream)


async def test_a_name_that_is_used_again_gets_a_greater_epoch_and_starts_empty(store: Store) -> None:
    stream = await create(store, "a", messages=numbered(1, 3))
    other = await create(store, "b")
    await done(store, DeleteStream(stream=stream.id, epoch=stream.epoch))
    again = await create(store, "a")
    assert again.epoch > max(stream.epoch, other.epoch)
    assert again.id not in {stream.id, other.id}
    assert await read_all(store, again.id) == []
    assert again.genesis != stream.genesis


async def test_a_stream_may_begin_with_messages_and_be_over_at_once(store: Store) -> None:
    stream = await create(store, "a", messages=numbered(1, 3), close=Close(StreamState.COMPLETED, '{"a":1}'))
    assert (stream.head, stream.state, stream.reason, stream.ended_ms) == (3, "completed", '{"a":1}', NOW_MS)
    assert stream.hash == chain(stream.genesis, 1, numbered(1, 3))
    assert stream.size_bytes == sum(map(len, numbered(1, 3)))
    assert await read_all(store, stream.id) == ["1", "2", "3"]
    bad = CreateStream(principal=ALICE, name="b", now_ms=NOW_MS, close=Close(StreamState.PAUSED))
    assert isinstance(await rejected(store, bad), TransitionError)
    assert await store.get(ALICE, "b") is None


async def test_a_stream_created_with_a_lease_is_running(store: Store) -> None:
    stream = await create(store, "a", lease_producer="run", lease_epoch=4, lease_until_ms=NOW_MS + 9)
    assert (stream.state, stream.lease_producer, stream.lease_epoch) == (StreamState.RUNNING, "run", 4)
    assert stream.lease_until_ms == NOW_MS + 9


async def test_a_missing_session_is_made_and_a_paused_one_takes_no_stream(store: Store) -> None:
    await create(store, "a", session="s")
    session = await store.get_session(ALICE, "s")
    assert session is not None
    assert session.state is SessionState.ACTIVE
    await done(store, PutSession(principal=ALICE, name="s", now_ms=NOW_MS, state=SessionState.PAUSED))
    refused = CreateStream(principal=ALICE, name="b", now_ms=NOW_MS, session="s")
    assert isinstance(await rejected(store, refused), TransitionError)
    assert await store.get(ALICE, "b") is None
    assert (await create(store, "c", BOB, session="s")).session == "s"


async def test_what_was_created_is_seen_by_the_next_operation_of_the_same_write(store: Store) -> None:
    probe = await create(store, "probe")
    created, appended = await store.write(
        [
            CreateStream(principal=ALICE, name="a", now_ms=NOW_MS, messages=numbered(1, 2)),
            Append(stream=probe.id, epoch=probe.epoch, messages=numbered(1, 1), now_ms=NOW_MS),
        ]
    )
    assert isinstance(created, Created)
    assert not isinstance(appended, Rejected)
    more = Append(stream=created.stream.id, epoch=created.stream.epoch, messages=numbered(3, 4), now_ms=NOW_MS)
    closing = Append(
        stream=created.stream.id,
        epoch=created.stream.epoch,
        messages=(),
        now_ms=NOW_MS,
        close=Close(StreamState.COMPLETED),
    )
    await store.write([more, closing])
    assert await read_all(store, created.stream.id) == ["1", "2", "3", "4"]
