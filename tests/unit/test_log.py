"""The log: order, group commit, backpressure, failure, draining."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from tests.support.faulty import FaultyStore
from tests.support.parts import running_parts, texts
from unbroken.errors import (
    CorruptError,
    DrainingError,
    OverloadedError,
    StoreFullError,
    StoreUnavailableError,
    UnbrokenError,
    UnknownOutcomeError,
)
from unbroken.limits import DEFAULT_LIMITS
from unbroken.log import Change
from unbroken.requests import AppendOptions
from unbroken.store.base import Appended, DeleteStream, Done, Producer, WriteOp, WriteResult, grows

pytestmark = pytest.mark.anyio


async def test_what_waits_is_committed_together_and_in_order() -> None:
    store = FaultyStore(limits=DEFAULT_LIMITS)
    async with running_parts(store) as parts:
        stream = await parts.stream()
        store.hold()
        first = parts.streams.append(stream, texts("0"))
        await store.waiting.wait()
        futures = [parts.streams.append(stream, texts(str(n))) for n in range(1, 100)]
        store.writes.clear()
        store.release()
        results = await asyncio.gather(first, *futures)
    assert [(r.first, r.last) for r in results if isinstance(r, Appended)] == [(n, n) for n in range(1, 101)]
    assert store.writes == [1, 99]


async def test_listeners_hear_a_commit_before_producers_are_acknowledged() -> None:
    store = FaultyStore(limits=DEFAULT_LIMITS)
    async with running_parts(store) as parts:
        stream = await parts.stream()
        heard: list[tuple[int, int, bool]] = []

        def listen(changes: Sequence[Change]) -> None:
            heard.extend((change.first, change.last, future.done()) for change in changes)

        parts.log.on_commit(listen)
        future = parts.streams.append(stream, texts("a", "b"))
        await future
        assert heard == [(1, 2, False)]


async def test_nothing_is_announced_before_the_store_has_made_it_durable() -> None:
    store = FaultyStore(limits=DEFAULT_LIMITS)
    async with running_parts(store) as parts:
        stream = await parts.stream()
        heard: list[Change] = []
        parts.log.on_commit(heard.extend)
        store.hold()
        future = parts.streams.append(stream, texts("a"))
        await store.waiting.wait()
        assert heard == []
        assert not future.done()
        store.release()
        await future
        assert len(heard) == 1


async def test_a_failed_commit_is_told_to_each_producer_and_the_log_goes_on() -> None:
    store = FaultyStore(limits=DEFAULT_LIMITS)
    async with running_parts(store) as parts:
        stream = await parts.stream()
        health: list[UnbrokenError | None] = []
        parts.log.on_health(health.append)
        store.failures.append(StoreFullError())
        with pytest.raises(StoreFullError):
            await parts.streams.append_durably(stream, texts("a"))
        reason: UnbrokenError | None = parts.log.degraded
        assert isinstance(reason, StoreFullError)
        assert (await parts.streams.append_durably(stream, texts("a"))).first == 1
        reason = parts.log.degraded
        assert reason is None
    assert [type(error) for error in health] == [StoreFullError, type(None)]
    assert store.failed == 1


async def test_a_store_that_works_again_is_noticed_without_anybody_writing() -> None:
    limits = replace(DEFAULT_LIMITS, probe_seconds=0.01)
    store = FaultyStore(limits=limits)
    async with running_parts(store, limits=limits) as parts:
        stream = await parts.stream()
        recovered = asyncio.Event()
        store.failures += [StoreFullError(), StoreFullError(), StoreFullError()]
        with pytest.raises(StoreFullError):
            await parts.streams.append_durably(stream, texts("a"))
        parts.log.on_health(lambda error: recovered.set() if error is None else None)
        async with asyncio.timeout(10):
            await recovered.wait()
        assert store.failed == 3, "it did not recover before the store did"


async def test_a_store_that_fails_while_nobody_writes_is_noticed_when_somebody_cannot_ask_it() -> None:
    store = FaultyStore(limits=DEFAULT_LIMITS)
    async with running_parts(store) as parts:
        health: asyncio.Queue[str | None] = asyncio.Queue()
        parts.log.on_health(lambda error: health.put_nowait(None if error is None else error.code))
        store.failures.append(StoreUnavailableError("the file is gone"))
        parts.log.look()
        async with asyncio.timeout(10):
            assert await health.get() == "store_unavailable"
            assert await health.get() is None


@pytest.mark.parametrize("whole", [False, True], ids=["one stream", "the whole database"])
async def test_damage_degrades_the_server_only_where_nothing_can_be_written_any_more(*, whole: bool) -> None:
    store = FaultyStore(limits=DEFAULT_LIMITS)
    async with running_parts(store) as parts:
        stream = await parts.stream()
        health: list[str | None] = []
        parts.log.on_health(lambda error: health.append(None if error is None else error.code))
        store.failures += [CorruptError("database disk image is malformed") for _ in range(2 if whole else 1)]
        with pytest.raises(CorruptError):
            await parts.streams.append_durably(stream, texts("a"))
        await parts.streams.append_durably(stream, texts("b"))
        assert health == (["corrupt", None] if whole else [])


async def test_a_producer_that_stopped_waiting_loses_nothing() -> None:
    store = FaultyStore(limits=DEFAULT_LIMITS)
    async with running_parts(store) as parts:
        stream = await parts.stream()
        store.hold()
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(parts.streams.append_durably(stream, texts("a")))
            await store.waiting.wait()
            waiting.cancel()
        store.release()
        assert (await parts.streams.append_durably(stream, texts("b"))).first == 2


async def test_the_bound_on_pending_bytes_is_reached_and_refuses() -> None:
    limits = replace(DEFAULT_LIMITS, pending_bytes_max=10_000, append_wait_seconds_max=0.05)
    store = FaultyStore(limits=limits)
    async with running_parts(store, limits=limits) as parts:
        stream = await parts.stream()
        store.hold()
        futures: list[asyncio.Future[WriteResult]] = []

        def flood() -> None:
            while len(futures) < 100:
                futures.append(parts.streams.append(stream, texts("x" * 1000)))

        with pytest.raises(OverloadedError) as caught:
            flood()
        assert 8 <= len(futures) <= 10
        assert caught.value.detail["limit"] == "pending_bytes_max"
        assert caught.value.retryable
        assert parts.log.pending_bytes <= limits.pending_bytes_max + 2_000
        with pytest.raises(OverloadedError):
            await parts.streams.append_durably(stream, texts("y"))
        store.release()
        await asyncio.gather(*futures)
        assert parts.log.pending_bytes == 0
        assert (await parts.streams.append_durably(stream, texts("z"))).first == len(futures) + 1


async def test_a_commit_is_bounded_in_operations() -> None:
    limits = replace(DEFAULT_LIMITS, commit_messages_max=10)
    store = FaultyStore(limits=limits)
    async with running_parts(store, limits=limits) as parts:
        stream = await parts.stream()
        store.writes.clear()
        await asyncio.gather(*[parts.streams.append(stream, texts("a")) for _ in range(25)])
    assert max(store.writes) <= 10
    assert sum(store.writes) == 25


async def test_draining_decides_what_was_submitted_and_refuses_the_rest() -> None:
    store = FaultyStore(limits=DEFAULT_LIMITS)
    async with running_parts(store) as parts:
        stream = await parts.stream()
        futures = [parts.streams.append(stream, texts("a")) for _ in range(3)]
        await parts.log.drain()
        assert all(future.done() for future in futures)
        with pytest.raises(DrainingError):
            parts.streams.append(stream, texts("b"))


async def test_stopping_the_log_fails_what_still_waits() -> None:
    store = FaultyStore(limits=DEFAULT_LIMITS)
    futures = []
    async with running_parts(store) as parts:
        stream = await parts.stream()
        store.hold()
        futures.append(parts.streams.append(stream, texts("a")))
        await store.waiting.wait()
        futures.append(parts.streams.append(stream, texts("b")))
    assert isinstance(futures[0].exception(), UnknownOutcomeError)
    assert isinstance(futures[1].exception(), DrainingError)


async def test_a_store_that_hangs_is_drained_for_a_bounded_time_and_what_is_undecided_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    limits = replace(DEFAULT_LIMITS, drain_seconds_max=0.1)
    store = FaultyStore(limits=limits)
    async with running_parts(store, limits=limits) as parts:
        stream = await parts.stream()
        store.hold()
        begun = [parts.streams.append(stream, texts("a"))]
        await store.waiting.wait()
        waiting = [parts.streams.append(stream, texts(text)) for text in "bcd"]
        async with asyncio.timeout(10):
            await parts.log.drain()
        assert [type(future.exception()) for future in begun] == [UnknownOutcomeError]
        assert [type(future.exception()) for future in waiting] == [DrainingError] * 3
        assert parts.log.pending_bytes == 0
        with pytest.raises(DrainingError):
            parts.streams.append(stream, texts("e"))
        assert parts.log.abandoned
    assert [record.getMessage() for record in caplog.records] == [
        "stopping with 1 operations undecided and 3 not begun: the store did not answer"
    ]


async def test_a_hastened_log_gives_up_a_store_that_hangs_and_no_other(caplog: pytest.LogCaptureFixture) -> None:
    limits = replace(DEFAULT_LIMITS, drain_seconds_max=0.2)
    store = FaultyStore(limits=limits)
    async with running_parts(store, limits=limits) as parts:
        stream = await parts.stream()
        parts.log.hasten()
        async with asyncio.timeout(10):
            for number in range(1, 5):  # longer than the bound in all, but each commit is decided in time
                await asyncio.sleep(0.1)
                assert (await parts.streams.append_durably(stream, texts("a"))).first == number
            store.hold()
            parts.log.hasten()
            with pytest.raises(UnknownOutcomeError):
                await parts.streams.append_durably(stream, texts("b"))
            with pytest.raises(DrainingError):
                await parts.streams.append_durably(stream, texts("c"))
            await parts.log.drain()
    assert len(caplog.records) == 1


async def test_a_store_that_hangs_when_it_is_probed_is_given_up_too() -> None:
    limits = replace(DEFAULT_LIMITS, drain_seconds_max=0.1, probe_seconds=0.01)
    store = FaultyStore(limits=limits)
    async with running_parts(store, limits=limits) as parts:
        stream = await parts.stream()
        store.failures.append(StoreFullError())
        with pytest.raises(StoreFullError):
            await parts.streams.append_durably(stream, texts("a"))
        store.hold()
        async with asyncio.timeout(10):
            await store.waiting.wait()
            future = parts.streams.append(stream, texts("b"))
            await parts.log.drain()
        assert isinstance(future.exception(), DrainingError)


async def test_hastening_reaches_a_commit_that_hangs_already() -> None:
    limits = replace(DEFAULT_LIMITS, drain_seconds_max=0.1)
    store = FaultyStore(limits=limits)
    async with running_parts(store, limits=limits) as parts:
        stream = await parts.stream()
        store.hold()
        future = parts.streams.append(stream, texts("a"))
        await store.waiting.wait()
        await asyncio.sleep(0.3)
        assert not future.done()
        parts.log.hasten()
        async with asyncio.timeout(10):
            with pytest.raises(UnknownOutcomeError):
                await future


async def test_an_unavailable_store_is_an_error_that_says_retry() -> None:
    store = FaultyStore(limits=DEFAULT_LIMITS)
    async with running_parts(store) as parts:
        stream = await parts.stream()
        store.failures.append(StoreUnavailableError())
        with pytest.raises(StoreUnavailableError) as caught:
            await parts.streams.append_durably(stream, texts("a"))
    assert caught.value.retryable


async def test_a_stop_whose_own_bound_ends_in_the_same_moment_ends_all_the_same() -> None:
    limits = replace(DEFAULT_LIMITS, drain_seconds_max=0.2)
    store = FaultyStore(limits=limits)
    async with running_parts(store, limits=limits) as parts, asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        stream = await parts.stream("a")
        store.hold()
        waiting = parts.streams.append(stream, texts("x"))
        await store.waiting.wait()
        parts.log.hasten()
        life = parts.log._life
        assert life is not None
        when = life.when()
        assert when is not None
        asyncio.get_running_loop().call_at(when - 1e-6, lambda: tasks.create_task(parts.log.drain()))
        with pytest.raises(UnknownOutcomeError):
            await waiting
        store.release()


async def test_a_store_that_does_not_answer_is_told_to_all_who_wait_and_its_late_answer_is_used() -> None:
    limits = replace(DEFAULT_LIMITS, store_seconds_max=0.05)
    store = FaultyStore(limits=limits)
    async with running_parts(store, limits=limits) as parts:
        stream = await parts.stream()
        heard: list[tuple[int, int]] = []
        parts.log.on_commit(lambda changes: heard.extend((change.first, change.last) for change in changes))
        health: list[str | None] = []
        parts.log.on_health(lambda error: health.append(None if error is None else error.code))
        store.hold()
        taken: list[WriteResult | UnbrokenError] = []
        parts.streams.append_to(taken.append, stream, texts("taken"))
        await store.waiting.wait()
        waiting = parts.streams.append(stream, texts("waiting"))
        with pytest.raises(StoreUnavailableError):
            await asyncio.wait_for(waiting, 20)
        with pytest.raises(StoreUnavailableError, match="not answered"):
            parts.streams.append(stream, texts("refused at once"))
        assert (heard, health) == ([], ["store_unavailable"])
        assert [type(outcome) for outcome in taken] == [UnknownOutcomeError]
        store.release()
        async with asyncio.timeout(20):
            while parts.log.degraded is not None:
                await asyncio.sleep(0.005)
        assert (heard, health) == ([(1, 1)], ["store_unavailable", None])
        assert len(taken) == 1, "whoever waited is told once"
        assert (await parts.streams.append_durably(stream, texts("again"))).first == 2
        assert parts.log.pending_bytes == 0


async def test_a_probe_that_does_not_return_holds_nobody_up() -> None:
    limits = replace(DEFAULT_LIMITS, store_seconds_max=0.05, probe_seconds=0.01)
    store = FaultyStore(limits=limits)
    async with running_parts(store, limits=limits) as parts:
        stream = await parts.stream()
        store.failures.append(StoreUnavailableError())
        with pytest.raises(StoreUnavailableError):
            await parts.streams.append(stream, texts("fails"))
        store.hold()
        await store.waiting.wait()
        with pytest.raises(StoreUnavailableError):
            await asyncio.wait_for(parts.streams.append(stream, texts("waits")), 20)
        store.release()
        async with asyncio.timeout(20):
            while parts.log.degraded is not None:
                await asyncio.sleep(0.005)
        assert (await parts.streams.append_durably(stream, texts("again"))).first == 1


class FullStore(FaultyStore):
    """Has no room for anything that stays, until told otherwise."""

    full = False

    async def write(self, ops: Sequence[WriteOp]) -> list[WriteResult]:
        if self.full and any(map(grows, ops)):
            raise StoreFullError
        return await super().write(ops)

    async def probe(self) -> None:
        if self.full:
            raise StoreFullError


async def test_what_needs_no_room_passes_a_full_store_although_it_came_together_with_what_does() -> None:
    store = FullStore(limits=DEFAULT_LIMITS)
    async with running_parts(store) as parts:
        stream, other = await parts.stream("a"), await parts.stream("b")
        health: list[str | None] = []
        parts.log.on_health(lambda error: health.append(None if error is None else error.code))
        store.hold()
        first = parts.streams.append(stream, texts("first"))
        await store.waiting.wait()
        store.full = True
        append = parts.streams.append(stream, texts("more"))
        delete = parts.log.submit(DeleteStream(stream=other.id, epoch=other.epoch))
        store.release()
        await first
        with pytest.raises(StoreFullError):
            await append
        assert isinstance(await delete, Done)
        assert health == ["store_full"], "deleting does not mean that there is room"
        store.full = False
        assert (await parts.streams.append_durably(stream, texts("again"))).first == 2
        assert health == ["store_full", None]


async def test_a_repeat_brings_viewers_no_messages_but_a_reason_to_look() -> None:
    async with running_parts(FaultyStore(limits=DEFAULT_LIMITS)) as parts:
        stream = await parts.stream()
        heard: list[Change] = []
        parts.log.on_commit(heard.extend)
        options = AppendOptions(producer=Producer("p", 0, 0))
        await parts.streams.append_durably(stream, texts("a"), options)
        again = await parts.streams.append_durably(stream, texts("a"), options)
        assert again.duplicate
    assert [(len(change.messages), change.state_changed) for change in heard] == [(1, False), (0, True)]
