"""Expiry and compaction, and that neither they nor the reaper ever end the server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from tests.support.faulty import FaultyStore
from tests.support.parts import ALICE, ManualClock, running_parts, texts
from unbroken.auth.access import Access
from unbroken.errors import NotFoundError, OverloadedError
from unbroken.identity import Principal, Verb
from unbroken.limits import DEFAULT_LIMITS
from unbroken.messages import StreamInfo
from unbroken.requests import NewStream
from unbroken.retention import Retention
from unbroken.server.app import build_services
from unbroken.server.engine import Engine
from unbroken.store.base import Producer
from unbroken.store.memory import MemoryStore

pytestmark = pytest.mark.anyio

HASTY = replace(DEFAULT_LIMITS, lease_seconds=0.2, lease_seconds_min=0.1, reap_interval_seconds=0.05)


async def test_what_has_expired_is_deleted_and_nothing_else() -> None:
    clock = ManualClock()
    async with running_parts(MemoryStore(limits=DEFAULT_LIMITS), clock=clock) as parts:
        retention = Retention(parts.streams)
        await parts.stream("short", NewStream(ttl_seconds=10))
        await parts.stream("long", NewStream(ttl_seconds=100))
        await parts.stream("kept")
        assert await retention.expire() == 0
        clock.advance(11)
        assert await retention.expire() == 1
        with pytest.raises(NotFoundError):
            await parts.streams.get(ALICE, "short", may=Verb.READ)
        assert (await parts.streams.get(ALICE, "long", may=Verb.READ)).name == "long"
        assert (await parts.streams.get(ALICE, "kept", may=Verb.READ)).name == "kept"


@pytest.mark.parametrize("streams", [9, 11])
async def test_many_small_chunks_are_merged_however_many_streams_there_are(streams: int) -> None:
    limits = replace(DEFAULT_LIMITS, page_items_max=10, compact_chunks_min=8)
    store = MemoryStore(limits=limits)
    async with running_parts(store, limits=limits) as parts:
        retention = Retention(parts.streams)
        infos = [await parts.stream(f"s{number}") for number in range(streams)]
        merged = 0
        for _ in range(20):
            await asyncio.gather(*[parts.streams.append(info, texts("x")) for info in infos])
            merged += await retention.compact()
        assert merged >= 9


class Racing(MemoryStore):
    """Somebody comes between the look and the write of the reaper or of retention."""

    race: Callable[[StreamInfo], Awaitable[None]] | None = None

    async def expired(self, now_ms: int, *, limit: int) -> list[StreamInfo]:
        found = await super().expired(now_ms, limit=limit)
        for info in found:
            if self.race is not None:
                await self.race(info)
        return found

    async def leased(self, before_ms: int, *, limit: int) -> list[StreamInfo]:
        found = await super().leased(before_ms, limit=limit)
        for info in found:
            if self.race is not None:
                await self.race(info)
        return found


async def test_a_stream_that_is_read_in_the_moment_of_its_expiry_lives_on() -> None:
    clock = ManualClock()
    store = Racing(limits=DEFAULT_LIMITS)
    async with running_parts(store, clock=clock) as parts:
        retention = Retention(parts.streams)
        await parts.stream("read", NewStream(ttl_seconds=10))
        clock.advance(11)
        store.race = parts.streams.touch
        assert await retention.expire() == 0
        assert (await parts.streams.get(ALICE, "read", may=Verb.READ)).name == "read"
        store.race = None
        clock.advance(9)
        assert await retention.expire() == 0
        clock.advance(2)
        assert await retention.expire() == 1


async def test_a_stream_deleted_under_the_reaper_does_not_end_the_server() -> None:
    store = Racing(limits=HASTY)
    engine = Engine(build_services(store, Access(), limits=HASTY))
    async with engine.running():
        streams = engine.services.streams
        store.race = streams.delete
        await streams.create(Principal(), "leased", NewStream(lease=Producer("p", 0, 0), lease_seconds=0.1))
        async with asyncio.timeout(10):
            while await store.get(Principal(), "leased") is not None:
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.2)
        assert engine.services.started


async def test_a_store_that_is_too_slow_for_the_reaper_does_not_end_the_server() -> None:
    limits = replace(HASTY, pending_bytes_max=1_000, append_wait_seconds_max=0.1)
    store = FaultyStore(limits=limits)
    engine = Engine(build_services(store, Access(), limits=limits))
    async with engine.running():
        streams = engine.services.streams
        await streams.create(Principal(), "leased", NewStream(lease=Producer("p", 0, 0), lease_seconds=0.1))
        other = (await streams.create(Principal(), "b", NewStream())).stream
        store.hold()

        def fill() -> None:
            while True:
                streams.append(other, texts("x" * 500))

        with pytest.raises(OverloadedError):
            fill()
        await asyncio.sleep(0.5)
        store.release()
        assert engine.services.started
        assert (await streams.append_durably(other, texts("again"))).last > 0


async def test_stopping_in_the_middle_of_a_reap_is_a_clean_stop() -> None:
    store = FaultyStore(limits=HASTY)
    engine = Engine(build_services(store, Access(), limits=HASTY))
    async with engine.running():
        lease = NewStream(lease=Producer("p", 0, 0), lease_seconds=0.1)
        for number in range(3):
            await engine.services.streams.create(Principal(), f"leased{number}", lease)
        store.hold()
        async with asyncio.timeout(10):
            await store.waiting.wait()
        asyncio.get_running_loop().call_later(0.2, store.release)
