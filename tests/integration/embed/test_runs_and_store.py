"""Runs and the store below them: slowed when it is away, never broken, and shared between applications."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from tests.integration.embed.host import CEILING_SECONDS
from tests.integration.embed.steps import Steps, ended, head
from tests.support.faulty import FaultyStore
from unbroken import Unbroken
from unbroken.errors import (
    StoreUnavailableError,
    UnknownOutcomeError,
)
from unbroken.limits import DEFAULT_LIMITS
from unbroken.messages import StreamState

pytestmark = pytest.mark.anyio


async def test_a_caller_that_is_cancelled_does_not_take_the_run_with_it() -> None:
    store = FaultyStore(limits=DEFAULT_LIMITS)
    unbroken, steps = Unbroken(store), Steps()
    async with unbroken.lifespan(), asyncio.TaskGroup() as tasks:
        store.hold()
        caller = tasks.create_task(unbroken.start(steps.source(), "a"))
        await store.waiting.wait()
        caller.cancel()
        await asyncio.wait([caller])
        store.release()
        steps.step("x")
        steps.finish()
        await steps.left.wait()
        info, texts = await ended(unbroken, "a")
        assert (info.state, texts) == (StreamState.COMPLETED, ["x"])


@pytest.mark.scenario("TC-INT-001b")
@pytest.mark.parametrize(
    "failure",
    [StoreUnavailableError("away"), UnknownOutcomeError("who knows")],
    ids=["unavailable", "unknown outcome"],
)
async def test_a_store_that_is_away_slows_a_run_and_loses_nothing(
    failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unbroken.runs.one.RETRY_SECONDS", 0.01)
    store = FaultyStore(limits=DEFAULT_LIMITS)
    unbroken, steps = Unbroken(store), Steps()
    async with unbroken.lifespan():
        await unbroken.start(steps.source(), "a")
        store.failures += [failure] * 8  # type: ignore[list-item]
        for number in range(100):
            steps.step(str(number))
        steps.finish()
        info, texts = await ended(unbroken, "a")
        assert store.failed == 8, "the fault must have bitten"
        assert (info.state, texts) == (StreamState.COMPLETED, [str(number) for number in range(100)])


async def test_a_store_that_is_away_longer_than_a_lease_does_not_end_a_living_run() -> None:
    limits = replace(DEFAULT_LIMITS, lease_seconds=1.0, reap_interval_seconds=0.05)
    store = FaultyStore(limits=limits)
    unbroken, steps = Unbroken(store, limits=limits), Steps()
    async with unbroken.lifespan():
        loop = asyncio.get_running_loop()
        started = loop.time()
        await unbroken.start(steps.source(), "a")
        while loop.time() - started < 2.0:
            if not store.failures:
                store.failures += [StoreUnavailableError("away")] * 5
            await asyncio.sleep(0.01)
        failed = store.failed
        store.failures.clear()
        steps.step("one")
        steps.finish()
        info, texts = await ended(unbroken, "a")
        assert failed > 3, "the fault must have bitten"
        assert (info.state, texts) == (StreamState.COMPLETED, ["one"])


async def test_a_stop_does_not_wait_for_ever_for_a_store_that_stays_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unbroken.runs.one.RETRY_SECONDS", 0.01)
    limits = replace(DEFAULT_LIMITS, drain_seconds_max=0.2)
    store = FaultyStore(limits=limits)
    unbroken, steps = Unbroken(store, limits=limits), Steps()
    async with asyncio.timeout(CEILING_SECONDS), unbroken.lifespan():
        await unbroken.start(steps.source(), "a")
        store.failures += [StoreUnavailableError("away")] * 10_000
    assert store.failed > 3, "the fault must have bitten"
    assert steps.left.is_set()


async def test_a_fast_source_is_held_back_by_the_store_in_messages_and_bytes() -> None:
    store = FaultyStore(limits=DEFAULT_LIMITS)
    unbroken = Unbroken(store)
    yielded = 0

    async def source() -> AsyncIterator[str]:
        nonlocal yielded
        for _ in range(1_000):
            yielded += 1
            yield "x" * 100_000

    async with unbroken.lifespan():
        await unbroken.start(source(), "a")
        store.hold()
        await store.waiting.wait()
        before = -1
        async with asyncio.timeout(CEILING_SECONDS):
            while before != yielded:
                before = yielded
                await asyncio.sleep(0.1)
        assert yielded * 100_000 < 3 * DEFAULT_LIMITS.run_memory_bytes_max
        store.release()
        info, texts = await ended(unbroken, "a")
        assert (info.state, len(texts)) == (StreamState.COMPLETED, 1_000)


async def test_applications_that_share_a_file_follow_and_cancel_each_others_runs(tmp_path: Any) -> None:
    limits = replace(DEFAULT_LIMITS, lease_seconds=1.0)
    store = f"sqlite:///{tmp_path}/a.db"
    one, other = (Unbroken(store, durability="process", limits=limits) for _ in range(2))
    steps, unused = Steps(), Steps()
    async with one.lifespan(), other.lifespan():
        await one.start(steps.source(), "a")
        attached = await other.start(unused.source(), "a")
        assert attached.state is StreamState.RUNNING
        steps.step("one")
        await head(other, "a", 1)
        await other.cancel("a")
        info, texts = await ended(other, "a")
        assert (info.state, texts) == (StreamState.CANCELLED, ["one"])
        assert steps.left.is_set()
        assert not unused.begun.is_set()
