"""A memory store with the faults that most tests want at hand: it fails its next writes, or holds calls until released."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from unbroken.errors import StoreError
from unbroken.messages import StreamId, StreamInfo
from unbroken.store.base import WriteOp, WriteResult
from unbroken.store.memory import MemoryStore
from unbroken.testing import disk

if TYPE_CHECKING:
    from unbroken.limits import Limits

__all__ = ["FaultyStore"]


class FaultyStore(disk.FaultyStore):
    """A memory store whose writes fail or wait on demand; counts how often each fault bit."""

    def __init__(self, *, limits: Limits) -> None:
        super().__init__(MemoryStore(limits=limits))
        self.failures: list[StoreError] = []
        self.failed = 0
        self.writes: list[int] = []
        self.waiting = asyncio.Event()
        self.looking = asyncio.Event()
        self._go = asyncio.Event()
        self._go.set()
        self._look = asyncio.Event()
        self._look.set()

    def hold(self) -> None:
        """Let no write through until `release`."""
        self._go.clear()

    def release(self) -> None:
        """Let writes through again."""
        super().release()
        self._go.set()

    def hold_lookups(self) -> None:
        """Let no look-up by id answer until `release_lookups`."""
        self._look.clear()

    def release_lookups(self) -> None:
        """Let look-ups answer again."""
        self._look.set()

    async def get_by_id(self, stream: StreamId) -> StreamInfo | None:
        found = await super().get_by_id(stream)
        if not self._look.is_set():
            self.looking.set()
            await self._look.wait()
        return found

    async def probe(self) -> None:
        await self._fault()

    async def _fault(self) -> None:
        if not self._go.is_set():
            self.waiting.set()
            await self._go.wait()
        if self.failures:
            self.failed += 1
            raise self.failures.pop(0)

    async def write(self, ops: Sequence[WriteOp]) -> list[WriteResult]:
        await self._fault()
        self.writes.append(len(ops))
        return await super().write(ops)
