"""What a server says during a call, on its way into the run's stream: in order, bounded, and never holding the server up.

The SDK's callbacks must not wait; here they only put into a queue, which one task empties. What does not fit is counted, and
the count is said in the stream.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from typing import Final, Literal

import msgspec

from unbroken.mcp.redaction import Redaction
from unbroken.runs.context import RunContext

__all__ = ["Journal"]

Said = Literal["log", "output", "shared"]
DROPPED: Final[dict[Said, str]] = {
    "log": "{} log messages were dropped",
    "output": "{} output messages were dropped",
    "shared": "{} log messages were dropped: the session had several calls, and they may have been of any",
}


class Journal:
    """The log notifications and the output of one call.

    Logs beyond `mcp_logs_per_second_max` are counted, and so is everything beyond `mcp_queue_max` that waits for the store.
    """

    def __init__(self, context: RunContext, redact: Redaction) -> None:
        self._context = context
        self._limits = context.limits
        self._redact = redact
        self._waiting: deque[dict[str, object] | str] = deque()
        self._news = asyncio.Event()
        self._dropped: Counter[Said] = Counter()
        self._second = 0.0
        self._in_second = 0
        self._characters = 0
        self._rest = ""
        self._closed = False

    def log(self, level: str, logger: str, data: object) -> None:
        """Take one notification; never waits."""
        now = asyncio.get_running_loop().time()
        if now - self._second >= 1.0:
            self._second, self._in_second = now, 0
        self._in_second += 1
        full = len(self._waiting) >= self._limits.mcp_queue_max
        if full or self._in_second > self._limits.mcp_logs_per_second_max:
            self._dropped["log"] += 1
            return
        text = data if isinstance(data, str) else msgspec.json.encode(data).decode()
        body: dict[str, object] = {"level": level, "text": text[: self._limits.run_log_bytes_max]}
        if logger:
            body["logger"] = logger[:200]
        self._waiting.append(body)
        self._news.set()

    def missed(self) -> None:
        """Count a log message of which it is not known whether it was of this call."""
        self._dropped["shared"] += 1

    def output(self, text: str) -> None:
        """Take a piece of what the tool puts out; never waits. A secret that several pieces hold together is hidden too."""
        if not text:
            return
        full = len(self._waiting) >= self._limits.mcp_queue_max
        if full or self._characters + len(text) > self._limits.mcp_result_bytes_max:
            self._dropped["output"] += 1
            return
        text = self._redact(self._rest + text)
        held = self._redact.unfinished(text)
        self._rest = text[len(text) - held :]
        self._say(text[: len(text) - held])

    def _say(self, text: str) -> None:
        if text:
            self._characters += len(text)
            self._waiting.append(text)
            self._news.set()

    async def run(self) -> None:
        """Store what is said, until `close`, and then the rest. Cancelled, it may lose some."""
        while not self._closed:
            await self._news.wait()
            self._news.clear()
            await self._drain()
        await self._tell_dropped()

    def close(self) -> None:
        """Nothing more comes."""
        rest, self._rest = self._rest, ""
        self._say(rest)
        self._closed = True
        self._news.set()

    async def _drain(self) -> None:
        while self._waiting:
            if self._dropped and self._in_second <= self._limits.mcp_logs_per_second_max:
                await self._tell_dropped()
            said = self._waiting.popleft()
            if isinstance(said, str):
                await self._context.put_text("output", said)
                self._characters -= len(said)
            else:
                await self._context.put("log", said)

    async def _tell_dropped(self) -> None:
        dropped, self._dropped = self._dropped, Counter()
        for kind, number in dropped.items():
            text = DROPPED[kind].format(number)
            await self._context.put("log", {"level": "warning", "text": text, "dropped": number})
