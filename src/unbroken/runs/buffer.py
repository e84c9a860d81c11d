"""What a run has yielded and the log has not taken yet: bounded in messages and bytes, in order.

One task puts, one takes. It knows neither the source nor the log, and never drops a message.
"""

from __future__ import annotations

import asyncio
from collections import deque

from unbroken.messages import NewMessage

__all__ = ["Buffer"]


class Buffer:
    """A queue of messages for one putting and one taking task. One message always fits, however large it is."""

    def __init__(self, *, messages_max: int, bytes_max: int) -> None:
        self._messages_max = messages_max
        self._bytes_max = bytes_max
        self._waiting: deque[tuple[NewMessage, int]] = deque()
        self._bytes = 0
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self.finished = False

    @property
    def full(self) -> bool:
        """Whether `put` waits."""
        return len(self._waiting) >= self._messages_max or self._bytes >= self._bytes_max

    async def put(self, message: NewMessage, size: int) -> None:
        """Add a message of `size` bytes; waits while the buffer is full. After `finish` nothing is added."""
        while self.full and not self.finished:
            self._room.clear()
            await self._room.wait()
        if not self.finished:
            self._waiting.append((message, size))
            self._bytes += size
            self._news.set()

    async def take(self, *, messages_max: int, bytes_max: int) -> list[NewMessage]:
        """What waits, at least one message and within the bounds beyond that; an empty list after the last one."""
        while not self._waiting:
            if self.finished:
                return []
            self._news.clear()
            await self._news.wait()
        taken: list[NewMessage] = []
        room = bytes_max
        while self._waiting and len(taken) < messages_max and (not taken or self._waiting[0][1] <= room):
            message, size = self._waiting.popleft()
            self._bytes -= size
            room -= size
            taken.append(message)
        self._room.set()
        return taken

    def finish(self) -> None:
        """Nothing more comes; what waits can still be taken."""
        self.finished = True
        self._news.set()
        self._room.set()
