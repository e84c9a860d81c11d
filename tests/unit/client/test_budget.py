"""The client's backpressure: bounded, first come first served, and nothing is lost when a wait is cancelled."""

from __future__ import annotations

import asyncio

import pytest

from unbroken.client.budget import Budget

pytestmark = pytest.mark.anyio


async def test_it_waits_for_messages_and_for_bytes() -> None:
    budget = Budget(2, 100)
    await budget.take(1, 90)
    for messages, size in ((1, 20), (2, 1)):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await budget.take(messages, size)
    await budget.take(1, 10)
    assert (budget.messages, budget.bytes) == (2, 100)


async def test_what_is_larger_than_everything_goes_alone() -> None:
    budget = Budget(2, 100)
    await budget.take(1, 1000)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await budget.take(1, 1)
    budget.give(1, 1000)
    await budget.take(1, 1)


async def test_whoever_waits_longest_goes_first_and_small_ones_do_not_overtake() -> None:
    budget = Budget(10, 100)
    await budget.take(1, 90)
    order: list[str] = []

    async def take(name: str, size: int) -> None:
        await budget.take(1, size)
        order.append(name)

    async with asyncio.TaskGroup() as group:
        group.create_task(take("large", 60))
        await asyncio.sleep(0)
        group.create_task(take("small", 5))
        await asyncio.sleep(0)
        assert order == []
        budget.give(1, 90)
    assert order == ["large", "small"]


@pytest.mark.parametrize("give_first", [True, False])
async def test_a_cancelled_wait_takes_nothing(give_first: bool) -> None:
    budget = Budget(1, 100)
    await budget.take(1, 1)
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(budget.take(1, 1))
        await asyncio.sleep(0)
        if give_first:
            budget.give(1, 1)
            waiting.cancel()
        else:
            waiting.cancel()
            budget.give(1, 1)
    assert (budget.messages, budget.bytes) == (0, 0)
    await budget.take(1, 100)
