"""A bound in messages and bytes that waits instead of refusing: the client's backpressure.

Producers take before they queue and give back when the append is answered. It never drops anything and never overtakes.
"""

from __future__ import annotations

import asyncio
from collections import deque

__all__ = ["Budget"]


class Budget:
    """At most `messages_max` messages and `bytes_max` bytes at a time, first come, first served.

    Something larger than the whole budget is let in alone. `take` may be cancelled; then nothing was taken.
    """

    def __init__(self, messages_max: int, bytes_max: int) -> None:
        self._messages_max = messages_max
        self._bytes_max = bytes_max
        self._waiting: deque[tuple[int, int, asyncio.Future[None]]] = deque()
        self.messages = 0
        self.bytes = 0

    async def take(self, messages: int, size: int) -> None:
        """Wait until `messages` of `size` bytes fit, and take them."""
        if not self._waiting and self._fits(messages, size):
            self._add(messages, size)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (messages, size, turn)
        self._waiting.append(entry)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give(messages, size)
            else:
                if entry in self._waiting:
                    self._waiting.remove(entry)
                self._let_in()
            raise

    def give(self, messages: int, size: int) -> None:
        """Give back what was taken; whoever waits longest and fits goes on."""
        self.messages -= messages
        self.bytes -= size
        assert self.messages >= 0
        assert self.bytes >= 0
        self._let_in()

    def _let_in(self) -> None:
        while self._waiting and self._fits(*self._waiting[0][:2]):
            messages, size, turn = self._waiting.popleft()
            if turn.cancelled():
                continue
            self._add(messages, size)
            turn.set_result(None)

    def _fits(self, messages: int, size: int) -> bool:
        if self.messages == 0:
            return True
        return self.messages + messages <= self._messages_max and self.bytes + size <= self._bytes_max

    def _add(self, messages: int, size: int) -> None:
        self.messages += messages
        self.bytes += size
