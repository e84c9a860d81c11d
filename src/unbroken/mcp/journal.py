"""What a server says during a call, on its way into the run's stream: in order, bounded, and never holding the server up.

The SDK's callbacks must not wait; here they only put into a queue, which one task empties.
"""

from __future__ import annotations

import asyncio
from collections import deque

import msgspec

from unbroken.mcp.redaction import Redaction
from unbroken.runs.context import RunContext

__all__ = ["Journal"]


class Journal:
    """The log notifications of one call. More than `mcp_logs_per_second_max`, or than fit the queue, are counted."""

    def __init__(self, context: RunContext, redact: Redaction) -> None:
        self._context = context
        self._limits = context.limits
        self._redact = redact
        self._waiting: deque[dict[str, object]] = deque()
        self._news = asyncio.Event()
        self._dropped = 0
        self._second = 0.0
        self._in_second = 0

    def log(self, level: str, logger: str, data: object) -> None:
        """Take one notification; never waits."""
        now = asyncio.get_running_loop().time()
        if now - self._second >= 1.0:
            self._second, self._in_second = now, 0
        self._in_second += 1
        full = len(self._waiting) >= self._limits.mcp_queue_max
        if full or self._in_second > self._limits.mcp_logs_per_second_max:
            self._dropped += 1
            return
        text = data if isinstance(data, str) else msgspec.json.encode(data).decode()
        body: dict[str, object] = {"level": level, "text": self._redact(text[: self._limits.run_log_bytes_max])}
        if logger:
            body["logger"] = logger[:200]
        self._waiting.append(body)
        self._news.set()

    async def run(self) -> None:
        """Store what is logged, until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            await self.drain()

    async def drain(self) -> None:
        """Store what waits, and say how much was dropped."""
        while self._waiting:
            if self._dropped and self._in_second <= self._limits.mcp_logs_per_second_max:
                await self._tell_dropped()
            await self._context.put("log", self._waiting.popleft())

    async def finish(self) -> None:
        """Store the rest; nothing more comes."""
        await self.drain()
        if self._dropped:
            await self._tell_dropped()

    async def _tell_dropped(self) -> None:
        dropped, self._dropped = self._dropped, 0
        await self._context.put(
            "log", {"level": "warning", "text": f"{dropped} log messages were dropped", "dropped": dropped}
        )
