"""Appending: what is checked, in which order, and that a refused append leaves nothing behind."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from tests.support.builders import (
    ALICE,
    BOB,
    NOW_MS,
    append,
    appending,
    create,
    done,
    numbered,
    read_all,
    rejected,
    write,
)
from unbroken.errors import (
    ConflictError,
    EndedError,
    EpochMismatchError,
    FencedError,
    NotFoundError,
    ProducerGapError,
    SequenceError,
    TransitionError,
)
from unbroken.messages import Epoch, Seq, StreamId, StreamInfo, StreamState
from unbroken.protocol.chain import chain
from unbroken.store.base import (
    Append,
    Appended,
    Close,
    Created,
    CreateStream,
    DeleteStream,
    Fork,
    Producer,
    Rejected,
    SetLease,
    StreamingMessageRepository,
)

pytestmark = pytest.mark.anyio
Store = StreamingMessageRepository


async def info_of(store: Store, stream: StreamInfo) -> StreamInfo:
    found = await store.get_by_id(stream.id)
    assert found is not None
    return found


async def test_messages_are_numbered_densely_from_one_and_extend_the_chain(store: Store) -> None:
    stream = await create(store, "a")
    first = await append(store, stream, numbered(1, 3))
    second = await append(store, stream, numbered(4, 4))
    assert (first.first, first.last, first.head) == (1, 3, 3)
    assert (second.first, second.last, second.head) == (4, 4, 4)
    assert first.hash == chain(stream.genesis, 1, numbered(1, 3))
    assert second.hash == chain(first.hash, 4, numbered(4, 4))
    now = await info_of(store, stream)
    assert (now.head, now.hash, now.size_bytes) == (4, second.hash, sum(map(len, numbered(1, 4))))
    assert await read_all(store, stream.id) == ["1", "2", "3", "4"]


async def test_several_appends_to_one_stream_in_one_write_follow_each_other(store: Store) -> None:
    stream, other = await create(store, "a"), await create(store, "b")
    results = await store.write(
        [
            appending(stream, numbered(1, 2)),
            appending(other, numbered(1, 1)),
            appending(stream, numbered(3, 3), expected_head=Seq(2)),
            appending(stream, numbered(9, 9), expected_head=Seq(2)),
            appending(stream, numbered(4, 5)),
        ]
    )
    places = [(r.first, r.last) if isinstance(r, Appended) else None for r in results]
    assert places == [(1, 2), (1, 1), (3, 3), None, (4, 5)]
    assert await read_all(store, stream.id) == ["1", "2", "3", "4", "5"]
    assert (await info_of(store, stream)).hash == chain(stream.genesis, 1, numbered(1, 5))


async def test_a_repeated_append_has_no_effect_and_says_where_it_went(store: Store) -> None:
    stream = await create(store, "a")
    once = await append(store, stream, numbered(1, 2), producer=Producer("p", 1, 0))
    again = await append(store, stream, numbered(1, 2), producer=Producer("p", 1, 0))
    assert again == msgspec.structs.replace(once, duplicate=True)
    await append(store, stream, numbered(3, 3), producer=Producer("p", 1, 1))
    await append(store, stream, numbered(4, 4))
    latest = await append(store, stream, numbered(3, 3), producer=Producer("p", 1, 1))
    older = await append(store, stream, numbered(1, 2), producer=Producer("p", 1, 0))
    assert (latest.first, latest.last, latest.head, latest.duplicate) == (3, 3, 4, True)
    assert latest.hash == await store.hash_at(stream.id, Seq(3))
    assert (older.first, older.last, older.duplicate) == (0, 0, True)
    assert (older.producer_epoch, older.producer_seq) == (1, 1)
    assert await read_all(store, stream.id) == ["1", "2", "3", "4"]


async def test_a_repeat_within_the_same_write_is_found_too(store: Store) -> None:
    stream = await create(store, "a")
    op = appending(stream, numbered(1, 1), producer=Producer("p", 1, 0))
    results = await store.write([op, op])
    assert [isinstance(r, Appended) and r.duplicate for r in results] == [False, True]
    assert await read_all(store, stream.id) == ["1"]


async def test_producers_do_not_know_of_each_other_and_a_higher_epoch_begins_at_zero(store: Store) -> None:
    stream = await create(store, "a")
    await append(store, stream, numbered(1, 1), producer=Producer("p", 1, 0))
    await append(store, stream, numbered(2, 2), producer=Producer("q", 5, 0))
    await append(store, stream, numbered(3, 3), producer=Producer("p", 2, 0))
    fenced = await rejected(store, appending(stream, numbered(9, 9), producer=Producer("p", 1, 1)))
    assert isinstance(fenced, FencedError)
    assert fenced.detail == {"epoch": 2}
    gap = await rejected(store, appending(stream, numbered(9, 9), producer=Producer("p", 3, 1)))
    assert isinstance(gap, ProducerGapError)
    assert gap.detail == {"expected": 0, "epoch": 2}
    gap = await rejected(store, appending(stream, numbered(9, 9), producer=Producer("q", 5, 2)))
    assert gap.detail == {"expected": 1, "epoch": 5}
    assert await read_all(store, stream.id) == ["1", "2", "3"]


async def test_closing_with_the_last_messages_and_closing_alone(store: Store) -> None:
    stream, other = await create(store, "a"), await create(store, "b")
    closing = Close(StreamState.COMPLETED, '{"exit_code":0}')
    result = await append(store, stream, numbered(1, 2), close=closing, now_ms=NOW_MS + 5, writer_seq="w")
    assert (result.last, result.state) == (2, StreamState.COMPLETED)
    now = await info_of(store, stream)
    assert (now.state, now.reason, now.ended_ms, now.writer_seq) == (closing.state, closing.reason, NOW_MS + 5, "w")
    only = await append(store, other, (), close=Close(StreamState.FAILED), writer_seq="w")
    assert (only.first, only.last, only.head, only.hash) == (1, 0, 0, other.genesis)
    assert (await info_of(store, other)).writer_seq == "w"


async def test_a_repeated_close_is_a_duplicate_and_not_an_ended_stream(store: Store) -> None:
    stream = await create(store, "a")
    op = appending(stream, numbered(1, 1), producer=Producer("p", 0, 0), close=Close(StreamState.COMPLETED))
    assert isinstance(await write(store, op), Appended)
    again = await write(store, op)
    assert isinstance(again, Appended)
    assert again.duplicate
    assert (again.first, again.last, again.state) == (1, 1, StreamState.COMPLETED)


REFUSED: list[tuple[str, dict[str, object], type[Exception]]] = [
    ("unknown stream", {"stream": StreamId(999)}, NotFoundError),
    ("another epoch", {"epoch": Epoch(999)}, EpochMismatchError),
    ("an older producer", {"producer": Producer("p", 4, 7)}, FencedError),
    ("an ended stream", {}, EndedError),
    ("a gap", {"producer": Producer("p", 5, 9)}, ProducerGapError),
    ("a lease of another", {"producer": Producer("p", 5, 2)}, FencedError),
    ("another head", {"expected_head": Seq(3)}, ConflictError),
    ("an old writer sequence", {"writer_seq": "b"}, SequenceError),
    ("no end", {"close": Close(StreamState.PAUSED)}, TransitionError),
]


@pytest.mark.parametrize("step", range(len(REFUSED)), ids=[case[0] for case in REFUSED])
async def test_of_several_reasons_the_first_in_the_documented_order_is_given(store: Store, step: int) -> None:
    stream = await create(store, "a")
    await append(store, stream, numbered(1, 1), producer=Producer("p", 5, 0), writer_seq="b")
    await append(store, stream, numbered(2, 2), producer=Producer("p", 5, 1))
    later = REFUSED[step:]
    if any(case[0] == "a lease of another" for case in later):
        lease = SetLease(
            stream=stream.id, epoch=stream.epoch, producer="q", producer_epoch=1, until_ms=NOW_MS + 10, now_ms=NOW_MS
        )
        await done(store, lease)
    if any(case[0] == "an ended stream" for case in later):
        held = Producer("q", 1, 0) if any(case[0] == "a lease of another" for case in later) else None
        await append(store, stream, (), producer=held, close=Close(StreamState.COMPLETED))
    before = await info_of(store, stream)
    facts: dict[str, object] = {}
    for _, fact, _ in reversed(later):  # earlier reasons win over later ones that use the same field
        facts |= fact
    error = await rejected(store, msgspec.structs.replace(appending(stream, numbered(3, 3)), **facts))
    assert type(error) is REFUSED[step][2]
    assert await info_of(store, stream) == before
    assert await read_all(store, stream.id) == ["1", "2"]


async def test_a_duplicate_is_recognised_before_every_other_reason_but_the_epoch(store: Store) -> None:
    stream = await create(store, "a")
    producer = Producer("p", 1, 0)
    await append(store, stream, numbered(1, 1), producer=producer)
    await append(store, stream, numbered(2, 2), producer=Producer("z", 1, 0), close=Close(StreamState.FAILED))
    again = appending(stream, numbered(1, 1), producer=producer, expected_head=Seq(0), writer_seq="")
    result = await write(store, again)
    assert isinstance(result, Appended)
    assert result.duplicate
    assert isinstance(await rejected(store, msgspec.structs.replace(again, epoch=Epoch(77))), EpochMismatchError)


async def test_a_lease_keeps_others_out_until_it_runs_out(store: Store) -> None:
    stream = await create(store, "a", lease_producer="run", lease_epoch=3, lease_until_ms=NOW_MS + 100)
    own = Producer("run", 3, 0)
    refused: Sequence[Append] = [
        appending(stream, numbered(9, 9)),
        appending(stream, numbered(9, 9), producer=Producer("other", 9, 0)),
        appending(stream, numbered(9, 9), producer=Producer("run", 2, 0)),
    ]
    for op in refused:
        error = await rejected(store, op)
        assert isinstance(error, FencedError)
        assert error.detail == {"epoch": 3}
    await append(store, stream, numbered(1, 1), producer=own)
    await append(store, stream, numbered(2, 2), now_ms=NOW_MS + 100)
    assert await read_all(store, stream.id) == ["1", "2"]


async def test_writing_slides_the_expiry_of_a_stream_with_a_time_to_live_only(store: Store) -> None:
    living, fixed = await create(store, "a", ttl_seconds=10), await create(store, "b", expires_ms=NOW_MS + 10_000)
    assert living.expires_ms == fixed.expires_ms == NOW_MS + 10_000
    for stream in (living, fixed):
        await append(store, stream, numbered(1, 1), now_ms=NOW_MS + 5_000)
    assert (await info_of(store, living)).expires_ms == NOW_MS + 15_000
    assert (await info_of(store, fixed)).expires_ms == NOW_MS + 10_000


async def test_ends_and_progress_survive_in_any_mixture_within_one_write(store: Store) -> None:
    stream = await create(store, "a", ttl_seconds=10)
    results = await store.write(
        [
            appending(stream, numbered(1, 1), now_ms=NOW_MS + 1, writer_seq="a"),
            appending(stream, numbered(2, 2), now_ms=NOW_MS + 1, writer_seq="b", close=Close(StreamState.CANCELLED)),
            appending(stream, numbered(3, 3), now_ms=NOW_MS + 2),
            CreateStream(principal=ALICE, name="b", now_ms=NOW_MS, messages=numbered(1, 2)),
        ]
    )
    assert isinstance(results[2], Rejected)
    assert isinstance(results[2].error, EndedError)
    assert results[2].error.detail == {"state": "cancelled", "head": 2}
    now = await info_of(store, stream)
    assert (now.head, now.state, now.writer_seq, now.expires_ms) == (2, StreamState.CANCELLED, "b", NOW_MS + 10_001)


async def test_an_append_by_name_goes_to_the_stream_that_has_the_name_now(store: Store) -> None:
    known = await create(store, "a", messages=numbered(1, 2))
    op = appending(known, numbered(3, 3), name_of=known)
    kept, _, gone, created, moved, repeat = await store.write(
        [
            op,
            DeleteStream(stream=known.id, epoch=known.epoch),
            op,
            CreateStream(principal=ALICE, name="a", now_ms=NOW_MS),
            appending(known, numbered(1, 1), producer=Producer("p", 0, 0), name_of=known),
            appending(known, numbered(1, 1), producer=Producer("p", 0, 0), name_of=known),
        ]
    )
    assert isinstance(kept, Appended)
    assert (kept.last, kept.moved_to) == (3, None)
    assert isinstance(gone, Rejected)
    assert isinstance(gone.error, NotFoundError)
    assert isinstance(created, Created)
    fresh = created.stream
    for result, duplicate in ((moved, False), (repeat, True)):
        assert isinstance(result, Appended)
        assert (result.first, result.duplicate, result.moved_to) == (1, duplicate, (fresh.id, fresh.epoch))
    assert isinstance(await rejected(store, appending(known, numbered(2, 2))), NotFoundError)
    assert await read_all(store, fresh.id) == ["1"]


async def test_an_append_by_name_never_goes_to_somebody_elses_stream_or_a_deleted_one(store: Store) -> None:
    lost, kept = await create(store, "lost"), await create(store, "kept", messages=numbered(1, 1))
    await create(store, "fork", fork=Fork(kept.id, Seq(1)))
    for stream in (lost, kept):
        await done(store, DeleteStream(stream=stream.id, epoch=stream.epoch))
    theirs = await create(store, "lost", principal=BOB)
    for stream in (lost, kept):
        assert isinstance(await rejected(store, appending(stream, numbered(1, 1), name_of=stream)), NotFoundError)
    assert (await info_of(store, theirs)).head == 0
    mine = await create(store, "lost")
    result = await write(store, appending(lost, numbered(1, 1), name_of=lost))
    assert isinstance(result, Appended)
    assert result.moved_to == (mine.id, mine.epoch)
    assert (await info_of(store, theirs)).head == 0
