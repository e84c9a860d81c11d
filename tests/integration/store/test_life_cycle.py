"""States, leases, cancel requests and expiry."""

from __future__ import annotations

import pytest

from tests.support.builders import NOW_MS, append, create, done, numbered, rejected
from unbroken.errors import EndedError, EpochMismatchError, FencedError, NotFoundError, TransitionError
from unbroken.messages import TERMINAL_STATES, Epoch, StreamId, StreamInfo, StreamState, can_transition
from unbroken.store.base import (
    DeleteStream,
    Done,
    Producer,
    Rejected,
    SetLease,
    SetState,
    StreamingMessageRepository,
    Touch,
    UpdateStream,
    WriteOp,
)

pytestmark = pytest.mark.anyio
Store = StreamingMessageRepository


def to(stream: StreamInfo, state: StreamState, **facts: object) -> SetState:
    given = {"stream": stream.id, "epoch": stream.epoch, "state": state, "now_ms": NOW_MS, **facts}
    return SetState(**given)  # type: ignore[arg-type]


def lease(stream: StreamInfo, producer: str, epoch: int, until_ms: int | None, now_ms: int = NOW_MS) -> SetLease:
    return SetLease(
        stream=stream.id,
        epoch=stream.epoch,
        producer=producer,
        producer_epoch=epoch,
        until_ms=until_ms,
        now_ms=now_ms,
    )


async def present(store: Store, stream: StreamInfo) -> StreamInfo:
    found = await store.get_by_id(stream.id)
    assert found is not None
    return found


@pytest.mark.parametrize("target", list(StreamState))
@pytest.mark.parametrize("source", list(StreamState))
async def test_the_table_of_transitions_decides(store: Store, source: StreamState, target: StreamState) -> None:
    stream = await create(store, "a")
    if source is not StreamState.OPEN:
        await done(store, to(stream, source))
    change = to(stream, target, reason='{"a":1}', now_ms=NOW_MS + 7)
    if can_transition(source, target):
        result = await done(store, change)
        assert result.stream == await present(store, stream)
        assert result.stream.state is target
        assert result.stream.reason == '{"a":1}'
        assert result.stream.ended_ms == (NOW_MS + 7 if target in TERMINAL_STATES else None)
    else:
        error = await rejected(store, change)
        assert type(error) is (EndedError if source in TERMINAL_STATES else TransitionError)
        assert (await present(store, stream)).state is source


async def test_operations_on_what_is_not_there_say_so(store: Store) -> None:
    stream = await create(store, "a")
    for number, kind in ((StreamId(99), NotFoundError), (stream.id, EpochMismatchError)):
        epoch = Epoch(99)
        operations: list[WriteOp] = [
            SetState(stream=number, epoch=epoch, state=StreamState.FAILED, now_ms=NOW_MS),
            SetLease(stream=number, epoch=epoch, producer="p", producer_epoch=0, until_ms=1, now_ms=NOW_MS),
            UpdateStream(stream=number, epoch=epoch, now_ms=NOW_MS, metadata="{}"),
        ]
        for op in operations:
            assert type(await rejected(store, op)) is kind
    assert isinstance(await rejected(store, Touch(stream=StreamId(99), now_ms=NOW_MS)), NotFoundError)


async def test_taking_renewing_and_giving_back_a_lease(store: Store) -> None:
    stream = await create(store, "a")
    taken = (await done(store, lease(stream, "p", 1, NOW_MS + 10))).stream
    assert taken is not None
    assert (taken.state, taken.lease_producer, taken.lease_epoch) == (StreamState.RUNNING, "p", 1)
    renewed = (await done(store, lease(stream, "p", 1, NOW_MS + 20, NOW_MS + 5))).stream
    assert renewed is not None
    assert renewed.lease_until_ms == NOW_MS + 20
    given_back = (await done(store, lease(stream, "p", 1, None))).stream
    assert given_back is not None
    assert (given_back.state, given_back.lease_producer) == (StreamState.OPEN, None)
    assert given_back.lease_until_ms is None
    assert (await done(store, lease(stream, "p", 1, None))).stream == given_back


async def test_a_lease_is_taken_over_only_when_it_ran_out_or_by_a_later_epoch_of_the_same_producer(
    store: Store,
) -> None:
    stream = await create(store, "a")
    await done(store, lease(stream, "p", 2, NOW_MS + 10))
    for op in (
        lease(stream, "q", 9, NOW_MS + 99),
        lease(stream, "p", 1, NOW_MS + 99),
        lease(stream, "q", 9, None),
        lease(stream, "p", 1, None),
    ):
        error = await rejected(store, op)
        assert isinstance(error, FencedError)
        assert error.detail == {"epoch": 2}
    await done(store, lease(stream, "p", 3, NOW_MS + 10))
    assert isinstance(await rejected(store, lease(stream, "q", 0, None, NOW_MS + 11)), FencedError)
    taken = (await done(store, lease(stream, "q", 0, NOW_MS + 30, NOW_MS + 10))).stream
    assert taken is not None
    assert (taken.lease_producer, taken.lease_epoch) == ("q", 0)


