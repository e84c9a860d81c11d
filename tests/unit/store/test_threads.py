"""Workers: order, results, cancellation, bounds."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from unbroken.errors import StoreUnavailableError
from unbroken.store.threads import InlineWorker, ThreadWorker, Worker

pytestmark = pytest.mark.anyio


@pytest.fixture(params=[ThreadWorker, InlineWorker])
async def worker(request: pytest.FixtureRequest) -> AsyncIterator[Worker]:
    made: Worker = request.param("test-worker", 8)
    yield made
    await made.stop()


async def test_work_gives_its_result_or_its_error(worker: Worker) -> None:
    assert await worker.run(lambda: 41 + 1) == 42
    with pytest.raises(ZeroDivisionError):
        await worker.run(lambda: 1 // 0)
    assert await worker.run(lambda: "still here") == "still here"


async def test_work_is_done_in_the_order_it_was_asked_for(worker: Worker) -> None:
    done: list[int] = []
    for n in range(5):
        worker.post(lambda n=n: done.append(n))  # type: ignore[misc]
    await worker.run(lambda: done.append(5))
    assert done == [0, 1, 2, 3, 4, 5]


async def test_posted_work_that_fails_does_not_stop_a_thread(caplog: pytest.LogCaptureFixture) -> None:
    worker = ThreadWorker("test-worker", 8)

    def fail() -> None:
        raise KeyError

    worker.post(fail)
    assert await worker.run(lambda: 1) == 1
    assert "posted work of test-worker failed" in caplog.text
    await worker.stop()


async def test_posted_work_may_post_more_and_runs_after_what_posted_it(worker: Worker) -> None:
    done: list[str] = []

    def first() -> None:
        worker.post(lambda: done.append("second"))
        done.append("first")

    await worker.run(first)
    await worker.run(lambda: None)
    assert done == ["first", "second"]


async def test_a_stopped_worker_has_finished_everything_and_takes_no_more(worker: Worker) -> None:
    done: list[int] = []
    for n in range(3):
        worker.post(lambda n=n: done.append(n))  # type: ignore[misc]
    await worker.stop()
    await worker.stop()
    assert done == [0, 1, 2]
    with pytest.raises(StoreUnavailableError, match="closed"):
        await worker.run(lambda: None)
    worker.post(lambda: done.append(9))
    assert done == [0, 1, 2]


async def test_cancelling_the_caller_does_not_stop_the_work() -> None:
    worker = ThreadWorker("test-worker", 8)
    begun, go_on, done = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        assert go_on.wait(30)
        done.set()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(worker.run(work))
        assert await asyncio.to_thread(begun.wait, 30)
        task.cancel()
    assert task.cancelled()
    assert not done.is_set()
    go_on.set()
    await worker.run(lambda: None)
    assert done.is_set()
    await worker.stop()


async def test_a_worker_with_too_much_to_do_says_so_and_recovers() -> None:
    worker = ThreadWorker("test-worker", 2)
    begun, go_on = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        assert go_on.wait(30)

    async with asyncio.TaskGroup() as group:
        group.create_task(worker.run(work))
        assert await asyncio.to_thread(begun.wait, 30)
        for _ in range(2):
            group.create_task(worker.run(lambda: None))
        await asyncio.sleep(0)
        with pytest.raises(StoreUnavailableError, match="2 requests wait"):
            await worker.run(lambda: None)
        worker.post(lambda: None)
        go_on.set()
    assert await worker.run(lambda: 1) == 1
    await worker.stop()


async def test_one_worker_serves_several_event_loops() -> None:
    worker = ThreadWorker("test-worker", 8)
    others = [asyncio.to_thread(lambda n=n: asyncio.run(worker.run(lambda: n))) for n in range(5)]  # type: ignore[misc]
    assert await asyncio.gather(*others) == [0, 1, 2, 3, 4]
    await worker.stop()


async def test_what_was_accepted_while_stopping_is_done_too() -> None:
    worker = ThreadWorker("test-worker", 8)
    begun, go_on = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        assert go_on.wait(30)

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        group.create_task(worker.run(work))
        assert await asyncio.to_thread(begun.wait, 30)
        stopping = group.create_task(worker.stop())
        await asyncio.sleep(0)
        late = group.create_task(worker.run(lambda: "done"))
        await asyncio.sleep(0)
        go_on.set()
    assert stopping.done()
    assert late.result() == "done"
