"""The adapter of plain Server-Sent Events: a stream is one address, and `Last-Event-ID` resumes it.

The survival kit uses it by the name `sse`. What a server must do for it is in docs/howto/verify-server.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import ClassVar
from urllib.parse import quote

from unbroken.testing.survival.adapter import Capability, Complete, Delivery, Ended
from unbroken.testing.survival.adapters.http import HttpAdapter

__all__ = ["SseAdapter"]

TEXT = {"Content-Type": "text/plain; charset=utf-8"}
END = "end"
QUIET_SECONDS = 2.0


class SseAdapter(HttpAdapter):
    """Event ids are cursors; positions are not told."""

    capabilities: ClassVar[frozenset[Capability]] = frozenset(Capability)

    async def create(self, stream: str) -> None:
        await self.request("PUT", _path(stream))

    async def append(self, stream: str, payload: str, *, producer: str, number: int) -> int:
        headers = TEXT | {"Idempotency-Key": f"{producer}/{number}"}
        await self.request("POST", _path(stream), content=payload, headers=headers)
        return 0

    async def subscribe(self, stream: str, cursor: str) -> AsyncGenerator[Delivery | Ended, None]:
        async for event in self.events(_path(stream), {"Last-Event-ID": cursor} if cursor else None):
            if event.event == END:
                yield Ended(event.data)
            else:
                yield Delivery(event.data, event.id)

    async def read_all(self, stream: str) -> Complete:
        """As a new viewer reads: to the end, or until nothing has come for a while."""
        found: list[Delivery] = []
        items = self.subscribe(stream, "")
        while True:
            try:
                async with asyncio.timeout(QUIET_SECONDS):
                    item = await anext(items, None)
            except TimeoutError:
                item = None
            if not isinstance(item, Delivery):
                return Complete(tuple(found), "" if item is None else item.state)
            found.append(item)

    async def end(self, stream: str) -> None:
        await self.request("POST", f"{_path(stream)}/end")

    async def delete(self, stream: str) -> None:
        await self.request("DELETE", _path(stream))


def _path(stream: str) -> str:
    return f"/{quote(stream, safe='')}"
