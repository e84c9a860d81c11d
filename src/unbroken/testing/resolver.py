"""`FaultyResolver`: names that resolve, fail, hang or move, for everything that one event loop looks up.

Tests put it around a client. It answers for the names that it was told of and leaves all others to the system; it never
changes anything outside its loop.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from types import TracebackType
from typing import Self

__all__ = ["FaultyResolver"]


class FaultyResolver:
    """Answers name lookups of the running event loop while its block lasts.

    ```
    with FaultyResolver({"streams.test": "127.0.0.1"}) as names:
        names.fail("streams.test")                # as if it did not exist; or with another error
        names.point("streams.test", "127.0.0.2")  # from now on it means another address
    ```

    It works where names are looked up by `loop.getaddrinfo`: asyncio's own loops, and with them `unbroken.Client`,
    `websockets`, `httpx` and `aiohttp`. `lookups` counts what was asked, `bites` what failed or was held, by name.
    """

    def __init__(self, names: dict[str, str] | None = None) -> None:
        self.lookups: Counter[str] = Counter()
        self.bites: Counter[str] = Counter()
        self._answers: dict[str, str | int | None] = dict(names or {})
        self._changed = asyncio.Event()
        self._asked = asyncio.Event()

    def point(self, name: str, address: str) -> None:
        """`name` resolves to `address`, an IP address."""
        self._set(name, address)

    def fail(self, name: str, error: int = socket.EAI_NONAME) -> None:
        """`name` does not resolve, with one of `socket.EAI_…`."""
        self._set(name, error)

    def hang(self, name: str) -> None:
        """A resolver that does not answer; whoever asks waits until `name` is told anything else."""
        self._set(name, None)

    async def asked(self, name: str, times: int = 1) -> None:
        """Wait until `name` failed or was held so often; bound it with `asyncio.timeout`."""
        while self.bites[name] < times:
            self._asked.clear()
            await self._asked.wait()

    def __enter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._system = self._loop.getaddrinfo
        self._loop.getaddrinfo = self._look_up  # type: ignore[assignment, method-assign]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.getaddrinfo = self._system  # type: ignore[method-assign]
        self._changed.set()

    def _set(self, name: str, answer: str | int | None) -> None:
        self._answers[name] = answer
        self._changed.set()

    async def _look_up(
        self,
        host: str | bytes | None,
        port: str | int | None,
        *,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> object:
        name = host.decode() if isinstance(host, bytes) else host
        if name not in self._answers:
            return await self._system(host, port, family=family, type=type, proto=proto, flags=flags)
        assert name is not None
        self.lookups[name] += 1
        while (answer := self._answers[name]) is None:
            self._bite(name)
            self._changed.clear()
            await self._changed.wait()
        if isinstance(answer, int):
            self._bite(name)
            raise socket.gaierror(answer, "the name does not resolve (FaultyResolver)")
        return await self._system(answer, port, family=family, type=type, proto=proto, flags=flags)

    def _bite(self, name: str) -> None:
        self.bites[name] += 1
        self._asked.set()
