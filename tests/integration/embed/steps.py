"""A source for runs that goes one step when a test tells it to, and waiting for what a run has done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from tests.integration.embed.host import CEILING_SECONDS
from unbroken import Unbroken
from unbroken.messages import StreamInfo

__all__ = ["Steps", "ended", "head"]

Texts = list[str]


class Steps:
    """A source that goes one step when it is told to; knows how it was left."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.left = asyncio.Event()
        self._steps: asyncio.Queue[str | None] = asyncio.Queue()

    def step(self, *texts: str) -> None:
        for text in texts:
            self._steps.put_nowait(text)

    def finish(self) -> None:
        self._steps.put_nowait(None)

    async def source(self) -> AsyncIterator[str]:
        self.begun.set()
        try:
            while (text := await self._steps.get()) is not None:
                yield text
        finally:
            self.left.set()


async def ended(unbroken: Unbroken, name: str) -> tuple[StreamInfo, Texts]:
    """The stream when it has ended, and every text of it."""
    async with asyncio.timeout(CEILING_SECONDS):
        texts = [str(followed.message.text) async for followed in unbroken.follow(name)]
    return await unbroken.state(name), texts


async def head(unbroken: Unbroken, name: str, wanted: int) -> None:
    """Wait until the stream has so many messages."""
    async with asyncio.timeout(CEILING_SECONDS):
        async for followed in unbroken.follow(name):
            if followed.seq >= wanted:
                return
    raise AssertionError(f"the stream ended before message {wanted}")
