"""What the tools ask of the server: each request bounded in time, each failure a typed error.

The tools call it. It keeps no state but open connections, and never repeats what could have a second effect.
"""

from __future__ import annotations

import asyncio
import ssl as tls
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Self, TypeVar

from unbroken.client.http import HttpFace, Query, place
from unbroken.client.runs import ClientRuns, RunOptions
from unbroken.client.transport import Address, Connector
from unbroken.client.values import Json, StreamPage, StreamRead
from unbroken.clock import Clock, SystemClock
from unbroken.errors import OverloadedError, UnreachableError
from unbroken.limits import DEFAULT_LIMITS, Limits
from unbroken.protocol.frames import StreamView
from unbroken.runs.spec import SourceView

__all__ = ["Remote"]

T = TypeVar("T")


class Remote:
    """One server. Every call answers within `limits.agent_call_seconds_max`, or raises `UnreachableError`.

    A server that restarts meanwhile is waited for within that time. Use it as `async with`; what still waits when it is left,
    fails.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        limits: Limits = DEFAULT_LIMITS,
        clock: Clock | None = None,
        ssl: tls.SSLContext | None = None,
    ) -> None:
        self.url = url
        self.limits = limits
        patience = limits.agent_call_seconds_max + limits.agent_wait_seconds_max
        own = replace(limits, client_retries_max=limits.agent_retries_max, client_request_seconds_max=patience)
        self.clock = clock or SystemClock()
        self._face = HttpFace(Connector(Address.parse(url), own, self.clock, token, ssl))
        self._runs = ClientRuns(self._face)
        self._calls = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._face.aclose()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """A place among the calls that are worked on; `OverloadedError` when there is none."""
        self._calls += 1
        try:
            if self._calls > self.limits.agent_calls_max:
                raise OverloadedError("too many calls at one time", limit="agent_calls_max", retry_after_seconds=1)
            yield
        finally:
            self._calls -= 1

    async def runnables(self) -> list[SourceView]:
        """What there is to run."""
        return await self._within(self._runs.available())

    async def task(self, name: str, arguments: dict[str, Json], options: RunOptions) -> StreamView:
        """Start a task; see `ClientRuns.task`."""
        return await self._within(self._runs.task(name, arguments, options))

    async def tool(self, server: str, name: str, arguments: dict[str, Json], options: RunOptions) -> StreamView:
        """Start the call of an MCP server's tool; see `ClientRuns.tool`."""
        return await self._within(self._runs.tool(server, name, arguments, options))

    async def program(self, name: str, options: RunOptions) -> StreamView:
        """Start a program; see `ClientRuns.program`."""
        return await self._within(self._runs.program(name, options))

    async def answer(self, stream: str, question: str, response: Json) -> int:
        """Answer a question; see `ClientRuns.answer`."""
        return await self._within(self._runs.answer(stream, question, response))

    async def cancel(self, stream: str) -> StreamView:
        """Ask the stream's producer to stop; idempotent."""
        return await self._within(self._face.send("POST", place("cancel", stream), StreamView))

    async def state(self, stream: str) -> StreamView:
        """The stream as it is now."""
        return await self._within(self._face.get(place("streams", stream), StreamView))

    async def streams(self, query: Query) -> StreamPage:
        """A page of streams, newest first."""
        return await self._within(self._face.get("/v1/streams", StreamPage, query))

    async def read(self, stream: str, after: str, *, limit: int, wait_seconds: float = 0.0) -> StreamRead:
        """The messages behind `after`. At the head of a stream that goes on, `wait_seconds` at most are waited for one.

        Whatever the waiting comes to, the cursor of the answer is right: nothing is skipped and nothing is there twice.
        """
        path = place("messages", stream)
        found = await self._within(self._face.get(path, StreamRead, {"after": after, "limit": limit}))
        if found.messages or found.stream.ended is not None or wait_seconds <= 0:
            return found
        query: Query = {"after": found.cursor, "limit": limit, "live": "long-poll"}
        try:
            async with asyncio.timeout(wait_seconds):
                return await self._face.poll(path, StreamRead, query) or found
        except TimeoutError:
            return found

    async def _within(self, work: Coroutine[object, object, T]) -> T:
        seconds = self.limits.agent_call_seconds_max
        try:
            async with asyncio.timeout(seconds):
                return await work
        except TimeoutError:
            raise UnreachableError(f"no answer from {self.url} within {seconds:g} s") from None