async def test_epochs_are_of_one_producer_and_another_takes_a_free_lease_with_a_lower_one(store: Store) -> None:
    stream = await create(store, "a")
    await done(store, lease(stream, "p", 7, NOW_MS + 10))
    free = (await done(store, lease(stream, "p", 7, None))).stream
    assert free is not None
    assert (free.lease_producer, free.lease_epoch) == (None, 7)
    taken = (await done(store, lease(stream, "q", 0, NOW_MS + 10))).stream
    assert taken is not None
    assert (taken.state, taken.lease_producer, taken.lease_epoch) == (StreamState.RUNNING, "q", 0)
    assert await present(store, stream) == taken
    error = await rejected(store, lease(stream, "p", 8, NOW_MS + 20))
    assert isinstance(error, FencedError), "who held it before does not take it from who holds it now"
    assert error.detail == {"epoch": 0}


@pytest.mark.parametrize("state", sorted(TERMINAL_STATES | {StreamState.PAUSED, StreamState.OPEN}))
async def test_only_a_running_stream_keeps_its_lease(store: Store, state: StreamState) -> None:
    stream = await create(store, "a", lease_producer="p", lease_epoch=1, lease_until_ms=NOW_MS + 10)
    await done(store, to(stream, state))
    now = await present(store, stream)
    assert (now.lease_producer, now.lease_until_ms) == (None, None)
    assert await store.leased(NOW_MS + 1_000, limit=10) == []
    if state in TERMINAL_STATES:
        assert isinstance(await rejected(store, lease(stream, "p", 2, NOW_MS + 99)), EndedError)


@pytest.mark.parametrize(("producer", "epoch"), [("p", 1), ("p", 2), ("q", 0)])
async def test_nobody_takes_the_lease_of_a_paused_stream_before_it_is_open_again(
    store: Store, producer: str, epoch: int
) -> None:
    stream = await create(store, "a", lease_producer="p", lease_epoch=1, lease_until_ms=NOW_MS + 10)
    paused = (await done(store, to(stream, StreamState.PAUSED))).stream
    assert isinstance(await rejected(store, lease(stream, producer, epoch, NOW_MS + 20)), TransitionError)
    assert (await done(store, lease(stream, producer, epoch, None))).stream == paused, "there is nothing to give back"
    assert await present(store, stream) == paused
    await done(store, to(stream, StreamState.OPEN))
    taken = (await done(store, lease(stream, producer, epoch, NOW_MS + 20))).stream
    assert taken is not None
    assert (taken.state, taken.lease_producer, taken.lease_epoch) == (StreamState.RUNNING, producer, epoch)


async def test_the_reaper_ends_only_what_is_still_late_and_a_fence_only_lets_its_holder_through(store: Store) -> None:
    stream = await create(store, "a", lease_producer="p", lease_epoch=1, lease_until_ms=NOW_MS + 10)
    reap = to(stream, StreamState.INTERRUPTED, only_if_lease_before_ms=NOW_MS + 10)
    assert isinstance(await rejected(store, reap), TransitionError)
    for fence in (("q", 1), ("p", 0), ("p", 2)):
        assert isinstance(await rejected(store, to(stream, StreamState.FAILED, fence=fence)), FencedError)
    late = to(stream, StreamState.INTERRUPTED, only_if_lease_before_ms=NOW_MS + 11)
    assert (await done(store, late)).stream == await present(store, stream)
    other = await create(store, "b")
    assert isinstance(
        await rejected(store, to(other, StreamState.FAILED, only_if_lease_before_ms=NOW_MS)), TransitionError
    )
    await done(store, to(other, StreamState.FAILED, fence=("anybody", 0)))
    own = await create(store, "c", lease_producer="p", lease_epoch=1, lease_until_ms=NOW_MS + 10)
    await done(store, to(own, StreamState.COMPLETED, fence=("p", 1)))


async def test_late_leases_are_found_and_can_all_begin_anew(store: Store) -> None:
    streams = [
        await create(store, f"{n}", lease_producer="p", lease_until_ms=NOW_MS + n, messages=numbered(1, n))
        for n in (3, 1, 2)
    ]
    await create(store, "none")
    assert [s.name for s in await store.leased(NOW_MS + 3, limit=10)] == ["1", "2"]
    assert [s.name for s in await store.leased(NOW_MS + 9, limit=2)] == ["1", "2"]
    assert await store.renew_leases(NOW_MS, 3) == 3
    assert [s.name for s in await store.leased(NOW_MS + 3, limit=10)] == []
    assert {(await present(store, s)).lease_until_ms for s in streams} == {NOW_MS + 3}
    assert isinstance(
        await rejected(store, to(streams[1], StreamState.FAILED, only_if_lease_before_ms=NOW_MS + 3)), TransitionError
    )
    await append(store, streams[1], numbered(2, 2), producer=Producer("p", 0, 0))
    assert (await present(store, streams[1])).lease_until_ms == NOW_MS + 3


