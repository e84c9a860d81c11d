"""Long responses and the peer that leaves them: how many there are, and how work ends when nobody waits for it any more.

Long polls, SSE responses and long computations use it. It knows nothing of what they carry.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from starlette.requests import ClientDisconnect

from unbroken.errors import OverloadedError

if TYPE_CHECKING:
    from starlette.types import Receive

    from unbroken.errors import StoreError
    from unbroken.identity import Principal
    from unbroken.server.services import Services

__all__ = ["LongResponses", "departed", "unless", "while_connected"]

T = TypeVar("T")


class LongResponses:
    """Counts the responses of one face that stay open, up to `connections_max`."""

    def __init__(self, services: Services, face: str) -> None:
        self._services = services
        self._face = face
        self._open = 0
        self._wakers: set[Callable[[], None]] = set()

    def __len__(self) -> int:
        return self._open

    @contextmanager
    def place(self, principal: Principal) -> Iterator[None]:
        """One response is open inside the block; `OverloadedError` when there are too many, of the principal's too."""
        if self._open >= self._services.limits.connections_max:
            raise OverloadedError("too many open responses", limit="connections_max", retry_after_seconds=5)
        gauge = self._services.metrics.connections.labels(self._face)
        self._open += 1
        gauge.set(self._open)
        try:
            with self._services.quotas.place(principal):
                yield
        finally:
            self._open -= 1
            gauge.set(self._open)

    @contextmanager
    def woken(self, wake: Callable[[], None]) -> Iterator[None]:
        """Inside the block `wake` is called whenever there is something to say to all of them."""
        self._wakers.add(wake)
        try:
            yield
        finally:
            self._wakers.remove(wake)

    def health_changed(self, _error: StoreError | None) -> None:
        """The store is away, or back: the log says so to whoever asks it then."""
        for wake in self._wakers:
            wake()


async def departed(receive: Receive) -> None:
    """Return when the peer has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def while_connected(receive: Receive, work: Coroutine[object, object, T]) -> T:
    """What `work` gives; when the peer leaves first, `work` is cancelled and `ClientDisconnect` raised."""
    found = await unless(partial(departed, receive), work)
    if found is None:
        raise ClientDisconnect
    return found[0]


async def unless(interruption: Callable[[], Awaitable[object]], work: Coroutine[object, object, T]) -> tuple[T] | None:
    """What `work` gives, as a tuple of one; None when `interruption` ends first, which cancels `work`."""
    loop = asyncio.get_running_loop()
    life = asyncio.timeout(None)
    result: list[T] = []

    async def watch() -> None:
        await interruption()
        life.reschedule(loop.time())

    try:
        async with asyncio.TaskGroup() as tasks:
            watcher = tasks.create_task(watch())
            try:
                async with life:
                    result.append(await work)
            finally:
                watcher.cancel()
    except ExceptionGroup as group:
        error = group.exceptions[0]
        if isinstance(error, TimeoutError) and life.expired():
            return None
        raise error from None
    return (result[0],)
