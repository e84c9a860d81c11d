"""One viewer that waits for what comes: how long, and what ends the waiting early.

The SSE face uses it, and the SSE responses and long polls of Durable Streams. It hands on what the hub gives and never looks
inside.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, TypeVar

from starlette.requests import ClientDisconnect

from unbroken.errors import TooLargeError, UnauthorizedError
from unbroken.hub import Delta, Follower
from unbroken.server.departure import departed

if TYPE_CHECKING:
    from starlette.types import Receive

    from unbroken.auth.live import Presence
    from unbroken.server.services import Services

__all__ = ["Attendance"]

T = TypeVar("T")


class Attendance:
    """A follower's place in front of the hub for at most `seconds_max`, in one task."""

    def __init__(
        self, services: Services, receive: Receive, follower: Follower, *, seconds_max: float, presence: Presence
    ) -> None:
        self._presence = presence
        self._services = services
        self._receive = receive
        self._follower = follower
        self._loop = asyncio.get_running_loop()
        self._ends = self._loop.time() + seconds_max
        self._life = asyncio.timeout_at(self._ends + services.limits.silence_seconds_max)
        """Cuts off a viewer that takes nothing at all, and one that has left."""
        self._waiting: asyncio.Timeout | None = None

    @property
    def refusal(self) -> UnauthorizedError | None:
        """Why the viewer may not stay: its credential has ended."""
        return self._presence.error

    @property
    def over(self) -> bool:
        """Whether the time is over, the viewer may not stay, or the server drains."""
        return self._services.draining or self.refusal is not None or self._loop.time() >= self._ends

    async def next(self, seconds_max: float) -> Delta:
        """What comes next; an empty delta after `seconds_max` without anything, or at the end of the time.

        When the server drains it gives what is there at once, if anything.
        """
        if self.refusal is not None:
            return Delta((), None)
        if self._services.draining:
            return await self._follower.next(0)
        try:
            async with asyncio.timeout_at(min(self._loop.time() + seconds_max, self._ends)) as self._waiting:
                return await self._follower.wait()
        except TimeoutError:
            return Delta((), None)
        finally:
            self._waiting = None

    async def run(self, work: Coroutine[object, object, T]) -> T:
        """What `work` gives. `ClientDisconnect` when the viewer leaves first, or takes nothing until long after the end."""
        try:
            async with asyncio.TaskGroup() as tasks:
                watching = (self._leave(), self._stop(), self._send_away())
                watchers = [tasks.create_task(work) for work in watching]
                try:
                    async with self._life:
                        return await work
                finally:
                    for watcher in watchers:
                        watcher.cancel()
        except ExceptionGroup as group:
            error = group.exceptions[0]
            if isinstance(error, TimeoutError) and self._life.expired():
                raise ClientDisconnect from None
            raise error from None

    def wake(self) -> None:
        """Let `next` return now, if anybody waits in it."""
        if self._waiting is not None:
            _hasten(self._waiting, self._loop.time())

    async def _leave(self) -> None:
        """Note that the viewer leaves; one that sends a body without end is told to come again without it."""
        try:
            await departed(self._receive)
        except TooLargeError:
            self._ends = self._loop.time()
            if self._waiting is not None:
                _hasten(self._waiting, self._ends)
        else:
            _hasten(self._life, self._loop.time())

    async def _stop(self) -> None:
        """When the server drains, end the wait at once; one who takes nothing is given half of the time."""
        await self._services.stopping.wait()
        now = self._loop.time()
        if self._waiting is not None:
            _hasten(self._waiting, now)
        _hasten(self._life, now + self._services.limits.drain_seconds_max / 2)

    async def _send_away(self) -> None:
        """When the credential ends, end the wait at once; one who takes nothing is cut off soon after."""
        await self._presence.gone.wait()
        now = self._loop.time()
        if self._waiting is not None:
            _hasten(self._waiting, now)
        _hasten(self._life, now + self._services.limits.credential_check_seconds)


def _hasten(scope: asyncio.Timeout, when: float) -> None:
    """Let `scope` end at `when`, unless it ends before."""
    ends = scope.when()
    if not scope.expired() and (ends is None or when < ends):
        scope.reschedule(when)