async def test_every_lease_can_begin_anew_with_its_own_length_and_none_lasts_longer(store: Store) -> None:
    made = {
        "short": await create(store, "a", lease_producer="p", lease_until_ms=NOW_MS + 2),
        "long": await create(store, "b", lease_producer="p", lease_until_ms=NOW_MS + 60),
        "renewed": await create(store, "c", lease_producer="p", lease_until_ms=NOW_MS + 2),
        "nobody's": await create(store, "d"),
    }
    await done(store, lease(made["renewed"], "p", 0, NOW_MS + 130, NOW_MS + 100))
    for now in (NOW_MS + 1_000, NOW_MS - 1_000):  # the clock was set forward, or back
        assert await store.renew_leases(now, 6) == 3
        left = {name: (await present(store, stream)).lease_until_ms for name, stream in made.items()}
        assert left == {"short": now + 6, "long": now + 60, "renewed": now + 30, "nobody's": None}
    await append(store, made["long"], numbered(1, 1), producer=Producer("p", 0, 0))
    assert (await present(store, made["long"])).lease_until_ms == NOW_MS - 1_000 + 60


async def test_expired_streams_are_found_oldest_first_and_a_touch_slides_the_expiry(store: Store) -> None:
    living = await create(store, "living", ttl_seconds=1)
    await create(store, "fixed", expires_ms=NOW_MS + 500)
    await create(store, "for ever")
    assert await store.expired(NOW_MS + 499, limit=9) == []
    assert [s.name for s in await store.expired(NOW_MS + 1_000, limit=9)] == ["fixed", "living"]
    assert [s.name for s in await store.expired(NOW_MS + 1_000, limit=1)] == ["fixed"]
    touched = (await done(store, Touch(stream=living.id, now_ms=NOW_MS + 900))).stream
    assert touched is not None
    assert touched.expires_ms == NOW_MS + 1_900
    assert [s.name for s in await store.expired(NOW_MS + 1_899, limit=9)] == ["fixed"]


async def test_metadata_and_the_first_cancel_request_are_kept(store: Store) -> None:
    stream = await create(store, "a", metadata='{"a":1}')
    first = UpdateStream(stream=stream.id, epoch=stream.epoch, now_ms=NOW_MS + 1, cancel_requested_by="tab 1")
    second = UpdateStream(
        stream=stream.id, epoch=stream.epoch, now_ms=NOW_MS + 2, cancel_requested_by="tab 2", metadata='{"b":2}'
    )
    asked = (await done(store, first)).stream
    assert asked is not None
    assert (asked.cancel_requested_by, asked.cancel_requested_ms, asked.metadata) == ("tab 1", NOW_MS + 1, '{"a":1}')
    again = (await done(store, second)).stream
    assert again is not None
    assert (again.cancel_requested_by, again.cancel_requested_ms, again.metadata) == ("tab 1", NOW_MS + 1, '{"b":2}')
    assert await present(store, stream) == again


async def test_a_delete_for_expiry_spares_what_was_touched_or_written_since_it_was_listed(store: Store) -> None:
    late = NOW_MS + 10_000
    touched, written, moved_on, forgotten = [
        await create(store, name, ttl_seconds=10) for name in ("touched", "written", "same commit", "forgotten")
    ]
    eternal = await create(store, "eternal")
    assert {info.id for info in await store.expired(late, limit=10)} >= {touched.id, written.id, forgotten.id}
    await done(store, Touch(stream=touched.id, now_ms=late))
    await append(store, written, numbered(1, 1), now_ms=late)

    def expiry(stream: StreamInfo) -> DeleteStream:
        return DeleteStream(stream=stream.id, epoch=stream.epoch, only_if_expired_at_ms=late)

    for stream in (touched, written, eternal):
        assert isinstance(await rejected(store, expiry(stream)), TransitionError)
        assert (await present(store, stream)).head == (1 if stream is written else 0)
    slid, refused = await store.write([Touch(stream=moved_on.id, now_ms=late), expiry(moved_on)])
    assert isinstance(slid, Done)
    assert isinstance(refused, Rejected)
    await done(store, expiry(forgotten))
    assert await store.get_by_id(forgotten.id) is None
    await done(store, DeleteStream(stream=touched.id, epoch=touched.epoch))
