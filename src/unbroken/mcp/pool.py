"""Keeps sessions warm between calls, and lends each to one call at a time, or to as many as may share it.

Each session lives in a task of its own, because it must be left where it was entered. What broke, or was left by a call that
did not end well, is not lent again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Generic, TypeVar

from unbroken.mcp.failures import Failure, FailureClass

__all__ = ["Lease", "Place", "Pool"]

T = TypeVar("T")


class Lease(Generic[T]):
    """A session on loan. `discard` says that nobody is to have it after those who have it now."""

    def __init__(self, value: T, discard: Callable[[], None]) -> None:
        self.value = value
        self.discard = discard


class Place:
    """A place among those that may do something at one time. Who waits for somebody steps aside, and lets another have it."""

    def __init__(self, places: asyncio.Semaphore) -> None:
        self._places = places
        self._held = False
        self._aside = 0

    async def __aenter__(self) -> Place:
        await self._take()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._give()

    @asynccontextmanager
    async def aside(self) -> AsyncIterator[None]:
        """Without the place inside the block; left by an exception, it is not waited for again."""
        self._aside += 1
        self._give()
        try:
            yield
        finally:
            self._aside -= 1
        if not self._aside:
            await self._take()

    async def _take(self) -> None:
        if not self._held:
            await self._places.acquire()
            self._held = True

    def _give(self) -> None:
        if self._held:
            self._held = False
            self._places.release()


class _Entry(Generic[T]):
    """One session: who uses it, and whether it is on its way out."""

    def __init__(self) -> None:
        self.users = 0
        self.closing = False
        self.value: T | None = None
        self.error: Exception | None = None
        self.task: asyncio.Task[None] | None = None
        self.ready = asyncio.Event()
        self.news = asyncio.Event()

    def end(self) -> None:
        """It cannot be used any more."""
        self.closing = True
        self.news.set()


class Pool(Generic[T]):
    """At most `size` sessions, each with at most `shared` users; one that is not used for `warm_seconds` is closed.

    `open_` makes one; it is given a function to call when the session ends by itself. Belongs to one event loop.
    """

    def __init__(
        self,
        open_: Callable[[Callable[[], None]], AbstractAsyncContextManager[T]],
        *,
        size: int,
        shared: int,
        warm_seconds: float | None,
    ) -> None:
        self._open = open_
        self._size = size
        self._shared = shared
        self._warm_seconds = warm_seconds
        self._entries: list[_Entry[T]] = []
        self._news = asyncio.Event()
        self._closing = asyncio.Event()
        self._running = asyncio.Event()
        self._tasks: asyncio.TaskGroup | None = None
        self._root: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._entries)

    @asynccontextmanager
    async def lease(self) -> AsyncIterator[Lease[T]]:
        """A session, when one is free; what `open_` raises when it cannot be had."""
        entry = await self._take()
        try:
            await entry.ready.wait()
            if entry.value is None or entry.error is not None:
                raise entry.error or _closed()
            yield Lease(entry.value, entry.end)
        finally:
            entry.users -= 1
            entry.news.set()
            self._news.set()

    async def close(self) -> None:
        """Close all sessions, and wait for that; idempotent."""
        self._closing.set()
        self._news.set()
        for entry in self._entries:
            entry.end()
            if not entry.ready.is_set() and entry.task is not None:
                entry.task.cancel()
        if self._root is not None:
            await self._root

    async def _take(self) -> _Entry[T]:
        while True:
            if self._closing.is_set():
                raise _closed()
            if self._root is None:
                self._root = asyncio.get_running_loop().create_task(self._run(), name="MCP sessions")
            await self._running.wait()
            entry = next((entry for entry in self._entries if not entry.closing and entry.users < self._shared), None)
            if entry is None and len(self._entries) < self._size:
                entry = self._begin()
            if entry is not None:
                entry.users += 1
                return entry
            self._news.clear()
            await self._news.wait()

    def _begin(self) -> _Entry[T]:
        assert self._tasks is not None
        entry: _Entry[T] = _Entry()
        self._entries.append(entry)
        entry.task = self._tasks.create_task(self._hold(entry))
        return entry

    async def _run(self) -> None:
        """The parent of all sessions' tasks; `close` waits for it."""
        async with asyncio.TaskGroup() as self._tasks:
            self._running.set()
            await self._closing.wait()

    async def _hold(self, entry: _Entry[T]) -> None:
        try:
            async with self._open(entry.end) as entry.value:
                entry.ready.set()
                await self._used(entry)
        except Exception as error:  # noqa: BLE001 - whoever waits for it is told; nobody else is concerned
            entry.error = error
        finally:
            entry.error = entry.error or _closed()
            entry.closing = True
            entry.ready.set()
            self._entries.remove(entry)
            self._news.set()

    async def _used(self, entry: _Entry[T]) -> None:
        """Until it is not to be used any more; its users are gone then, unless it ended by itself."""
        while not (entry.closing and (not entry.users or self._closing.is_set())):
            entry.news.clear()
            try:
                async with asyncio.timeout(None if entry.users else self._warm_seconds):
                    await entry.news.wait()
            except TimeoutError:
                if not entry.users:
                    return


def _closed() -> Failure:
    return Failure(kind=FailureClass.TRANSPORT, message="the session was closed", executed=False)
