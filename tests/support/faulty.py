"""A store with a fault in front of it: it can fail its next writes, or hold them back until released."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from unbroken.errors import StoreError
from unbroken.store.base import WriteOp, WriteResult
from unbroken.store.memory import MemoryStore

if TYPE_CHECKING:
    from unbroken.limits import Limits

__all__ = ["FaultyStore"]


class FaultyStore(MemoryStore):
    """A memory store whose writes fail or wait on demand; counts how often each fault bit."""

    def __init__(self, *, limits: Limits) -> None:
        super().__init__(limits=limits)
        self.failures: list[StoreError] = []
        self.failed = 0
        self.writes: list[int] = []
        self._go = asyncio.Event()
        self._go.set()
        self.waiting = asyncio.Event()

    def hold(self) -> None:
        """Let no write through until `release`."""
        self._go.clear()

    def release(self) -> None:
        """Let writes through again."""
        self._go.set()

    async def write(self, ops: Sequence[WriteOp]) -> list[WriteResult]:
        if not self._go.is_set():
            self.waiting.set()
            await self._go.wait()
        if self.failures:
            self.failed += 1
            raise self.failures.pop(0)
        self.writes.append(len(ops))
        return await super().write(ops)

