"""What the store tells of a stream besides its messages: when it changed, and what stood against a refusal."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.integration.store.test_life_cycle import lease, present, to
from tests.support.builders import NOW_MS, appending, create, done, numbered, rejected
from unbroken.errors import ConflictError, EpochMismatchError, FencedError, ProducerGapError
from unbroken.messages import Epoch, StreamState
from unbroken.store.base import Close, Producer, StreamingMessageRepository, UpdateStream, WriteOp

pytestmark = pytest.mark.anyio
Store = StreamingMessageRepository
LATER_MS = NOW_MS + 5_000


async def test_every_change_moves_the_time_of_the_last_one(store: Store) -> None:
    stream = await create(store, "a")
    now_ms = NOW_MS
    changes: list[Callable[[], WriteOp]] = [
        lambda: lease(stream, "p", 0, now_ms + 1_000, now_ms),
        lambda: lease(stream, "p", 0, None, now_ms),
        lambda: to(stream, StreamState.PAUSED, now_ms=now_ms),
        lambda: to(stream, StreamState.OPEN, now_ms=now_ms),
        lambda: UpdateStream(stream=stream.id, epoch=stream.epoch, now_ms=now_ms, metadata='{"a":1}'),
        lambda: UpdateStream(stream=stream.id, epoch=stream.epoch, now_ms=now_ms, cancel_requested_by="x"),
        lambda: to(stream, StreamState.RUNNING, now_ms=now_ms),
        lambda: appending(stream, numbered(0, 0), close=Close(StreamState.COMPLETED), now_ms=now_ms),
    ]
    for change in changes:
        now_ms += 1_000
        operation = change()
        await store.write([operation])
        assert (await present(store, stream)).updated_ms == now_ms, operation


async def test_a_refusal_says_where_the_stream_stands(store: Store) -> None:
    stream = await create(store, "a")
    await store.write([appending(stream, numbered(0, 2), producer=Producer("p", 4, 0))])
    wrong = Epoch(stream.epoch + 1)
    mismatch = await rejected(store, to(stream, StreamState.PAUSED, epoch=wrong))
    assert (type(mismatch), mismatch.detail["epoch"]) == (EpochMismatchError, stream.epoch)
    conflict = await rejected(store, appending(stream, numbered(0, 0), expected_head=7))
    assert (type(conflict), conflict.detail["head"]) == (ConflictError, 3)
    gap = await rejected(store, appending(stream, numbered(0, 0), producer=Producer("p", 4, 9)))
    assert (type(gap), gap.detail["expected"], gap.detail["epoch"]) == (ProducerGapError, 1, 4)
    unknown = await rejected(store, appending(stream, numbered(0, 0), producer=Producer("q", 0, 9)))
    assert (type(unknown), unknown.detail["expected"], unknown.detail.get("epoch")) == (ProducerGapError, 0, None)


async def test_whoever_is_fenced_learns_the_epoch_that_shuts_it_out(store: Store) -> None:
    stream = await create(store, "a")
    await done(store, lease(stream, "p", 3, LATER_MS))
    for operation in (
        lease(stream, "p", 2, LATER_MS),
        lease(stream, "q", 9, LATER_MS),
        to(stream, StreamState.PAUSED, fence=("p", 2)),
        appending(stream, numbered(0, 0), producer=Producer("q", 0, 0)),
    ):
        error = await rejected(store, operation)
        assert (type(error), error.detail["epoch"]) == (FencedError, 3), operation


async def test_a_lease_without_a_time_left_holds_nobody_off(store: Store) -> None:
    stream = await create(store, "a")
    await done(store, lease(stream, "p", 0, NOW_MS))
    assert (await done(store, lease(stream, "q", 0, LATER_MS))).stream is not None
    assert (await present(store, stream)).lease_producer == "q"
