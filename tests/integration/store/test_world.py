"""The generated test data holds what it promises, in every store."""

from __future__ import annotations

import pytest

from tests.support.builders import ALICE, BOB, NOW_MS, build_world, read_all, texts
from unbroken.messages import SessionState, StreamState
from unbroken.store.base import StreamFilter, StreamingMessageRepository

pytestmark = pytest.mark.anyio


@pytest.mark.scenario("INFRA-004")
async def test_the_world_has_an_example_of_everything(store: StreamingMessageRepository) -> None:
    world = await build_world(store)
    assert (world.active.state, world.paused.state) == (SessionState.ACTIVE, SessionState.PAUSED)
    assert {state: stream.state for state, stream in world.by_state.items()} == {s: s for s in StreamState}
    for stream in world.by_state.values():
        assert await store.get_by_id(stream.id) == stream
        assert await read_all(store, stream.id) == ["1", "2", "3", "4", "5"]
    assert world.messages >= 10_000
    assert sum(stream.head for stream in world.long) == world.messages
    for stream in world.long:
        assert await read_all(store, stream.id) == [str(n) for n in range(1, stream.head + 1)]
    assert world.trimmed.first == 8
    assert world.source.deleted
    assert await read_all(store, world.fork.id) == [str(n) for n in range(1, 10)]
    assert [stream.id for stream in await store.expired(NOW_MS, limit=9)] == [world.expired.id]
    assert await store.get(ALICE, "foreign") is None
    assert await store.get(BOB, "foreign") == world.foreign
    running = await store.list_streams(ALICE, StreamFilter(state=StreamState.RUNNING), limit=9, after=None)
    assert [stream.id for stream in running.items] == [world.by_state[StreamState.RUNNING].id]


async def test_the_same_call_builds_the_same_world(store: StreamingMessageRepository) -> None:
    first = await build_world(store, messages=60, streams=3)
    names = (await store.list_streams(ALICE, StreamFilter(), limit=100, after=None)).items
    assert [stream.name for stream in names if stream.session == "active"] == ["long/2", "long/1", "long/0"]
    page = await store.read_session(ALICE, StreamFilter(session="active"), limit=100, after=None)
    assert texts(batch for stream, batch in page.items if stream.id == first.long[0].id) == [
        str(n) for n in range(1, 21)
    ]
