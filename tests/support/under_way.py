"""A request of which only a part is sent, over a socket of its own.

Tests of slow and half-sent bodies derive from it what they read of the answer. It knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio

__all__ = ["UnderWay"]


class UnderWay:
    """Sends the parts of a request as the test has them."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()
