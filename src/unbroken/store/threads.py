"""The seam between the event loop and blocking work: a `Worker` does one thing at a time, in the order it was asked.

Stores get their workers from a factory: `ThreadWorker` in production, `InlineWorker` where a simulation wants everything in
one thread. A worker knows nothing of what it runs and never retries it.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol, TypeVar

from unbroken.errors import StoreUnavailableError

__all__ = ["InlineWorker", "ThreadWorker", "Worker", "WorkerFactory"]

T = TypeVar("T")
_log = logging.getLogger(__name__)


class Worker(Protocol):
    """Runs functions one after the other."""

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` returns or raises. Cancelling the caller does not stop work: it is done as a whole all the same."""
        ...

    def post(self, work: Callable[[], None]) -> None:
        """Run `work` later, with nobody waiting for it; dropped when the worker has too much to do or has stopped."""
        ...

    async def stop(self) -> None:
        """Finish what was asked for so far, then take no more; idempotent."""
        ...


WorkerFactory = Callable[[str, int], Worker]
"""Makes a worker of that name which holds at most so many waiting pieces of work."""


class _Job:
    """A function whose result an event loop waits for."""

    __slots__ = ("future", "loop", "work")

    def __init__(self, work: Callable[[], object]) -> None:
        self.work = work
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[object] = self.loop.create_future()

    def __call__(self) -> None:
        result: object = None
        failure: BaseException | None = None
        try:
            result = self.work()
        except BaseException as error:  # noqa: BLE001 - the top of a thread: everything goes to who asked for it
            failure = error
        with suppress(RuntimeError):  # the loop that asked is closed: nobody is left to be told
            self.loop.call_soon_threadsafe(self._settle, result, failure)

    def _settle(self, result: object, failure: BaseException | None) -> None:
        if self.future.done():
            return
        if failure is None:
            self.future.set_result(result)
        else:
            self.future.set_exception(failure)


class ThreadWorker:
    """One daemon thread and a bounded queue in front of it. `run` may be called from any event loop of any thread."""

    def __init__(self, name: str, pending_max: int) -> None:
        self._queue: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()  # in C: fewer hand-overs than `Queue`
        self._pending_max = pending_max
        self._stopping = False
        self._accepting = threading.Lock()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    async def run(self, work: Callable[[], T]) -> T:
        job = _Job(work)
        self._put(job)
        return await job.future  # type: ignore[return-value]  # the future holds what `work` returned

    def post(self, work: Callable[[], None]) -> None:
        with suppress(StoreUnavailableError):
            self._put(work)

    async def stop(self) -> None:
        if not self._stopping:
            await self.run(self._stop)
        self._thread.join()

    def _put(self, job: Callable[[], None]) -> None:
        with self._accepting:  # so that whatever was accepted is in the queue when the thread finds it empty and ends
            if self._stopping:
                raise StoreUnavailableError("the store is closed")
            if self._queue.qsize() >= self._pending_max:
                raise StoreUnavailableError(f"{self._pending_max} requests wait for the store already")
            self._queue.put(job)

    def _stop(self) -> None:
        with self._accepting:
            self._stopping = True

    def _work(self) -> None:
        while not (self._stopping and self._queue.empty()):
            job = self._queue.get()
            try:
                job()
            except Exception:  # noqa: BLE001 - the top of a thread: logged, and the next piece of work goes on
                _log.exception("posted work of %s failed", self._thread.name)


class InlineWorker:
    """Runs everything at once, in the caller's thread. Posted work runs after the work that posted it."""

    def __init__(self, name: str, pending_max: int) -> None:
        self._name = name
        self._pending_max = pending_max
        self._posted: deque[Callable[[], None]] = deque()
        self._busy = False
        self._stopped = False

    async def run(self, work: Callable[[], T]) -> T:
        if self._stopped:
            raise StoreUnavailableError("the store is closed")
        was_busy, self._busy = self._busy, True
        try:
            return work()
        finally:
            self._busy = was_busy
            self._drain()

    def post(self, work: Callable[[], None]) -> None:
        if not self._stopped and len(self._posted) < self._pending_max:
            self._posted.append(work)
            self._drain()

    async def stop(self) -> None:
        self._stopped = True

    def _drain(self) -> None:
        while self._posted and not self._busy:
            self._busy = True
            try:
                self._posted.popleft()()
            finally:
                self._busy = False
