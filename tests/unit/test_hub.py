"""The hub: live delivery, catching up, bounded rings, ends that are told."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from random import Random

import pytest

from tests.support.faulty import FaultyStore
from tests.support.parts import ALICE, Parts, running_parts, texts
from unbroken.errors import AlreadyExistsError, NotFoundError, TrimmedError, UnknownOutcomeError
from unbroken.hub import Follower, LiveBatch, Subscription, news
from unbroken.identity import Verb
from unbroken.limits import DEFAULT_LIMITS
from unbroken.log import Change
from unbroken.messages import START, Seq, StreamId, StreamInfo, StreamState, decode_messages
from unbroken.requests import AppendOptions, NewStream
from unbroken.store.base import Close, Fork, Producer, Read, WriteOp, WriteResult
from unbroken.store.memory import MemoryStore

pytestmark = pytest.mark.anyio


class Viewer:
    """A sink that takes live batches while `room` is left."""

    def __init__(self, room: int = 10**9) -> None:
        self.room = room
        self.taken: list[LiveBatch] = []
        self.woken = 0

    def offer(self, subscription: Subscription, batch: LiveBatch) -> bool:
        if self.room <= 0:
            return False
        self.room -= 1
        self.taken.append(batch)
        return True

    def wake(self, subscription: Subscription) -> None:
        self.woken += 1


async def read_all(follower: Follower, until: int) -> list[str]:
    """The texts that a follower gets up to message `until`, checking that each seq comes once and in order."""
    seen: list[str] = []
    while len(seen) < until:
        delta = await follower.next(10)
        assert delta, "nothing came"
        for batch in delta.batches:
            assert batch.first == follower.cursor - len(batch) + 1 or batch.last <= follower.cursor
            seen += [str(message.text) for message in decode_messages(batch.body)]
    return seen


async def test_live_batches_are_encoded_once_for_all_viewers() -> None:
    async with running_parts(MemoryStore(limits=DEFAULT_LIMITS)) as parts:
        stream = await parts.stream()
        viewers = [Viewer() for _ in range(3)]
        for viewer in viewers:
            await parts.hub.subscribe(stream, START, viewer)
        await parts.streams.append_durably(stream, texts("a", "b"))
        frames = [viewer.taken[0].frame for viewer in viewers]
        assert frames[0] is frames[1] is frames[2]
        assert frames[0].startswith(b'{"type":"messages","stream":"a","epoch":1,"first":1,')


async def test_catching_up_hands_over_to_live_without_hole_or_double() -> None:
    random = Random(20)
    async with running_parts(MemoryStore(limits=DEFAULT_LIMITS)) as parts:
        stream = await parts.stream()
        total = 600

        async def produce() -> None:
            for n in range(total):
                await parts.streams.append_durably(stream, texts(str(n)))

        async def watch() -> list[str]:
            start = random.randrange(0, total // 2)
            while (await parts.streams.get(ALICE, "a", may=Verb.READ)).head < start:
                await asyncio.sleep(0)
            with await parts.hub.follow(stream, START) as follower:
                return await read_all(follower, total)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(produce())
            watching = [tasks.create_task(watch()) for _ in range(20)]
        for task in watching:
            assert task.result() == [str(n) for n in range(total)]


async def test_a_viewer_without_room_is_woken_and_pulls_what_it_missed() -> None:
    async with running_parts(MemoryStore(limits=DEFAULT_LIMITS)) as parts:
        stream = await parts.stream()
        viewer = Viewer(room=1)
        subscription = await parts.hub.subscribe(stream, START, viewer)
        for n in range(5):
            await parts.streams.append_durably(stream, texts(str(n)))
        assert [batch.first for batch in viewer.taken] == [1]
        assert viewer.woken >= 4
        missed = await parts.hub.pull(subscription)
        assert [(batch.first, batch.last) for batch in missed] == [(2, 2), (3, 3), (4, 4), (5, 5)]
        assert not subscription.behind


async def test_a_stalled_viewer_does_not_hold_up_the_others() -> None:
    async with running_parts(MemoryStore(limits=DEFAULT_LIMITS)) as parts:
        stream = await parts.stream()
        stalled = [Viewer(room=0) for _ in range(99)]
        fast = Viewer()
        for viewer in [*stalled, fast]:
            await parts.hub.subscribe(stream, START, viewer)
        for n in range(50):
            await parts.streams.append_durably(stream, texts(str(n)))
        assert [batch.first for batch in fast.taken] == list(range(1, 51))
        assert all(viewer.taken == [] for viewer in stalled)


@pytest.mark.scenario("TC-EDGE-010")
async def test_viewers_that_catch_up_share_what_there_is_and_each_always_gets_something() -> None:
    limits = replace(DEFAULT_LIMITS, catch_up_bytes_max=8_000, catch_up_bytes_min=500)
    async with running_parts(MemoryStore(limits=limits), limits=limits) as parts:
        stream = await parts.stream()
        for number in range(100):
            await parts.streams.append_durably(stream, texts(f"{number}" + "x" * 200))
        viewers = [await parts.hub.follow(stream, START)]
        alone = sum(len(batch.body) for batch in (await viewers[0].next()).batches)
        assert 7_000 < alone <= 8_100, "with what stands between messages"
        viewers += [await parts.hub.follow(stream, START) for _ in range(3)]
        shared = sum(len(batch.body) for batch in (await viewers[1].next()).batches)
        assert 1_700 < shared <= 2_100
        viewers += [await parts.hub.follow(stream, START) for _ in range(96)]
        assert parts.hub.share_bytes == 500
        assert (await viewers[2].next()).batches
        for viewer in viewers[1:]:
            viewer.close()
            viewer.close()
        assert (parts.hub.subscriptions, parts.hub.share_bytes) == (1, 8_000)


async def test_the_ring_is_bounded_and_what_fell_out_comes_from_the_store() -> None:
    limits = replace(DEFAULT_LIMITS, ring_bytes_max=2_000, ring_batches_max=10)
    async with running_parts(MemoryStore(limits=limits), limits=limits) as parts:
        stream = await parts.stream()
        viewer = Viewer(room=0)
        subscription = await parts.hub.subscribe(stream, START, viewer)
        for n in range(100):
            await parts.streams.append_durably(stream, texts(f"{n}" + "x" * 100))
        live = subscription.live
        assert len(live.ring) <= 10
        assert live.ring_bytes == sum(len(batch.body) for batch in live.ring) <= 2_000
        seen: list[LiveBatch] = []
        while subscription.behind:
            seen += await parts.hub.pull(subscription, bytes_max=1_000)
        assert seen[0].first == 1
        assert seen[-1].last == 100
        assert all(a.last + 1 == b.first for a, b in pairwise(seen))


async def test_the_ring_goes_with_its_last_viewer() -> None:
    async with running_parts(MemoryStore(limits=DEFAULT_LIMITS)) as parts:
        stream = await parts.stream()
        one, two = await parts.hub.follow(stream, START), await parts.hub.follow(stream, START)
        assert (parts.hub.streams, parts.hub.subscriptions) == (1, 2)
        one.close()
        one.close()
        assert (parts.hub.streams, parts.hub.subscriptions) == (1, 1)
        two.close()
        assert (parts.hub.streams, parts.hub.subscriptions) == (0, 0)


async def test_the_terminal_state_is_told_once_and_after_the_last_message() -> None:
    async with running_parts(MemoryStore(limits=DEFAULT_LIMITS)) as parts:
        stream = await parts.stream()
        with await parts.hub.follow(stream, START) as follower:
            await follower.next(5)
            close = Close(StreamState.FAILED, '{"exit_code":2}')
            await parts.streams.append_durably(stream, texts("last"), AppendOptions(close=close))
            told: list[tuple[int, StreamState | None]] = []
            while not (told and told[-1][1] is not None):
                delta = await follower.next(5)
                assert delta
                told.append((len(delta.batches), delta.info.state if delta.info else None))
        assert sum(batches for batches, _ in told) == 1
        assert told[-1][1] is StreamState.FAILED
        assert follower.ended
        assert follower.info.reason == '{"exit_code":2}'


async def test_a_late_viewer_of_an_ended_stream_gets_everything_and_the_end() -> None:
    async with running_parts(MemoryStore(limits=DEFAULT_LIMITS)) as parts:
        stream = await parts.stream()
        close = Close(StreamState.COMPLETED)
        await parts.streams.append_durably(stream, texts("a", "b"), AppendOptions(close=close))
        with await parts.hub.follow(await parts.streams.get(ALICE, "a", may=Verb.READ), START) as follower:
            delta = await follower.next(5)
            assert [batch.last for batch in delta.batches] == [2]
            assert delta.info is not None
            assert delta.info.state is StreamState.COMPLETED
            assert not await follower.next(0.01)


async def test_trimming_under_a_viewer_is_told_and_never_a_silent_hole() -> None:
    async with running_parts(MemoryStore(limits=DEFAULT_LIMITS)) as parts:
        stream = await parts.stream()
        await parts.streams.append_durably(stream, texts("a", "b", "c"))
        stream = await parts.streams.trim(stream, 3)
        with await parts.hub.follow(stream, START) as follower:
            with pytest.raises(TrimmedError) as caught:
                await follower.next(5)
            assert caught.value.detail["first"] == 3


async def test_deleting_under_a_viewer_is_told() -> None:
    async with running_parts(MemoryStore(limits=DEFAULT_LIMITS)) as parts:
        stream = await parts.stream()
        with await parts.hub.follow(stream, START) as follower:
            await follower.next(5)
            await parts.streams.delete(stream)
            with pytest.raises(NotFoundError):
                await forever(follower)


async def test_a_follower_pushes_what_comes_while_it_waits_and_nothing_else() -> None:
    pushed: list[int] = []
    room = True

    def push(batch: LiveBatch) -> bool:
        if room:
            pushed.append(batch.last)
        return room

    async with running_parts(MemoryStore(limits=DEFAULT_LIMITS)) as parts:
        stream = await parts.stream()
        with await parts.hub.follow(stream, START) as follower:
            follower.push = push
            await parts.streams.append_durably(stream, texts("before anybody waits"))
            assert (await follower.next(5)).batches[-1].last == 1
            await parts.streams.append_durably(stream, texts("nobody waits"))
            assert (await follower.next(5)).batches[-1].last == 2
            assert pushed == []
            async with asyncio.TaskGroup() as tasks:
                waiting = tasks.create_task(follower.next(5))
                await asyncio.sleep(0)
                await parts.streams.append_durably(stream, texts("a"))
                await parts.streams.append_durably(stream, texts("b"))
                assert (pushed, follower.cursor) == ([3, 4], 4)
                room = False
                await parts.streams.append_durably(stream, texts("no room"))
                room = True  # what comes behind must not overtake it
                await parts.streams.append_durably(stream, texts("c"))
                delta = await waiting
            assert delta.batches[0].last == 5
            assert pushed == [3, 4]
            await read_all(follower, 6 - follower.cursor)
            assert not await follower.next(0.01)
            await parts.streams.append_durably(stream, texts("after the wait"))
            assert pushed == [3, 4]


async def forever(follower: Follower) -> None:
    while True:
        assert await follower.next(5)


async def test_subscribing_to_what_was_just_deleted_fails_and_leaves_nothing() -> None:
    async with running_parts(MemoryStore(limits=DEFAULT_LIMITS)) as parts:
        stream = await parts.stream()
        await parts.streams.delete(stream)
        with pytest.raises(NotFoundError):
            await parts.hub.follow(stream, START)
        assert (parts.hub.streams, parts.hub.subscriptions) == (0, 0)


async def test_a_commit_of_another_process_reaches_viewers_through_a_hint() -> None:
    store = FaultyStore(limits=DEFAULT_LIMITS)
    async with running_parts(store) as parts:
        stream = await parts.stream()
        with await parts.hub.follow(stream, START) as follower:
            await follower.next(5)
            await write_behind_the_log(parts, stream)
            parts.hub.hint(None)
            assert await read_all(follower, 1) == ["elsewhere"]
            await parts.streams.append_durably(stream, texts("here"))
            assert await read_all(follower, 1) == ["here"]


async def test_lost_hints_cost_time_but_no_messages() -> None:
    store = FaultyStore(limits=DEFAULT_LIMITS)
    async with running_parts(store) as parts:
        stream = await parts.stream()
        with await parts.hub.follow(stream, START) as follower:
            await follower.next(5)
            await write_behind_the_log(parts, stream)
            await parts.streams.append_durably(stream, texts("here"))
            assert await read_all(follower, 2) == ["elsewhere", "here"]


async def write_behind_the_log(parts: Parts, stream: StreamInfo) -> None:
    """Append as another process would: straight into the store."""
    from unbroken.messages import encode_message  # noqa: PLC0415
    from unbroken.store.base import Append  # noqa: PLC0415

    encoded = encode_message(texts("elsewhere")[0], time_ms=1, producer=None, limits=DEFAULT_LIMITS)
    await parts.store.write([Append(stream=stream.id, epoch=stream.epoch, messages=(encoded,), now_ms=1)])


async def test_a_timeout_moves_no_cursor() -> None:
    async with running_parts(MemoryStore(limits=DEFAULT_LIMITS)) as parts:
        stream = await parts.stream()
        with await parts.hub.follow(stream, START) as follower:
            await follower.next(5)
            assert not await follower.next(0.01)
            assert follower.cursor == Seq(0)


async def test_deliveries_and_lag_are_counted() -> None:
    async with running_parts(MemoryStore(limits=DEFAULT_LIMITS)) as parts:
        stream = await parts.stream()
        fast, stalled = Viewer(), Viewer(room=0)
        await parts.hub.subscribe(stream, START, fast)
        behind = await parts.hub.subscribe(stream, START, stalled)
        await parts.streams.append_durably(stream, texts("a", "b", "c"))
        exposed = parts.metrics.expose().decode()
        assert "unbroken_delivered_messages_total 3.0" in exposed
        assert "unbroken_delivered_batches_total 1.0" in exposed
        assert "unbroken_lagging_subscriptions 1.0" in exposed
        assert "unbroken_pending_bytes 0.0" in exposed
        await parts.hub.pull(behind)
        exposed = parts.metrics.expose().decode()
        assert "unbroken_delivered_messages_total 6.0" in exposed
        assert "unbroken_lagging_subscriptions 0.0" in exposed


class Unknown(MemoryStore):
    """A store whose next commit takes effect, but does not know it."""

    unknown = False

    async def write(self, ops: Sequence[WriteOp]) -> list[WriteResult]:
        results = await super().write(ops)
        if self.unknown:
            self.unknown = False
            raise UnknownOutcomeError
        return results


async def test_what_a_commit_of_unknown_outcome_did_is_told_to_viewers() -> None:
    store = Unknown(limits=DEFAULT_LIMITS)
    async with running_parts(store) as parts:
        stream = await parts.stream()
        with await parts.hub.follow(stream, START) as follower:
            await follower.next(5)
            store.unknown = True
            options = AppendOptions(producer=Producer("p", 0, 0), close=Close(StreamState.COMPLETED))
            with pytest.raises(UnknownOutcomeError):
                await parts.streams.append_durably(stream, texts("last words"), options)
            assert (await parts.streams.append_durably(stream, texts("last words"), options)).duplicate
            while not follower.ended:
                assert await follower.next(5)
            assert follower.cursor == 1


class Slow(MemoryStore):
    """A store whose reads can be held back after they were made."""

    def __init__(self) -> None:
        super().__init__(limits=DEFAULT_LIMITS)
        self.go = asyncio.Event()
        self.go.set()
        self.reading = asyncio.Event()

    async def read(self, stream: StreamId, after: Seq, *, messages_max: int, bytes_max: int) -> Read:
        found = await super().read(stream, after, messages_max=messages_max, bytes_max=bytes_max)
        if not self.go.is_set():
            self.reading.set()
            await self.go.wait()
        return found


async def test_a_slow_read_does_not_bring_an_old_state_back() -> None:
    store = Slow()
    async with running_parts(store) as parts:
        stream = await parts.stream()
        await parts.streams.append_durably(stream, texts("1"))
        slow, fast = await parts.hub.follow(stream, START), await parts.hub.follow(stream, START)
        await fast.next(5)
        store.go.clear()
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(slow.next(5))
            await store.reading.wait()
            await parts.states.pause(stream)
            delta = await fast.next(5)
            assert delta.info is not None
            assert delta.info.state is StreamState.PAUSED
            store.go.set()
            await waiting
        assert not await fast.next(0.05)
        assert fast.info.state is StreamState.PAUSED
        slow.close()
        fast.close()


async def test_a_stream_that_only_its_forks_keep_cannot_be_watched() -> None:
    async with running_parts(MemoryStore(limits=DEFAULT_LIMITS)) as parts:
        stream = await parts.stream()
        await parts.streams.append_durably(stream, texts("1"))
        await parts.stream("fork", NewStream(fork=Fork(stream.id, Seq(1))))
        await parts.streams.delete(stream)
        with pytest.raises(NotFoundError):
            await parts.hub.follow(stream, START)
        with pytest.raises(AlreadyExistsError):
            await parts.stream("a")


async def test_a_commit_that_was_seen_already_takes_nothing_back() -> None:
    async with running_parts(MemoryStore(limits=DEFAULT_LIMITS)) as parts:
        stream = await parts.stream()
        told: list[Change] = []
        parts.log.on_commit(told.extend)
        viewer = Viewer()
        subscription = await parts.hub.subscribe(stream, START, viewer)
        for text in ("a", "b", "c"):
            await parts.streams.append_durably(stream, texts(text))
        woken = viewer.woken
        parts.hub.committed(told[:1])
        assert [batch.first for batch in viewer.taken] == [1, 2, 3]
        assert (subscription.live.head, viewer.woken) == (3, woken)
        with await parts.hub.follow(stream, START) as late:
            assert await read_all(late, 3) == ["a", "b", "c"]


async def test_a_viewer_that_is_behind_is_offered_nothing_out_of_its_turn() -> None:
    async with running_parts(MemoryStore(limits=DEFAULT_LIMITS)) as parts:
        stream = await parts.stream()
        await parts.streams.append_durably(stream, texts("a"))
        viewer = Viewer()
        subscription = await parts.hub.subscribe(stream, START, viewer)
        await parts.streams.append_durably(stream, texts("b"))
        assert viewer.taken == []
        assert viewer.woken >= 1
        missed = await parts.hub.pull(subscription)
        assert (missed[0].first, missed[-1].last) == (1, 2)


async def test_a_ring_with_a_hole_is_not_read_from() -> None:
    async with running_parts(FaultyStore(limits=DEFAULT_LIMITS)) as parts:
        stream = await parts.stream()
        await parts.hub.subscribe(stream, START, Viewer())
        await parts.streams.append_durably(stream, texts("a"))
        await write_behind_the_log(parts, stream)
        await parts.streams.append_durably(stream, texts("c"))
        with await parts.hub.follow(stream, START) as late:
            assert await read_all(late, 3) == ["a", "elsewhere", "c"]


async def test_a_cursor_inside_a_batch_gets_only_what_is_behind_it() -> None:
    async with running_parts(MemoryStore(limits=DEFAULT_LIMITS)) as parts:
        stream = await parts.stream()
        first = await parts.hub.subscribe(stream, START, Viewer())
        await parts.streams.append_durably(stream, texts("a", "b", "c"))
        assert [(batch.first, batch.last) for batch in first.live.ring] == [(1, 3)], "the ring cannot cut"
        late = await parts.hub.subscribe(stream, Seq(2), Viewer())
        assert [(batch.first, batch.last) for batch in await parts.hub.pull(late)] == [(3, 3)]


async def test_an_end_is_no_news_in_front_of_the_last_message() -> None:
    async with running_parts(MemoryStore(limits=DEFAULT_LIMITS)) as parts:
        stream = await parts.stream()
        close = Close(StreamState.COMPLETED)
        await parts.streams.append_durably(stream, texts("a"), AppendOptions(close=close))
        subscription = await parts.hub.subscribe(await parts.streams.get(ALICE, "a", may=Verb.READ), START, Viewer())
        assert news(subscription) is None
        await parts.hub.pull(subscription)
        told = news(subscription)
        assert told is not None
        assert told.state is StreamState.COMPLETED
        assert news(subscription) is None, "and it is told once"
