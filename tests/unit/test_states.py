"""The life cycle: the table, leases, cancelling, the reaper, recovery after this machine slept."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from tests.support.parts import ALICE, ManualClock, Parts, running_parts, texts
from unbroken.errors import (
    EndedError,
    FencedError,
    InvalidError,
    StoreUnavailableError,
    TooLargeError,
    TransitionError,
    UnbrokenError,
)
from unbroken.identity import Verb
from unbroken.limits import DEFAULT_LIMITS, Limits
from unbroken.messages import TERMINAL_STATES, TRANSITIONS, StreamInfo, StreamState, can_transition
from unbroken.requests import AppendOptions, NewStream
from unbroken.store.base import Producer
from unbroken.store.memory import MemoryStore

pytestmark = pytest.mark.anyio


async def in_state(parts: Parts, state: StreamState, name: str) -> StreamInfo:
    """A stream in `state`, reached the ordinary way."""
    stream = await parts.stream(name)
    match state:
        case StreamState.OPEN:
            return stream
        case StreamState.RUNNING:
            return await parts.states.lease(stream, "p", 1, None)
        case StreamState.PAUSED:
            return await parts.states.pause(stream)
        case _:
            return await parts.states.close(stream, state)


@pytest.mark.parametrize("source", list(StreamState))
@pytest.mark.parametrize("target", [*sorted(TERMINAL_STATES), StreamState.PAUSED])
async def test_every_move_obeys_the_table(source: StreamState, target: StreamState) -> None:
    async with running_parts(MemoryStore(limits=DEFAULT_LIMITS)) as parts:
        stream = await in_state(parts, source, "a")
        move = parts.states.pause(stream) if target is StreamState.PAUSED else parts.states.close(stream, target)
        if can_transition(source, target) or (source is target and source.terminal):
            assert (await move).state is target
        else:
            with pytest.raises((TransitionError, EndedError)):
                await move
            assert (await parts.streams.get(ALICE, "a", may=Verb.READ)).state is source


def test_nothing_leaves_a_terminal_state_and_every_other_can_reach_each() -> None:
    for state in StreamState:
        if state.terminal:
            assert TRANSITIONS[state] == frozenset()
        else:
            assert TRANSITIONS[state] >= TERMINAL_STATES


async def test_only_a_terminal_state_closes() -> None:
    async with running_parts(MemoryStore(limits=DEFAULT_LIMITS)) as parts:
        with pytest.raises(InvalidError):
            await parts.states.close(await parts.stream(), StreamState.PAUSED)


@pytest.mark.parametrize(
    ("reason", "error"),
    [
        ("[]", InvalidError),
        ("nonsense", InvalidError),
        ('{"x": "' + "y" * 5000 + '"}', TooLargeError),
        ('{"x":' + "[" * 500 + "]" * 500 + "}", TooLargeError),
    ],
)
async def test_a_reason_is_a_bounded_json_object(reason: str, error: type[UnbrokenError]) -> None:
    async with running_parts(MemoryStore(limits=DEFAULT_LIMITS)) as parts:
        with pytest.raises(error):
            await parts.states.close(await parts.stream(), StreamState.FAILED, reason)


async def test_a_lease_keeps_others_from_producing_until_it_runs_out() -> None:
    clock = ManualClock()
    async with running_parts(MemoryStore(limits=DEFAULT_LIMITS), clock=clock) as parts:
        stream = await parts.stream()
        assert (await parts.states.lease(stream, "one", 1, 5)).state is StreamState.RUNNING
        with pytest.raises(FencedError):
            await parts.states.lease(stream, "two", 1, 5)
        with pytest.raises(FencedError):
            await parts.streams.append_durably(stream, texts("x"), AppendOptions(producer=Producer("two", 1, 0)))
        clock.advance(6)
        assert (await parts.states.lease(stream, "two", 1, 5)).lease_producer == "two"


async def test_a_lease_is_given_back() -> None:
    async with running_parts(MemoryStore(limits=DEFAULT_LIMITS)) as parts:
        stream = await parts.stream()
        await parts.states.lease(stream, "one", 1, 5)
        assert (await parts.states.lease(stream, "one", 1, 0)).state is StreamState.OPEN
        assert (await parts.states.lease(stream, "two", 1, 5)).lease_producer == "two"


@pytest.mark.parametrize("seconds", [0.5, -1, 10_000, float("nan")])
async def test_a_lease_has_bounds(seconds: float) -> None:
    async with running_parts(MemoryStore(limits=DEFAULT_LIMITS)) as parts:
        with pytest.raises(InvalidError):
            await parts.states.lease(await parts.stream(), "one", 1, seconds)


async def test_the_reaper_ends_what_has_lost_its_producer_and_nothing_else() -> None:
    clock = ManualClock()
    async with running_parts(MemoryStore(limits=DEFAULT_LIMITS), clock=clock) as parts:
        for state in (StreamState.OPEN, StreamState.RUNNING, StreamState.PAUSED, StreamState.COMPLETED):
            await in_state(parts, state, state.value)
        clock.advance(DEFAULT_LIMITS.lease_seconds - 1)
        assert await parts.states.reap() == 0
        clock.advance(2)
        assert await parts.states.reap() == 1
        assert await parts.states.reap() == 0
        dead = await parts.streams.get(ALICE, "running", may=Verb.READ)
        assert dead.state is StreamState.INTERRUPTED
        assert '"cause":"lease_expired"' in dead.reason
        for name in ("open", "paused", "completed"):
            assert (await parts.streams.get(ALICE, name, may=Verb.READ)).state.value == name


async def test_a_run_is_left_to_a_supervisor_for_a_while_and_then_ended_too() -> None:
    clock = ManualClock()
    async with running_parts(MemoryStore(limits=DEFAULT_LIMITS), clock=clock) as parts:
        await parts.streams.create(ALICE, "r", NewStream(run='{"type":"task","name":"t"}', lease=Producer("p", 1, 0)))
        clock.advance(DEFAULT_LIMITS.lease_seconds + DEFAULT_LIMITS.run_takeover_seconds - 0.5)
        assert await parts.states.reap() == 0
        clock.advance(1)
        assert await parts.states.reap() == 1
        assert (await parts.streams.get(ALICE, "r", may=Verb.READ)).state is StreamState.INTERRUPTED


async def test_a_renewed_lease_is_not_reaped() -> None:
    clock = ManualClock()
    async with running_parts(MemoryStore(limits=DEFAULT_LIMITS), clock=clock) as parts:
        stream = await in_state(parts, StreamState.RUNNING, "a")
        for _ in range(5):
            clock.advance(DEFAULT_LIMITS.lease_seconds - 1)
            await parts.states.lease(stream, "p", 1, None)
            assert await parts.states.reap() == 0


async def test_cancelling_tells_a_producer_and_ends_a_stream_without_one() -> None:
    async with running_parts(MemoryStore(limits=DEFAULT_LIMITS)) as parts:
        running = await in_state(parts, StreamState.RUNNING, "running")
        asked = await parts.states.cancel(running, ALICE)
        assert asked.state is StreamState.RUNNING
        assert asked.cancel_requested_by == "alice"
        assert await parts.states.cancel(asked, ALICE) == asked
        ended = await parts.states.cancel(await parts.stream("open"), ALICE)
        assert ended.state is StreamState.CANCELLED
        assert ended.reason == '{"by":"alice"}'
        assert await parts.states.cancel(ended, ALICE) == ended


async def test_a_producer_that_dies_after_a_cancel_is_marked_interrupted_and_says_so() -> None:
    clock = ManualClock()
    async with running_parts(MemoryStore(limits=DEFAULT_LIMITS), clock=clock) as parts:
        stream = await in_state(parts, StreamState.RUNNING, "a")
        await parts.states.cancel(stream, ALICE)
        clock.advance(60)
        await parts.states.reap()
        assert '"cancel_requested":true' in (await parts.streams.get(ALICE, "a", may=Verb.READ)).reason


async def test_resuming_opens_a_paused_stream_and_only_that() -> None:
    async with running_parts(MemoryStore(limits=DEFAULT_LIMITS)) as parts:
        stream = await parts.stream()
        with pytest.raises(TransitionError):
            await parts.states.resume(stream)
        assert (await parts.states.resume(await parts.states.pause(stream))).state is StreamState.OPEN


async def test_after_a_restart_leases_get_their_full_time_again() -> None:
    clock = ManualClock()
    async with running_parts(MemoryStore(limits=DEFAULT_LIMITS), clock=clock) as parts:
        await in_state(parts, StreamState.RUNNING, "a")
        clock.advance(3600)
        assert await parts.states.recover() == 1
        assert await parts.states.reap() == 0
        clock.advance(DEFAULT_LIMITS.lease_seconds + 1)
        assert await parts.states.reap() == 1


async def test_when_the_clock_jumps_the_reaper_gives_producers_their_time_again() -> None:
    clock = ManualClock()
    limits = replace(DEFAULT_LIMITS, reap_interval_seconds=0.01)
    async with running_parts(MemoryStore(limits=limits), limits=limits, clock=clock) as parts:
        await in_state(parts, StreamState.RUNNING, "a")
        async with asyncio.TaskGroup() as tasks:
            reaper = tasks.create_task(parts.states.run())
            await asyncio.sleep(0)
            clock.advance(3600)
            until = None
            async with asyncio.timeout(30):
                while until is None or until <= clock.ms:
                    await asyncio.sleep(0.005)
                    until = (await parts.streams.get(ALICE, "a", may=Verb.READ)).lease_until_ms
            reaper.cancel()
        assert (await parts.streams.get(ALICE, "a", may=Verb.READ)).state is StreamState.RUNNING


async def test_when_the_clock_is_set_back_a_dead_producer_is_found_all_the_same() -> None:
    clock = ManualClock()
    limits = replace(DEFAULT_LIMITS, reap_interval_seconds=0.01)
    async with running_parts(MemoryStore(limits=limits), limits=limits, clock=clock) as parts:
        stream = await in_state(parts, StreamState.RUNNING, "a")
        async with asyncio.TaskGroup() as tasks:
            reaper = tasks.create_task(parts.states.run())
            await asyncio.sleep(0)
            clock.advance(-3600)
            await parts.streams.append(stream, texts("the last word"), AppendOptions(producer=Producer("p", 1, 0)))
            until = stream.lease_until_ms or 0
            async with asyncio.timeout(30):
                while until > clock.ms + limits.lease_seconds * 1000:
                    await asyncio.sleep(0.005)
                    until = (await parts.streams.get(ALICE, "a", may=Verb.READ)).lease_until_ms or 0
            reaper.cancel()
        assert await parts.states.reap() == 0
        clock.advance(limits.lease_seconds + 1)
        assert await parts.states.reap() == 1


async def test_a_clock_that_was_set_back_while_the_server_was_down_keeps_no_lease_for_long() -> None:
    clock = ManualClock()
    async with running_parts(MemoryStore(limits=DEFAULT_LIMITS), clock=clock) as parts:
        await in_state(parts, StreamState.RUNNING, "a")
        clock.advance(-3600)
        await parts.states.recover()
        clock.advance(DEFAULT_LIMITS.lease_seconds + 1)
        assert await parts.states.reap() == 1


async def test_a_long_lease_gets_its_own_full_time_again() -> None:
    clock = ManualClock()
    async with running_parts(MemoryStore(limits=DEFAULT_LIMITS), clock=clock) as parts:
        await parts.states.lease(await parts.stream("a"), "p", 1, 60.0)
        clock.advance(3600)
        await parts.states.recover()
        clock.advance(50)
        assert await parts.states.reap() == 0
        clock.advance(11)
        assert await parts.states.reap() == 1


async def test_a_stream_can_begin_with_its_producer() -> None:
    async with running_parts(MemoryStore(limits=DEFAULT_LIMITS)) as parts:
        stream = await parts.stream("a", NewStream(lease=Producer("p", 3, 0), lease_seconds=2))
        assert (stream.state, stream.lease_producer, stream.lease_epoch) == (StreamState.RUNNING, "p", 3)


async def test_when_the_store_comes_back_leases_get_their_time_again_before_anybody_is_reaped() -> None:
    clock = ManualClock()
    limits = replace(DEFAULT_LIMITS, reap_interval_seconds=0.01)
    async with running_parts(AwayStore(limits, clock), limits=limits, clock=clock) as parts:
        await in_state(parts, StreamState.RUNNING, "a")
        async with asyncio.TaskGroup() as tasks:
            reaper = tasks.create_task(parts.states.run())
            while (await parts.streams.get(ALICE, "a", may=Verb.READ)).lease_until_ms == FIRST_LEASE_MS:
                await asyncio.sleep(0.005)
            reaper.cancel()
        stream = await parts.streams.get(ALICE, "a", may=Verb.READ)
        assert clock.ms > FIRST_LEASE_MS, "the lease ran out while nobody could renew it"
        assert stream.state is StreamState.RUNNING
        assert (stream.lease_until_ms or 0) > clock.ms


FIRST_LEASE_MS = ManualClock().ms + int(DEFAULT_LIMITS.lease_seconds * 1000)


class AwayStore(MemoryStore):
    """Neither tells who is late nor extends a lease, for longer than one lasts; a second of the clock passes each time."""

    def __init__(self, limits: Limits, clock: ManualClock) -> None:
        super().__init__(limits=limits)
        self._clock = clock
        self._away = int(limits.lease_seconds) + 2

    def _fail(self) -> None:
        if self._away:
            self._away -= 1
            self._clock.advance(1)
            raise StoreUnavailableError("away")

    async def leased(self, before_ms: int, *, limit: int) -> list[StreamInfo]:
        self._fail()
        return await super().leased(before_ms, limit=limit)

    async def renew_leases(self, now_ms: int, at_least_ms: int) -> int:
        self._fail()
        return await super().renew_leases(now_ms, at_least_ms)
