"""What a store keeps of runs: the specification, which are active, and what is put beside a lease."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.builders import ALICE, BOB, NOW_MS, append, create, numbered, rejected, write
from unbroken.errors import EndedError, FencedError
from unbroken.messages import StreamId, StreamState
from unbroken.store.base import (
    Append,
    Appended,
    Close,
    DeleteStream,
    Fork,
    Producer,
    SetState,
    StreamingMessageRepository,
)

pytestmark = pytest.mark.anyio
RUN = '{"type":"task","name":"t"}'


async def test_a_specification_is_kept_and_only_streams_with_one_are_runs(store: StreamingMessageRepository) -> None:
    plain = await create(store, "plain")
    run = await create(store, "run", run=RUN, messages=numbered(1, 1))
    other = await create(store, "other", BOB, run=RUN)
    assert (plain.run, run.run) == (None, RUN)
    found = await store.get_by_id(run.id)
    assert found is not None
    assert found.run == RUN
    assert [info.name for info in await store.active_runs(StreamId(0), limit=10)] == ["run", "other"]
    assert [info.name for info in await store.active_runs(StreamId(0), limit=1)] == ["run"]
    assert [info.name for info in await store.active_runs(run.id, limit=10)] == ["other"]
    assert [info.name for info in await store.active_runs(other.id, limit=10)] == []


async def test_a_run_is_active_until_it_ends_or_is_gone(store: StreamingMessageRepository) -> None:
    for name in ("open", "running", "paused", "closed", "cancelled", "deleted", "kept"):
        await create(store, name, run=RUN, messages=numbered(1, 1))
    streams = {info.name: info for info in await store.active_runs(StreamId(0), limit=10)}
    for name, state in (
        ("running", StreamState.RUNNING),
        ("paused", StreamState.PAUSED),
        ("cancelled", StreamState.CANCELLED),
    ):
        info = streams[name]
        await write(store, SetState(stream=info.id, epoch=info.epoch, state=state, now_ms=NOW_MS))
    await append(store, streams["closed"], numbered(2, 2), close=Close(StreamState.COMPLETED))
    await create(store, "fork", fork=Fork(streams["kept"].id, streams["kept"].head))
    for name in ("deleted", "kept"):
        await write(store, DeleteStream(stream=streams[name].id, epoch=streams[name].epoch))
    assert [info.name for info in await store.active_runs(StreamId(0), limit=10)] == ["open", "running", "paused"]


async def test_what_is_put_beside_a_lease_is_stored_and_nothing_else_is_let_in(
    store: StreamingMessageRepository,
) -> None:
    until = NOW_MS + 10_000
    stream = await create(store, "r", run=RUN, lease_producer="run-1", lease_epoch=1, lease_until_ms=until)
    answer = Append(
        stream=stream.id,
        epoch=stream.epoch,
        messages=numbered(1, 1),
        now_ms=NOW_MS,
        producer=Producer("answer", 0, 0),
        beside_lease=True,
    )
    assert isinstance(await rejected(store, replace_beside(answer)), FencedError)
    result = await write(store, answer)
    assert isinstance(result, Appended)
    assert (result.first, result.duplicate) == (1, False)
    again = await write(store, answer)
    assert isinstance(again, Appended)
    assert (again.first, again.duplicate) == (1, True)
    own = await append(store, stream, numbered(2, 2), producer=Producer("run-1", 1, 0))
    assert own.first == 2
    await append(store, stream, (), producer=Producer("run-1", 1, 1), close=Close(StreamState.COMPLETED))
    late = Append(stream=stream.id, epoch=stream.epoch, messages=numbered(3, 3), now_ms=NOW_MS, beside_lease=True)
    assert isinstance(await rejected(store, late), EndedError)
    info = await store.get(ALICE, "r")
    assert info is not None
    assert replace(info, run=None) != info


def replace_beside(op: Append) -> Append:
    return Append(stream=op.stream, epoch=op.epoch, messages=op.messages, now_ms=op.now_ms, producer=op.producer)
